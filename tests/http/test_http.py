"""The HTTP side of a running service."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest_asyncio

from grpc_identity.v1 import identity_service_pb2 as pb

JWKS = "/.well-known/jwks.json"


@pytest_asyncio.fixture
async def http(service: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.addresses.http_url) as client:
        yield client


async def test_the_key_set_is_cacheable_and_agrees_with_grpc(service: Any, http: httpx.AsyncClient) -> None:
    answer = await http.get(JWKS)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/jwk-set+json"
    assert "max-age=3600" in answer.headers["cache-control"]
    by_grpc = await service.identity.GetJWKS(pb.GetJWKSRequest())
    assert answer.json()["keys"][0]["kid"] == by_grpc.keys[0].kid
    assert answer.headers["etag"] == f'"{by_grpc.version}"'


async def test_who_has_the_current_keys_is_not_sent_them_again(http: httpx.AsyncClient) -> None:
    etag = (await http.get(JWKS)).headers["etag"]
    for tags in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = await http.get(JWKS, headers={"If-None-Match": tags})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    for tags in ('"other"', etag.strip('"'), ""):
        assert (await http.get(JWKS, headers={"If-None-Match": tags})).status_code == 200
    head = await http.head(JWKS)
    assert (head.status_code, head.content) == (200, b"")


async def test_the_metadata_says_what_is_true(http: httpx.AsyncClient) -> None:
    metadata = (await http.get("/.well-known/oauth-authorization-server")).json()
    assert metadata["issuer"] == "https://id.example"
    assert metadata["jwks_uri"] == "https://id.example/.well-known/jwks.json"
    assert "token_endpoint" not in metadata


async def test_health_readiness_and_metrics(service: Any, http: httpx.AsyncClient) -> None:
    await service.identity.GetJWKS(pb.GetJWKSRequest())
    assert (await http.get("/healthz")).json() == {"status": "alive"}
    assert (await http.get("/readyz")).json() == {"status": "ready", "problems": []}
    metrics = (await http.get("/metrics")).text
    assert (
        'rpc_server_call_duration_seconds_count{error_type="",rpc_method="grpc_identity.v1.IdentityService/GetJWKS",'
        'rpc_response_status_code="OK",rpc_system_name="grpc"} 1.0' in metrics
    )


async def test_what_became_of_refresh_tokens_is_counted(service: Any, http: httpx.AsyncClient) -> None:
    issue = pb.IssueTokensRequest(subject="alice", audience=["orders"])
    first = (await service.identity.IssueTokens(issue, metadata=service.login)).tokens.refresh_token
    for token, key in ((first, "a"), (first, "a"), (first, "b"), ("gidr_forged", "c")):
        request = pb.RefreshRequest(refresh_token=token, idempotency_key=key)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await service.identity.Refresh(request, metadata=service.login)
    metrics = (await http.get("/metrics")).text
    for verdict, times in (("ROTATED", 1), ("REPEATED", 1), ("REUSED", 1), ("UNKNOWN", 1), ("RECOVERED", 0)):
        assert f'identity_refreshes_total{{identity_refresh_verdict="{verdict}"}} {times}.0' in metrics


async def test_everything_else_is_refused_in_json_and_nothing_is_sniffed(http: httpx.AsyncClient) -> None:
    for answer, status in (
        (await http.get("/"), 404),
        (await http.get("/dev/spans"), 404),
        (await http.post(JWKS), 405),
        (await http.get("/.well-known/../healthz"), 200),
    ):
        assert answer.status_code == status
        assert answer.json()
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
