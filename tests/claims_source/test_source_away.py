"""A source that hangs, refuses, fails or gives bad answers: what callers see, what is spent, and what it costs."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

import grpc
import pytest
from claims_source.source import active, claims_of, disabled

from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import claims_source_pb2 as source_pb2

CODES = [
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INTERNAL,
]


def too_deep() -> source_pb2.GetClaimsResponse:
    answer = active()
    value = answer.claims.fields["tenant"]
    for _ in range(40):
        value = value.list_value.values.add()
    value.string_value = "bottom"
    return answer


BAD_ANSWERS: dict[str, Any] = {
    "no-state": source_pb2.GetClaimsResponse(),
    "unknown-state": source_pb2.GetClaimsResponse(state=77),  # type: ignore[arg-type]
    "no-state-but-roles": source_pb2.GetClaimsResponse(roles={"roles": ["admin"]}),
    "huge": active(tenant="x" * 40_000),
    "long-text": active(tenant="x" * 257),
    "long-list": active(tenant=["x"] * 17),
    "mixed-list": active(tenant=["x", 1]),
    "nested": active(tenant={"name": "acme"}),
    "nested-list": active(tenant=[["acme"]]),
    "deep": too_deep(),
    "null": active(tenant=None),
    "not-a-number": active(tenant=float("nan")),
    "infinite": active(tenant=float("-inf")),
    "too-many-roles": active(*(f"r{number}" for number in range(17))),
    "role-with-space": active("two words"),
    "role-with-quote": active('x","admin'),
    "role-empty": active(""),
    "role-long": active("x" * 129),
    **{
        f"reserved-{name}": active(**{name: "mallory"})
        for name in ("sub", "iss", "aud", "exp", "jti", "scope", "roles", "client_id", "sid", "act", "cnf")
    },
}


def asking(**settings: Any) -> Any:
    """With these settings of the section in force."""
    return pytest.mark.parametrize("service", [settings], indirect=True, ids=[""])


async def metrics_of(service: Any) -> dict[str, float]:
    """The metrics of the source, as Prometheus would read them."""
    reader, writer = await asyncio.open_connection(
        *service.addresses.http_url.removeprefix("http://").split(":")
    )
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    lines = re.findall(r"^(identity_claims_source_\S+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in lines}


async def generation_of(service: Any, session: Any) -> int:
    explained = await service.administration.ExplainSession(
        admin_pb.ExplainSessionRequest(session_id=session.tokens.session_id), metadata=service.admin
    )
    return int(explained.generation)


async def test_no_session_starts_without_an_answer(source: Any, new_session: Any, refused: Any) -> None:
    source.is_away = True
    refusal = await refused(new_session(roles=["admin"]))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "CLAIMS_SOURCE_UNAVAILABLE")
    assert refusal.retry_after_seconds
    source.is_away = False
    await new_session()


@asking(when_away_at_issue="proceed")
async def test_a_session_may_start_with_what_was_asked_for_and_is_put_right_by_its_next_refresh(
    source: Any, service: Any, new_session: Any
) -> None:
    source.answer = active("clerk", tenant="acme")
    await new_session()
    source.is_away = True
    session = await new_session(roles=["admin"])
    claims = claims_of(session.tokens)
    assert (claims.roles, dict(claims.private)) == ({"admin"}, {})
    claims = claims_of(await session.refresh())
    assert (claims.roles, dict(claims.private)) == ({"admin"}, {})
    # What the source says now is what was known of the subject before this session.
    source.is_away = False
    claims = claims_of(await session.refresh())
    assert (claims.roles, dict(claims.private)) == ({"clerk"}, {"tenant": "acme"})
    source.is_away = True
    claims = claims_of(await session.refresh())
    assert (claims.roles, dict(claims.private)) == ({"clerk"}, {"tenant": "acme"})


@asking(when_away_at_issue="proceed")
async def test_even_one_who_may_proceed_starts_nothing_for_a_disabled_subject(
    source: Any, service: Any, new_session: Any, refused: Any
) -> None:
    source.answer = disabled()
    assert (await refused(new_session())).reason == "SUBJECT_DISABLED"


async def test_a_refresh_goes_on_with_what_was_last_known(source: Any, new_session: Any) -> None:
    source.answer = active("clerk", tenant="acme")
    session = await new_session(roles=["admin"])
    source.is_away = True
    for _ in range(3):
        claims = claims_of(await session.refresh())
        assert (claims.roles, claims.private["tenant"]) == ({"clerk"}, "acme")


@asking(when_away_at_issue="proceed")
async def test_events_tell_which_tokens_were_given_without_an_answer(
    source: Any, service: Any, new_session: Any, events_of: Any
) -> None:
    session = await new_session()
    source.is_away = True
    await session.refresh()
    await new_session()
    events = [event for event in await events_of(service) if event["type"].startswith("tokens.")]
    details = [(event["type"], json.loads(event["circumstances"]).get("detail", "")) for event in events]
    assert details == [
        ("tokens.issued", ""),
        ("tokens.refreshed", "without an answer of the claims source"),
        ("tokens.issued", "without an answer of the claims source"),
    ]


@asking(when_away_at_refresh="refuse")
async def test_a_refused_refresh_spends_nothing_however_long_the_source_is_away(
    source: Any, service: Any, new_session: Any, until_answered: Any, refused: Any
) -> None:
    session = await new_session()
    spent = session.tokens.refresh_token
    source.is_away = True
    for _ in range(8):  # with an open circuit, too
        refusal = await refused(session.refresh(spent, key="a"))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "CLAIMS_SOURCE_UNAVAILABLE")
        assert refusal.retry_after_seconds
    assert await generation_of(service, session) == 0
    # Longer than a retry of a token that was spent could come.
    service.travel(seconds=3600)
    source.is_away, source.answer = False, active("boss")
    await until_answered(lambda: session.refresh(spent, key="a"))
    assert claims_of(session.tokens).roles == {"boss"}
    assert await generation_of(service, session) == 1
    again = await session.refresh(spent, key="a")
    assert again.refresh_token == session.tokens.refresh_token
    assert await generation_of(service, session) == 1


@asking(when_away_at_refresh="refuse")
async def test_a_retry_whose_token_was_spent_with_an_answer_is_answered_without_one(
    source: Any, service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    spent = session.tokens.refresh_token
    first = await session.refresh(spent, key="a")
    source.is_away = True
    asked = len(source.asked)
    again = await session.refresh(spent, key="a")
    assert again.refresh_token == first.refresh_token
    assert len(source.asked) == asked + 1
    assert (await refused(session.refresh(key="b"))).reason == "CLAIMS_SOURCE_UNAVAILABLE"


@asking(when_away_at_refresh="refuse")
async def test_a_theft_is_answered_while_the_source_is_away(
    source: Any, service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    spent = session.tokens.refresh_token
    await session.refresh(key="a")
    source.is_away = True
    assert (await refused(session.refresh(spent, key="b"))).reason == "REFRESH_TOKEN_REUSED"
    assert (await refused(session.refresh(key="c"))).reason == "FAMILY_REVOKED"


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
async def test_an_error_of_any_code_is_no_answer(
    source: Any, service: Any, new_session: Any, refused: Any, code: grpc.StatusCode
) -> None:
    source.answer = active("clerk")
    session = await new_session()
    source.failing = code
    assert claims_of(await session.refresh()).roles == {"clerk"}
    assert (await refused(new_session())).reason == "CLAIMS_SOURCE_UNAVAILABLE"
    assert (await metrics_of(service))[
        'identity_claims_source_questions_total{identity_claims_source_occasion="REFRESH",identity_claims_source_outcome="unreachable"}'
    ] == 1


async def test_a_source_that_does_not_listen_is_away(
    source: Any, service: Any, new_session: Any, refused: Any, wait_until: Any
) -> None:
    source.answer = active("clerk")
    session = await new_session()
    await source.stop()
    assert claims_of(await session.refresh()).roles == {"clerk"}
    assert (await refused(new_session())).reason == "CLAIMS_SOURCE_UNAVAILABLE"
    await source.start()
    source.answer = active("boss")

    async def is_noticed() -> bool:
        return claims_of(await session.refresh()).roles == {"boss"}

    await wait_until(is_noticed)


@asking(timeout_ms=200)
async def test_a_source_that_hangs_is_away_after_its_deadline(
    source: Any, service: Any, new_session: Any, until_answered: Any, refused: Any
) -> None:
    source.answer = active("clerk")
    session = await until_answered(new_session)
    source.hanging = True
    assert claims_of(await session.refresh()).roles == {"clerk"}
    assert (await refused(new_session())).reason == "CLAIMS_SOURCE_UNAVAILABLE"
    metrics = await metrics_of(service)
    assert (
        metrics[
            'identity_claims_source_questions_total{identity_claims_source_occasion="REFRESH",identity_claims_source_outcome="deadline"}'
        ]
        == 1
    )


@pytest.mark.parametrize("bad", BAD_ANSWERS)
async def test_a_bad_answer_is_no_answer(
    source: Any, service: Any, new_session: Any, refused: Any, bad: str
) -> None:
    source.answer = active("clerk")
    session = await new_session()
    source.answer = BAD_ANSWERS[bad]
    refusal = await refused(new_session(roles=["admin"]))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "CLAIMS_SOURCE_UNAVAILABLE")
    claims = claims_of(await session.refresh())
    assert (claims.subject, claims.roles, dict(claims.private)) == ("alice", {"clerk"}, {})


@asking(timeout_ms=200, breaker_failures=3, breaker_max_open_seconds=1)
async def test_a_hanging_source_costs_the_first_calls_only_and_is_asked_again_by_one_probe(
    source: Any,
    service: Any,
    new_session: Any,
    until_answered: Any,
    refused: Any,
    caplog: Any,
    wait_until: Any,
) -> None:
    caplog.set_level(logging.INFO, "identity.claims_source")
    sessions = [await until_answered(new_session) for _ in range(4)]
    source.asked.clear()
    source.hanging = True
    for _ in range(3):
        await sessions[0].refresh()
    assert len(source.asked) == 3
    assert (await metrics_of(service))["identity_claims_source_circuit_open"] == 1
    # Many at once, while the circuit is open: at most one of them is the probe.
    for tokens in await asyncio.gather(*(session.refresh() for session in sessions)):
        assert tokens.access_token
    assert len(source.asked) <= 4
    source.hanging, source.answer = False, active("boss")

    async def is_noticed() -> bool:
        return claims_of(await sessions[1].refresh()).roles == {"boss"}

    await wait_until(is_noticed)
    metrics = await metrics_of(service)
    assert metrics["identity_claims_source_circuit_open"] == 0
    assert (
        metrics[
            'identity_claims_source_questions_total{identity_claims_source_occasion="REFRESH",identity_claims_source_outcome="circuit_open"}'
        ]
        >= 3
    )
    assert metrics["identity_claims_source_duration_seconds_count"] >= len(source.asked)
    told = [record.message for record in caplog.records if record.name.startswith("identity.claims_source")]
    assert len([text for text in told if "does not answer" in text]) == 1
    assert len([text for text in told if "answers again" in text]) == 1
    before = len(source.asked)
    for session in sessions:
        await session.refresh()
    assert len(source.asked) == before + len(sessions)


@asking(breaker_failures=1)
async def test_bad_answers_leave_the_circuit_closed(
    source: Any, service: Any, new_session: Any, refused: Any, caplog: Any
) -> None:
    source.answers["mallory"] = source_pb2.GetClaimsResponse()
    for _ in range(5):
        assert (await refused(new_session("mallory"))).reason == "CLAIMS_SOURCE_UNAVAILABLE"
    await new_session("alice")
    assert len(source.asked) == 6
    assert caplog.text.count("of no use") == 1


async def test_readiness_does_not_depend_on_the_source(
    source: Any, service: Any, new_session: Any, refused: Any
) -> None:
    await source.stop()
    await refused(new_session())
    assert not await service.server._ready()


@asking(breaker_failures=1, breaker_max_open_seconds=1)
async def test_a_caller_that_gives_up_on_a_probe_leaves_room_for_the_next(
    source: Any, service: Any, new_session: Any, wait_until: Any
) -> None:
    source.answer = active("clerk")
    session = await new_session()
    source.is_away = True
    await session.refresh()
    source.is_away, source.hanging, asked = False, True, len(source.asked)

    # Told at once while the circuit is open; then one of them is the probe, and hangs.
    probe: asyncio.Task[None] | None = None
    async with asyncio.timeout(20):
        while len(source.asked) == asked:
            probe = asyncio.create_task(session.refresh())
            await asyncio.wait({probe}, timeout=0.1)
    assert probe is not None
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    source.hanging, source.answer = False, active("boss")

    async def is_noticed() -> bool:
        return claims_of(await session.refresh()).roles == {"boss"}

    await wait_until(is_noticed)
