"""Events reach a real OTLP collector as spans: complete, in order, at least once, and only then leave the outbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest_asyncio

from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1 import tokens_pb2
from identity.audit.event import Circumstances, Event, EventType, Outcome
from identity.audit.sinks.file.reader import read_events

TRACE_ID, PARENT_SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest_asyncio.fixture
async def relayed(collector: Any, make_settings: Any, start_service: Callable[[Any], Awaitable[Any]]) -> Any:
    """A service whose relay exports to the collector."""
    return await start_service(make_settings(audit={"relay": True, "relay_poll_ms": 10}))


async def issue(service: Any, **fields: Any) -> Any:
    request = pb.IssueTokensRequest(**({"subject": "alice", "audience": ["orders"]} | fields))
    return await service.identity.IssueTokens(request, metadata=service.login)


async def waiting(service: Any) -> int:
    """How many events are in the outbox."""
    return (await service.server.store.outbox.backlog(["otlp"])).events


async def test_an_event_becomes_a_span_that_says_who_what_and_from_where(
    relayed: Any, collector: Any, wait_until: Any
) -> None:
    context = tokens_pb2.ClientContext(ip_address="192.0.2.1", user_agent="Browser/1", device_label="Laptop")
    traceparent = ("traceparent", f"00-{TRACE_ID}-{PARENT_SPAN_ID}-00")  # not sampled: audited all the same
    issued = await relayed.identity.IssueTokens(
        pb.IssueTokensRequest(subject="alice", audience=["orders"], client_context=context),
        metadata=(*relayed.login, traceparent),
    )
    await wait_until(lambda: collector.of_type("tokens.issued"))
    (span,) = [span for span in collector.spans if span.name == "tokens.issued"]
    assert span.trace_id.hex() == TRACE_ID
    assert span.parent_span_id.hex() == PARENT_SPAN_ID
    attributes = collector.attributes(span)
    expected = {
        "identity.event.type": "tokens.issued",
        "identity.event.outcome": "success",
        "identity.client.id": "login",
        "user.id": "alice",
        "session.id": issued.tokens.session_id,
        "client.address": "192.0.2.1",
        "user_agent.original": "Browser/1",
        "identity.device.label": "Laptop",
        "rpc.method": "grpc_identity.v1.IdentityService/IssueTokens",
    }
    assert {name: attributes[name] for name in expected} == expected


async def test_every_outcome_of_a_session_is_told_in_order(
    relayed: Any, collector: Any, refused: Any, wait_until: Any
) -> None:
    tokens = (await issue(relayed)).tokens
    refresh = relayed.identity.Refresh
    await refresh(
        pb.RefreshRequest(refresh_token=tokens.refresh_token, idempotency_key="a"), metadata=relayed.login
    )
    await refused(
        refresh(
            pb.RefreshRequest(refresh_token=tokens.refresh_token, idempotency_key="b"), metadata=relayed.login
        )
    )
    await relayed.identity.Revoke(pb.RevokeRequest(session_id=tokens.session_id), metadata=relayed.login)
    await wait_until(lambda: collector.of_type("session.revoked"))
    of_session = [
        collector.attributes(span)
        for span in collector.spans
        if collector.attributes(span).get("session.id") == tokens.session_id
    ]
    of_session.sort(key=lambda attributes: attributes["identity.event.sequence"])
    assert [attributes["identity.event.type"] for attributes in of_session] == [
        "tokens.issued",
        "tokens.refreshed",
        "refresh.reuse_detected",
        "session.revoked",
    ]
    assert of_session[2]["identity.event.reason"] == "REFRESH_TOKEN_REUSED"


async def test_the_sequence_of_a_bucket_has_no_gap(relayed: Any, collector: Any, wait_until: Any) -> None:
    for number in range(40):
        await issue(relayed, subject=f"user-{number}")
    await wait_until(lambda: len(collector.of_type("tokens.issued")) == 40)
    by_bucket: dict[int, list[int]] = {}
    for span in collector.spans:
        attributes = collector.attributes(span)
        by_bucket.setdefault(attributes["identity.event.bucket"], []).append(
            attributes["identity.event.sequence"]
        )
    for sequences in by_bucket.values():
        assert sorted(sequences) == list(range(1, len(sequences) + 1))


async def test_while_the_backend_is_away_events_wait_and_nothing_is_lost(
    relayed: Any, collector: Any, wait_until: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("identity.audit.relay.relay.LAST_RETRY_SECONDS", 0.1)
    await issue(relayed, subject="before")
    await wait_until(lambda: collector.of_type("tokens.issued"))
    collector.refusing = True
    asked = collector.requests
    for number in range(5):
        await issue(relayed, subject=f"during-{number}")
    await wait_until(lambda: collector.requests > asked)
    assert await waiting(relayed) >= 5
    collector.refusing = False
    await wait_until(lambda: len(collector.of_type("tokens.issued")) >= 6, seconds=40)
    assert {item["user.id"] for item in collector.of_type("tokens.issued")} == {
        "before",
        *(f"during-{number}" for number in range(5)),
    }

    async def is_empty() -> bool:
        return await waiting(relayed) == 0

    await wait_until(is_empty)


async def test_an_event_that_spans_cannot_say_is_a_dead_letter_and_holds_up_no_bucket(
    collector: Any,
    make_settings: Any,
    start_service: Callable[[Any], Awaitable[Any]],
    wait_until: Any,
    tmp_path: Any,
) -> None:
    path = tmp_path / "audit.jsonl"
    settings = make_settings(
        audit={"relay": True, "relay_poll_ms": 10, "sinks": "otlp,file", "file_path": path}
    )
    service = await start_service(settings)
    far = Circumstances("orders", "/t.S/M", reported_by="orders", occurred_at_ms=253_402_300_799_999)
    store = service.server.store
    await store.outbox.append([Event(EventType.TOKEN_USED, Outcome.SUCCESS, far, subject="far")])
    for number in range(20):
        await issue(service, subject=f"user-{number}")

    async def is_empty() -> bool:
        return await waiting(service) == 0

    await wait_until(is_empty)
    assert len(collector.of_type("tokens.issued")) == 20
    (kept,) = await store.dead_letters.letters()
    assert (kept.sink, kept.letter.item.event.subject) == ("otlp", "far")
    assert kept.letter.problem == "it cannot be encoded: ValueError"
    assert [item.event.subject for item in read_events(path) if item.event.type == "token.used"] == ["far"]


async def test_a_server_with_a_relay_in_it_names_a_sink_that_takes_nothing_and_is_ready(
    relayed: Any, collector: Any, wait_until: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("identity.audit.relay.relay.LAST_RETRY_SECONDS", 0.1)
    collector.refusing = True
    await issue(relayed)

    async def problems() -> list[Any]:
        async with httpx.AsyncClient(base_url=relayed.addresses.http_url) as http:
            answer = await http.get("/readyz")
            assert answer.status_code == 200
            return answer.json()["problems"]

    async def is_named() -> bool:
        return [problem["name"] for problem in await problems()] == ["audit_sink_takes_nothing"]

    await wait_until(is_named)
    assert (await problems())[0]["message"].startswith("otlp: ")
    collector.refusing = False

    async def is_over() -> bool:
        return not await problems()

    await wait_until(is_over)


async def test_refusals_of_strangers_and_of_clients_are_told(
    relayed: Any, collector: Any, refused: Any, wait_until: Any
) -> None:
    await refused(relayed.identity.IssueTokens(pb.IssueTokensRequest(subject="a"), metadata=()))
    await refused(issue(relayed, audience=["billing"]))
    await refused(
        relayed.identity.Refresh(pb.RefreshRequest(refresh_token="gidr_forged"), metadata=relayed.login)
    )
    await wait_until(lambda: collector.of_type("refresh.refused"))
    await wait_until(lambda: collector.of_type("request.refused"))
    await wait_until(lambda: collector.of_type("client.authentication_failed"))
    assert collector.of_type("request.refused")[0]["identity.event.reason"] == "AUDIENCE_NOT_ALLOWED"
    assert collector.of_type("refresh.refused")[0]["identity.event.reason"] == "REFRESH_TOKEN_INVALID"
