"""Many bad tokens, and large ones: what they cost is counted in fetches, bytes and operations, never in seconds."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from grpc_identity import Issuer, KeySet, Reason, TokenError, Verifier
from grpc_identity.encoding import encode_base64url
from grpc_identity.jws import MAX_TOKEN_BYTES
from grpc_identity.keysets import COOL_DOWN_SECONDS
from grpc_identity.testing import InMemoryIssuer

KIDS = 10_000
MAX_GROWTH_BYTES = 512 * 1024


class Published:
    """Keys behind a real HTTP server on loopback that counts how often it is asked."""

    def __init__(self) -> None:
        self.issuer = InMemoryIssuer("https://id.example", audience="orders")
        self.requests = 0
        self.is_failing = False
        self.seconds = 1000.0
        self.url = ""

    def verifier(self) -> Verifier:
        trusted = Issuer(self.issuer.issuer, jwks=self.url, audience="orders")
        return Verifier(trusted, monotonic=lambda: self.seconds)


@pytest.fixture
def published() -> Iterator[Published]:
    keys = Published()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.requests += 1
            body = json.dumps(keys.issuer.jwks()).encode()
            self.send_response(503 if keys.is_failing else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    keys.url = f"http://127.0.0.1:{server.server_address[1]}/jwks.json"
    yield keys
    server.shutdown()
    thread.join()
    server.server_close()


def of_unknown_keys(issuer: InMemoryIssuer, count: int = KIDS) -> Iterator[str]:
    """Tokens of keys that nobody has published; their signatures are never looked at."""
    _, payload, signature = issuer.mint().split(".")
    for number in range(count):
        header = {"alg": "ES256", "kid": f"random-{number:032x}", "typ": "at+jwt"}
        yield f"{encode_base64url(json.dumps(header).encode())}.{payload}.{signature}"


def refusal(verify: Callable[[str], object], token: str) -> Reason:
    with pytest.raises(TokenError) as refused:
        verify(token)
    return refused.value.reason


@pytest.mark.parametrize("is_failing", [False, True], ids=["issuer-answers", "issuer-fails"])
def test_ten_thousand_unknown_keys_cause_one_fetch_a_cool_down(
    published: Published, is_failing: bool
) -> None:
    good = published.issuer.mint()
    with published.verifier() as verifier:
        assert published.requests == 1
        published.is_failing = is_failing
        for spell in range(1, 3):
            published.seconds += COOL_DOWN_SECONDS
            for token in of_unknown_keys(published.issuer):
                assert refusal(verifier.verify_waiting, token) == "KEY_UNKNOWN"
            assert published.requests == 1 + spell
            assert verifier.verify(good).subject == "alice"


async def test_ten_thousand_unknown_keys_at_once_cause_one_fetch(published: Published) -> None:
    good = published.issuer.mint()
    async with published.verifier() as verifier:
        published.seconds += COOL_DOWN_SECONDS
        answers = await asyncio.gather(
            *(verifier.verify_async(token) for token in of_unknown_keys(published.issuer)),
            return_exceptions=True,
        )
        assert {getattr(answer, "reason", None) for answer in answers} == {"KEY_UNKNOWN"}
        assert published.requests == 2
        assert verifier.verify(good).subject == "alice"


def test_unknown_keys_and_bad_tokens_leave_nothing_in_memory(published: Published) -> None:
    with published.verifier() as verifier:
        payload = published.issuer.mint().split(".")[1]
        for token in of_unknown_keys(published.issuer, 100):
            refusal(verifier.verify, token)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for token in of_unknown_keys(published.issuer):
                refusal(verifier.verify, token)
                refusal(verifier.verify, token[:100] + "A" + token[101:])
                refusal(verifier.verify, f"{token}.{payload}")
            # When the collector runs by itself depends on what else the process holds.
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert after - before < MAX_GROWTH_BYTES


def operations(verifier: Verifier, token: str) -> list[str]:
    """The names of all functions that a refusal calls, Python's and C's."""
    names: list[str] = []

    def record(frame: Any, event: str, called: Any) -> None:
        if event == "call":
            names.append(frame.f_code.co_name)
        elif event == "c_call":
            names.append(called.__name__)

    before = sys.getprofile()
    sys.setprofile(record)
    try:
        verifier.verify(token)
    except TokenError:
        pass
    else:
        pytest.fail("accepted")
    finally:
        sys.setprofile(before)
    return names


def test_a_token_of_a_megabyte_costs_no_more_than_its_length() -> None:
    issuer = InMemoryIssuer(audience="orders")
    verifier = Verifier(issuer.trusted())
    head, payload, signature = issuer.mint().split(".")
    for token in (
        "A" * 2**20, "." * 2**20, f"{head}.{'A' * 2**20}.{signature}", f"{head}.{payload}.{'A' * 2**20}",
        "\u00e9" * 2**20,
        "\udc80" * 2**20, f"{'A' * 2**20}.{payload}.{signature}", " " * 2**20,
        f"{head}.{payload}.{signature}" * 4096,
    ):  # fmt: skip
        done = operations(verifier, token)
        assert len(done) < 10, done
        # Nothing that reads the text: neither hashed nor decoded nor searched.
        assert not {"encode", "decode", "sha256", "openssl_sha256", "split", "count"} & set(done)


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 5500,
        b'{"":' * 1375,
        b'{"a":[' + b"{}," * 250 + b"{}]}",
        b"{" + b",".join(b'"%d":0' % number for number in range(700)) + b"}",
        b'{"a":' + b"9" * 5500 + b"}",
        b'{"a":[' + b"1e300," * 900 + b"0]}",
        b'{"a":[' + b"0.1," * 1350 + b"0]}",
        b'{"a":"' + b"\\u0061" * 900 + b'"}',
        b'{"a":"' + b"\xc3\xa9" * 2500 + b'"}',
        b'{"scope":"' + b" " * 5000 + b'"}',
        b" " * 5500,
    ],
    ids=[
        "arrays", "objects", "many-objects", "many-members", "digits", "large-numbers", "fractions",
        "escapes", "not-ascii",
        "spaces", "white-space",
    ],
)  # fmt: skip
def test_the_worst_that_fits_into_a_token_costs_operations_in_proportion(raw: bytes) -> None:
    issuer = InMemoryIssuer(audience="orders")
    verifier = Verifier(issuer.trusted())
    _, payload, signature = issuer.mint().split(".")
    as_header = f"{encode_base64url(raw)}.{payload}.{signature}"
    for token in (as_header, issuer.sign(raw)):
        assert len(token) <= MAX_TOKEN_BYTES
        assert len(operations(verifier, token)) < 200 + 2 * len(raw)


def test_the_worst_key_sets_cost_operations_in_proportion() -> None:
    jwk = InMemoryIssuer().jwks()["keys"][0]
    for keys in (
        [{"kty": "EC", "key_ops": ["x"] * 60_000}],
        [jwk | {"kid": str(number), "x5c": ["A" * 3000]} for number in range(65)],
        [{"kty": "EC", "use": [[]] * 120}] * 64,
        [{str(number): number for number in range(15_000)}],
        [0] * 100_000,
    ):
        calls = 0

        def count(frame: Any, event: str, called: Any) -> None:
            nonlocal calls
            calls += event in {"call", "c_call"}

        document = json.dumps({"keys": keys})
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            with pytest.raises(ValueError, match=r".+"):
                KeySet.from_json(document)
        finally:
            sys.setprofile(before)
        assert calls < 200 + len(document)
