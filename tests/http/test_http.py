"""The HTTP side over real sockets."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest_asyncio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from prometheus_client import CollectorRegistry

from grpc_identity.v1 import identity_service_pb2 as pb
from identity.http.app import create_app
from identity.http.collector import MAX_BODY_BYTES, DevelopmentCollector
from identity.http.server import HttpServer

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
        'identity_rpc_calls_total{code="OK",method="/grpc_identity.v1.IdentityService/GetJWKS"} 1.0'
        in metrics
    )


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


async def test_the_development_collector_keeps_what_it_understands() -> None:
    collector = DevelopmentCollector()
    app = create_app(
        keys=None,  # type: ignore[arg-type]  # not asked for here
        issuer="https://id.example",
        readiness=None,  # type: ignore[arg-type]
        metrics=CollectorRegistry(),
        extra_routes=collector.routes(),
    )
    server = HttpServer(app, "127.0.0.1", 0)
    port = await server.start()
    request = trace_service_pb2.ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name="tokens.issued")
    span.attributes.add(key="session.id").value.string_value = "s1"
    body = request.SerializeToString()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.post("/v1/traces", content=body)).status_code == 200
        zipped = await client.post(
            "/v1/traces", content=gzip.compress(body), headers={"Content-Encoding": "gzip"}
        )
        assert zipped.status_code == 200
        bomb = gzip.compress(bytes(MAX_BODY_BYTES + 1))
        for content, headers, status in (
            (b"\xff\xff", {}, 400),
            (b"not gzip", {"Content-Encoding": "gzip"}, 400),
            (bomb, {"Content-Encoding": "gzip"}, 400),
            (bytes(MAX_BODY_BYTES + 1), {}, 413),
        ):
            assert (await client.post("/v1/traces", content=content, headers=headers)).status_code == status
        assert len((await client.get("/dev/spans")).json()["spans"]) == 2
        assert (await client.get("/dev/spans?session_id=other")).json() == {"spans": []}
        assert len((await client.get("/dev/spans?limit=1")).json()["spans"]) == 1
        assert (await client.get("/dev/spans?limit=x")).status_code == 400
    await server.stop()
