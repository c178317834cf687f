"""Nothing a caller or the environment says about tracing keeps an event back, or moves it into a trace that is not the caller's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from audit.order import assert_chained_in_order
from audit.sinks.receivers import Backend, GrpcReceiver, HttpReceiver, Says

from grpc_identity.v1 import identity_service_pb2 as pb
from identity.audit.sinks.otlp.spans import from_span
from identity.config import ConfigurationError

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HOSTILE = [
    {},
    {"OTEL_SDK_DISABLED": "true"},
    {"OTEL_TRACES_SAMPLER": "always_off"},
    {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
    {"OTEL_TRACES_SAMPLER": "parentbased_always_off"},
    {"OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
    {"OTEL_PROPAGATORS": "none"},
    {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1"},
    {"OTEL_BSP_MAX_QUEUE_SIZE": "1", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"},
]
METADATA = [
    [("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00")],
    [("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"), ("tracestate", "x=" + "y" * 2000)],
    [
        ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00"),
        ("tracestate", "ot=p:63;r:0"),
        ("baggage", "sampled=false,a=" + "b" * 500),
    ],
    [("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-00")],
    [("traceparent", "ff-nonsense"), ("baggage", "%%%")],
    [("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00"), ("traceparent", f"00-{'1' * 32}-{'2' * 16}-01")],
]


@pytest_asyncio.fixture(params=["http/protobuf", "grpc"])
async def backend(request: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Backend]:
    receiver = HttpReceiver if request.param == "http/protobuf" else GrpcReceiver
    async with receiver(Backend()) as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
        yield running


@pytest.mark.parametrize("environment", HOSTILE, ids=lambda environment: " ".join(environment) or "plain")
async def test_whatever_the_environment_says_of_tracing_the_audit_is_complete(
    environment: dict[str, str],
    backend: Backend,
    make_settings: Any,
    start_service: Any,
    refused: Any,
    wait_until: Any,
    monkeypatch: pytest.MonkeyPatch,
    waiting: Any,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    service = await start_service(make_settings(audit={"relay": True, "relay_poll_ms": 10}))
    told = []
    for hostile in METADATA:
        issued = await service.identity.IssueTokens(
            pb.IssueTokensRequest(subject="alice", audience=["orders"]), metadata=(*service.login, *hostile)
        )
        told.append(issued.tokens.session_id)
        await refused(service.identity.IssueTokens(pb.IssueTokensRequest(subject="a"), metadata=hostile))

    async def is_empty() -> bool:
        return len(backend.taken) > 0 and await waiting(service) == 0

    await wait_until(is_empty)
    await service.server.stop(0)
    exported = [from_span(span) for span in backend.records("traces")]
    assert_chained_in_order(exported)
    assert [each.event.session_id for each in exported if each.event.type == "tokens.issued"] == told
    strangers = [each for each in exported if each.event.type == "client.authentication_failed"]
    assert len(strangers) == len(METADATA)
    assert all(span.flags & 1 for span in backend.records("traces"))


async def test_a_client_is_followed_into_its_trace_and_a_stranger_is_only_linked_to(
    backend: Backend, make_settings: Any, start_service: Any, refused: Any, wait_until: Any
) -> None:
    service = await start_service(make_settings(audit={"relay": True, "relay_poll_ms": 10}))
    trace = ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00")
    request = pb.IssueTokensRequest(subject="alice", audience=["orders"])
    await service.identity.IssueTokens(request, metadata=(*service.login, trace))
    await refused(service.identity.IssueTokens(request, metadata=(trace,)))

    def span_of(event_type: str) -> Any:
        return next((span for span in backend.records("traces") if span.name == event_type), None)

    await wait_until(lambda: span_of("tokens.issued") and span_of("client.authentication_failed"))
    known, stranger = span_of("tokens.issued"), span_of("client.authentication_failed")
    assert (known.trace_id.hex(), known.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert stranger.trace_id.hex() != TRACE_ID
    assert not stranger.parent_span_id
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in stranger.links] == [(TRACE_ID, SPAN_ID)]


async def test_where_every_sink_is_dead_or_hangs_nothing_is_issued_at_the_bound_and_it_recovers_by_itself(
    make_settings: Any,
    start_service: Any,
    refused: Any,
    wait_until: Any,
    waiting: Any,
    issue: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("identity.audit.relay.relay.LAST_RETRY_SECONDS", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "200")
    moods = iter([Says(hangs=True), Says(status=503), Says(hangs=True)])
    answering = Backend(answer=lambda _: next(moods, Says(status=503)))
    async with HttpReceiver(answering) as backend:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.url)
        service = await start_service(
            make_settings(
                audit={"relay": True, "relay_poll_ms": 10, "outbox_max_events": 100}, redis={"buckets": 1}
            )
        )
        sessions = []
        while await waiting(service) < 100:
            sessions.append((await issue(service, f"user-{len(sessions)}")).session_id)
        refusal = await refused(
            service.identity.IssueTokens(
                pb.IssueTokensRequest(subject="one more", audience=["orders"]), metadata=service.login
            )
        )
        assert refusal.reason == "AUDIT_UNAVAILABLE"
        await service.server._backlog.look()
        assert [problem.name for problem in service.server._backlog.problems()] == ["audit_outbox_full"]
        for session in sessions[:5]:
            await service.identity.Revoke(pb.RevokeRequest(session_id=session), metadata=service.login)
        backend.answer = lambda _: None

        async def issues_again() -> bool:
            try:
                return bool((await issue(service, "later")).session_id)
            except Exception:
                return False

        await wait_until(issues_again)

        async def is_empty() -> bool:
            return await waiting(service) == 0

        await wait_until(is_empty)
        exported = [from_span(span) for span in backend.records("traces")]
        assert_chained_in_order(exported)
        revoked = [each.event.session_id for each in exported if each.event.type == "session.revoked"]
        assert revoked == sessions[:5]
        issued = [each.event.session_id for each in exported if each.event.type == "tokens.issued"]
        assert issued[: len(sessions)] == sessions


async def test_a_service_with_a_backend_it_cannot_name_does_not_start(
    make_settings: Any, start_service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon")
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_PROTOCOL"):
        await start_service(make_settings(audit={"relay": True}))
