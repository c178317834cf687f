"""What the HTTP application answers, whatever state its parts are in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from identity.keys.service import PublishedKeys
from identity.readiness import Problem

JWKS = "/.well-known/jwks.json"
Serve = Callable[..., Awaitable[httpx.AsyncClient]]


async def test_the_key_set_is_rfc_7517_and_says_how_long_it_holds(serve: Serve, parts: Any) -> None:
    http = await serve(parts)
    answer = await http.get(JWKS)
    assert answer.json() == {"keys": [{"kid": "a", "kty": "EC"}]}
    assert answer.headers["content-type"] == "application/jwk-set+json"
    assert answer.headers["cache-control"] == "public, max-age=1800, must-revalidate"
    assert answer.headers["etag"] == '"v1"'
    # Caches reckon a set's age from it.
    assert "date" in answer.headers


async def test_changed_keys_are_sent_to_who_has_the_old_ones(serve: Serve, parts: Any) -> None:
    http = await serve(parts)
    etag = (await http.get(JWKS)).headers["etag"]
    assert (await http.get(JWKS, headers={"If-None-Match": etag})).status_code == 304
    parts.keys = PublishedKeys(({"kid": "b", "kty": "EC"},), "v2", 60)
    answer = await http.get(JWKS, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.json()["keys"][0]["kid"]) == (200, "b")
    head = await http.head(JWKS)
    assert (head.headers["etag"], head.headers["content-length"]) == (
        '"v2"',
        answer.headers["content-length"],
    )


async def test_an_empty_set_is_never_given_to_anybody_to_keep(serve: Serve, parts: Any) -> None:
    parts.keys = PublishedKeys((), "", 0)
    http = await serve(parts)
    for headers in ({}, {"If-None-Match": "*"}):
        answer = await http.get(JWKS, headers=headers)
        assert (answer.status_code, answer.json()) == (503, {"error": "no_keys"})
        assert answer.headers["cache-control"] == "no-store"


async def test_what_is_wrong_is_named_while_it_lasts_and_the_process_is_alive_all_the_while(
    serve: Serve, parts: Any
) -> None:
    http = await serve(parts)
    parts.problems = [Problem("store_evicts", "maxmemory-policy is allkeys-lru; set it to noeviction")]
    answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "not ready",
        "problems": [
            {"name": "store_evicts", "message": "maxmemory-policy is allkeys-lru; set it to noeviction"}
        ],
    }
    assert answer.headers["cache-control"] == "no-store"
    assert (await http.get("/healthz")).status_code == 200
    parts.problems = []
    assert (await http.get("/readyz")).status_code == 200


async def test_readiness_that_cannot_be_found_out_is_not_ready_and_tells_nothing(
    serve: Serve, parts: Any
) -> None:
    parts.fault = RuntimeError("redis://user:password@host")
    answer = await (await serve(parts)).get("/readyz")
    assert answer.status_code == 503
    assert [problem["name"] for problem in answer.json()["problems"]] == ["readiness_unknown"]
    assert "password" not in answer.text


async def test_an_error_tells_nothing_and_is_not_sniffed(serve: Serve, parts: Any) -> None:
    parts.keys = None
    answer = await (await serve(parts)).get(JWKS)
    assert (answer.status_code, answer.json()) == (500, {"error": "internal"})
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_no_answer_repeats_what_the_caller_called_the_host(serve: Serve) -> None:
    http = await serve()
    for path in ("/healthz/", "//evil.example/", "/.well-known/"):
        answer = await http.get(path, headers={"Host": "evil.example"})
        assert (answer.status_code, answer.json()) == (404, {"error": "not_found"})
        assert "evil.example" not in str(answer.headers)


async def test_a_method_that_is_not_allowed_is_told_which_are(serve: Serve) -> None:
    http = await serve()
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = await http.request(method, JWKS)
        assert (answer.status_code, answer.json()) == (405, {"error": "method_not_allowed"})
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
