"""From a call on somebody's server to an exported span: the use of a token, end to end through sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from audit.auditor import account_of
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from grpc_identity import Issuer, Policy, UsageAudit, UsageRecorder, Verifier, scope
from grpc_identity.aio import AuthInterceptor
from grpc_identity.usage.spool import MIN_SPOOL_BYTES
from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb

METHOD = "/shop.v1.Orders/Refund"
HOST = clients_pb2.ClientPolicy(grants=["GRANT_VERIFY", "GRANT_REPORT_USAGE"])


class Traced(grpc.aio.ServerInterceptor):
    """The host's own tracing: a span around each call, before anything else."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self._tracer = provider.get_tracer("host")

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        inner = handler.stream_stream or handler.unary_unary

        async def traced(request: Any, context: Any) -> Any:
            with self._tracer.start_as_current_span("host"):
                return await inner(request, context)

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.stream_stream
            else grpc.unary_unary_rpc_method_handler
        )
        return make(traced, handler.request_deserializer, handler.response_serializer)


@pytest.fixture
async def exporting(make_settings: Any, start_service: Any, collector: Any) -> Any:
    """A service that exports, with the client of a host."""
    service = await start_service(make_settings(audit={"relay": True, "relay_poll_ms": 10}))
    await service.new_client("orders", HOST)
    return service


async def test_a_use_is_a_span_in_the_trace_of_the_host(
    exporting: Any, collector: Any, tmp_path: Path, wait_until: Any
) -> None:
    service, traced = exporting, Traced()
    who: dict[str, Any] = {"client_id": "orders", "client_secret": service.secrets["orders"]}
    target = service.addresses.grpc_target
    issuer = Issuer("https://id.example", target=target, audience="orders", **who)
    policy = Policy().require(METHOD, scope("orders.write"), audit=UsageAudit.MUST)
    tokens = {}
    for subject, scopes in (("alice", ["orders.write"]), ("bob", ["orders.read"])):
        request = pb.IssueTokensRequest(subject=subject, audience=["orders"], scopes=scopes)
        tokens[subject] = (await service.identity.IssueTokens(request, metadata=service.login)).tokens

    async def refund(request: bytes, context: Any) -> bytes:
        return request

    async with (
        Verifier(issuer) as verifier,
        UsageRecorder(target, **who, directory=tmp_path / "usage", linger_seconds=0.01) as usage,
    ):
        server = grpc.aio.server(
            interceptors=[traced, AuthInterceptor(verifier, policy, usage=usage)],
            options=[("grpc.so_reuseport", 0)],
        )
        handlers = {"Refund": grpc.unary_unary_rpc_method_handler(refund)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.v1.Orders", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for subject, held in tokens.items():
                call = channel.unary_unary(METHOD)(
                    b"", metadata=(("authorization", f"Bearer {held.access_token}"),)
                )
                assert (await call.code()).name == ("OK" if subject == "alice" else "PERMISSION_DENIED")
        await server.stop(None)
    await wait_until(lambda: len(collector.of_type("token.used")) == 2)

    uses = {use["user.id"]: use for use in collector.of_type("token.used")}
    (begun,) = collector.of_type("token.use_begun")
    assert begun["user.id"] == "alice"
    for subject, held in tokens.items():
        (issued,) = (span for span in collector.of_type("tokens.issued") if span["user.id"] == subject)
        use = uses[subject]
        assert use["session.id"] == held.session_id
        assert use["identity.token.id"] == issued["identity.token.id"]
        assert use["identity.client.id"] == "login"
        assert use["identity.event.reported_by"] == "orders"
        assert use["client.address"] == "127.0.0.1"
        assert use["rpc.method"] == METHOD.removeprefix("/")
    assert uses["alice"]["rpc.response.status_code"] == "OK"
    assert uses["bob"]["rpc.response.status_code"] == "PERMISSION_DENIED"
    assert uses["bob"]["identity.event.reason"] == "SCOPE_MISSING"

    hosts = {span.context.trace_id.to_bytes(16, "big"): span for span in traced.spans.get_finished_spans()}
    exported = [span for span in collector.spans if span.name.startswith("token.use")]
    assert len(hosts) == 2
    for span in exported:
        host = hosts[span.trace_id]
        assert span.parent_span_id == host.context.span_id.to_bytes(8, "big")
    events = [
        event for span in hosts.values() for event in span.events if event.name == "identity.token_used"
    ]
    assert {event.attributes["user.id"] for event in events} == {"alice", "bob"}


async def test_an_auditor_learns_how_many_uses_are_missing(
    exporting: Any, collector: Any, tmp_path: Path, issue: Any, wait_until: Any
) -> None:
    """The service is away, the spool runs full, and the host ends: what was answered is recorded, or counted as lost."""
    service, answered = exporting, 0
    tokens = await issue(service)
    who: dict[str, Any] = {"client_id": "orders", "client_secret": service.secrets["orders"]}
    issuer = Issuer("https://id.example", target=service.addresses.grpc_target, audience="orders", **who)
    options: dict[str, Any] = who | {"directory": tmp_path / "usage", "spool_bytes": MIN_SPOOL_BYTES}
    policy = Policy().require(METHOD, audit=UsageAudit.USE)

    async def refund(request: bytes, context: Any) -> bytes:
        return request

    usage = UsageRecorder("127.0.0.1:1", **options)
    usage.start()
    async with Verifier(issuer) as verifier:
        server = grpc.aio.server(
            interceptors=[AuthInterceptor(verifier, policy, usage=usage)], options=[("grpc.so_reuseport", 0)]
        )
        handlers = {"Refund": grpc.unary_unary_rpc_method_handler(refund)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.v1.Orders", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            metadata = (("authorization", f"Bearer {tokens.access_token}"),)
            while usage.counts()["lost"] < 100:
                assert await channel.unary_unary(METHOD)(b"paid", metadata=metadata) == b"paid"
                answered += 1
        await server.stop(None)
    await asyncio.to_thread(usage.close, flush_seconds=0.1)
    async with UsageRecorder(service.addresses.grpc_target, **options):
        pass

    def lost() -> int:
        return sum(report["identity.event.count"] for report in collector.of_type("token.uses_lost"))

    await wait_until(lambda: lost() >= 100)
    await wait_until(lambda: len(collector.of_type("token.used")) == answered - 100)
    account = account_of(collector.spans)
    (session,) = account.sessions.values()
    assert len(session.uses) + account.lost_uses["orders"] == answered
    # A report is small: one may find room beside a spool that is full for uses, while more are being lost.
    reports = collector.of_type("token.uses_lost")
    assert lost() == 100
    assert {report["identity.event.severity"] for report in reports} == {"error"}
    assert all(report["identity.event.detail"].startswith("between 20") for report in reports)


async def test_no_token_is_in_what_is_kept_or_reported(
    exporting: Any, collector: Any, tmp_path: Path, issue: Any
) -> None:
    """The file on disk is read whole: no token, nor its signature, nor the secret of the client."""
    service = exporting
    token = (await issue(service)).access_token
    who: dict[str, Any] = {"client_id": "orders", "client_secret": service.secrets["orders"]}
    issuer = Issuer("https://id.example", target=service.addresses.grpc_target, audience="orders", **who)
    usage = UsageRecorder("127.0.0.1:1", **who, directory=tmp_path / "usage")
    policy = Policy().require(METHOD, scope("orders.write"), audit=UsageAudit.MUST)
    async with Verifier(issuer) as verifier:
        usage.start()
        interceptor = AuthInterceptor(verifier, policy, usage=usage)
        server = grpc.aio.server(interceptors=[interceptor], options=[("grpc.so_reuseport", 0)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            metadata = (("authorization", f"Bearer {token}"),)
            await channel.unary_unary(METHOD)(b"", metadata=metadata).code()
        await server.stop(None)
    assert usage.counts()["recorded"] == 1
    await asyncio.to_thread(usage.close, flush_seconds=0.1)
    (path,) = (tmp_path / "usage").glob("*.spool")
    kept = path.read_bytes()
    assert b"alice" in kept
    for secret in (token, token.rpartition(".")[2], service.secrets["orders"], token[-20:]):
        assert secret.encode() not in kept
    assert service.secrets["orders"] not in repr(usage)
