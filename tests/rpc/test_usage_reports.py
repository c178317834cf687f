"""RecordUsage: who may report, what is believed, and that nothing is recorded twice or lost at a full outbox."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from grpc_identity.clock import wall_clock
from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.audit.recorded_event import RecordedEvent, canonical, timestamp
from identity.telemetry import instruments

REPORTER = clients_pb2.ClientPolicy(grants=["GRANT_REPORT_USAGE"])
NOW_MS = int(wall_clock() * 1000)
DAY_MS = 86_400_000
NO_TRACES = [
    "x" * 500,
    f"00-{'0' * 32}-{'cd' * 8}-01",
    f"00-{'ab' * 16}-{'0' * 16}-01",
    f"ff-{'ab' * 16}-{'cd' * 8}-01",
]


def use(number: int, **said: Any) -> pb.UsageRecord:
    """A record in which nothing is missing."""
    known: dict[str, Any] = {
        "sequence": number,
        "step": pb.USAGE_STEP_ENDED,
        "occurred_at_ms": NOW_MS + number,
        "method": "/shop.v1.Orders/Refund",
        "subject": "alice",
        "session_id": "s1",
        "token_id": "j1",
        "client_id": "login",
        "ip_address": "192.0.2.7",
        "user_agent": "grpc-python/1",
        "status_code": "OK",
    }
    return pb.UsageRecord(**(known | said))


def begun(number: int, **said: Any) -> pb.UsageRecord:
    return use(number, step=pb.USAGE_STEP_BEGUN, status_code="", **said)


def lost(number: int, **said: Any) -> pb.UsageRecord:
    known: dict[str, Any] = {
        "sequence": number,
        "step": pb.USAGE_STEP_LOST,
        "occurred_at_ms": NOW_MS + 60_000,
        "lost_since_ms": NOW_MS,
        "lost_records": 847,
    }
    return pb.UsageRecord(**(known | said))


async def recorded(service: Any) -> list[RecordedEvent]:
    """The uses in the outbox, by bucket and sequence."""
    waiting = await service.server.store.outbox_view.after({}, at_most=10_000)
    events = [each.event for each in waiting if each.event.type.startswith("token.use")]
    return sorted(events, key=lambda event: (event.bucket, event.sequence))


@pytest_asyncio.fixture
async def report(service: Any) -> Callable[..., Awaitable[pb.RecordUsageResponse]]:
    """Reports as the client `orders`, from one spool unless told otherwise."""
    orders = await service.new_client("orders", REPORTER)
    spool_id = secrets.token_bytes(16)

    async def send(*records: pb.UsageRecord, spool: bytes = spool_id, caller: Any = None) -> Any:
        request = pb.RecordUsageRequest(spool_id=spool, records=records)
        return await service.identity.RecordUsage(request, metadata=caller or orders)

    return send


async def test_a_use_is_recorded_with_who_says_so(service: Any, report: Any) -> None:
    trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
    answer = await report(begun(1), use(2, traceparent=trace), use(3, status_code="NOT_FOUND"))
    assert (answer.recorded, answer.already_recorded) == (3, 0)
    first, second, third = await recorded(service)
    assert (first.type, first.outcome, first.status_code) == ("token.use_begun", "begun", "")
    assert (second.type, second.outcome, second.status_code) == ("token.used", "success", "OK")
    assert (third.outcome, third.status_code) == ("refused", "NOT_FOUND")
    assert second.reported_by == "orders"
    assert second.client_id == "login"
    assert (second.subject, second.session_id, second.token_id) == ("alice", "s1", "j1")
    assert (second.ip_address, second.user_agent) == ("192.0.2.7", "grpc-python/1")
    assert second.occurred_at_ms == NOW_MS + 2
    assert second.traceparent == trace
    assert second.method == "/shop.v1.Orders/Refund"


async def test_lost_uses_are_an_event_of_the_reporter_recorded_once(service: Any, report: Any) -> None:
    batch = [use(1), lost(2), *(use(number, subject=f"person-{number}") for number in range(3, 40))]
    assert (await report(*batch)).recorded == len(batch)
    assert (await report(*batch[1:], lost(40, lost_records=2))).recorded == 1
    first, second = [event for event in await recorded(service) if event.type == "token.uses_lost"]
    assert (first.count, second.count) == (847, 2)
    assert (first.outcome, first.severity, first.reported_by, first.client_id) == (
        "refused",
        "error",
        "orders",
        "orders",
    )
    assert (first.subject, first.session_id, first.token_id) == ("", "", "")
    assert first.occurred_at_ms == NOW_MS + 60_000
    assert first.detail == f"between {timestamp(NOW_MS)} and {timestamp(NOW_MS + 60_000)}"
    assert first.bucket == service.server.store.keys.of_name("orders").index


async def test_lost_uses_are_counted_once_even_where_others_find_no_room(
    make_settings: Any, start_service: Any, refused: Any
) -> None:
    service = await start_service(make_settings(redis={"buckets": 1}, audit={"outbox_max_events": 100}))
    orders = await service.new_client("orders", REPORTER)
    batch = [lost(1), *(use(number) for number in range(2, 201))]
    request = pb.RecordUsageRequest(spool_id=secrets.token_bytes(16), records=batch)

    def counted() -> float:
        (family,) = [
            metric for each, metric in service.server.meters.collected() if each is instruments.USES_LOST
        ]
        return float(family.samples[0].value)

    assert counted() == 0
    for _ in range(2):
        refusal = await refused(service.identity.RecordUsage(request, metadata=orders))
        assert refusal.reason == "AUDIT_UNAVAILABLE"
        assert counted() == 847


async def test_a_loss_that_says_nothing_is_refused(report: Any, refused: Any) -> None:
    refusal = await refused(report(use(1), lost(2, lost_records=0)))
    assert list(refusal.violations) == ["records[1].lost_records"]


@pytest.mark.parametrize("at_ms", [0, 1, 2**62])
async def test_a_loss_is_never_refused_for_its_times(service: Any, report: Any, at_ms: int) -> None:
    await report(lost(1, occurred_at_ms=at_ms, lost_since_ms=at_ms))
    (event,) = await recorded(service)
    assert event.count == 847
    assert abs(event.occurred_at_ms - NOW_MS) < 367 * DAY_MS


async def test_a_loss_whose_times_are_the_wrong_way_round_is_told_in_their_order(
    service: Any, report: Any
) -> None:
    """A clock that was set back between the first and the last."""
    await report(lost(1, lost_since_ms=NOW_MS + 60_000, occurred_at_ms=NOW_MS))
    (event,) = await recorded(service)
    assert event.detail == f"between {timestamp(NOW_MS)} and {timestamp(NOW_MS + 60_000)}"
    assert event.occurred_at_ms == NOW_MS + 60_000


async def test_a_batch_that_comes_again_makes_no_second_event(service: Any, report: Any) -> None:
    batch = [use(number, subject=f"person-{number % 20}") for number in range(1, 101)]
    await report(*batch)
    once = await recorded(service)
    again = await report(*batch, use(101))
    assert (again.recorded, again.already_recorded) == (1, 100)
    assert len(await recorded(service)) == len(once) + 1
    assert len({event.event_id for event in await recorded(service)}) == 101


async def test_the_same_batch_at_once_from_all_sides_is_recorded_once(service: Any, report: Any) -> None:
    batch = [use(number, subject=f"person-{number % 20}") for number in range(1, 101)]
    answers = await asyncio.gather(*(report(*batch[:most]) for most in (100, 50, 100, 10, 100)))
    assert sum(answer.recorded for answer in answers) == 100
    events = await recorded(service)
    assert len({event.event_id for event in events}) == len(events) == 100


async def test_what_is_reported_again_after_the_mark_is_gone_has_the_same_id(
    service: Any, report: Any
) -> None:
    spool = secrets.token_bytes(16)
    await report(use(1), spool=spool)
    store = service.server.store
    mark = store.keys.of_name("alice").usage_mark("orders", spool)
    lives_ms = await store.connection.command("PTTL", mark, key=mark)
    assert 23 * 3_600_000 < lives_ms <= 24 * 3_600_000
    await store.connection.command("DEL", mark, key=mark)
    assert (await report(use(1), spool=spool)).recorded == 1
    first, again = await recorded(service)
    assert first.event_id == again.event_id
    assert again.sequence == first.sequence + 1


async def test_a_loss_has_the_same_id_whichever_call_reports_it(service: Any, report: Any) -> None:
    spool, login = secrets.token_bytes(16), await service.new_client("watched", REPORTER)
    store = service.server.store
    mark = store.keys.of_name("watched").usage_mark("watched", spool)
    for number in (1, 2):
        trace = ("traceparent", f"00-{number:032x}-{number:016x}-01")
        await report(lost(1), spool=spool, caller=(*login, trace))
        await store.connection.command("DEL", mark, key=mark)
    first, again = await recorded(service)
    assert first.traceparent != again.traceparent
    assert first.event_id == again.event_id


async def test_another_record_under_a_number_that_was_taken_has_another_id(service: Any, report: Any) -> None:
    spool, keys = secrets.token_bytes(16), service.server.store.keys
    genuine = keys.of_name("genuine").index
    cover = next(name for name in map(str, range(1000)) if keys.of_name(name).index != genuine)
    await report(use(7, subject="genuine"), spool=spool)
    # The mark is its bucket's, so that both are new.
    assert (await report(use(7, subject=cover), spool=spool)).recorded == 1
    mark = keys.of_name("genuine").usage_mark("orders", spool)
    await service.server.store.connection.command("DEL", mark, key=mark)
    for number, said in enumerate(({"status_code": "NOT_FOUND"}, {"token_id": "j2"}, {"ip_address": ""})):
        assert (await report(use(7, subject="genuine", **said), spool=spool)).recorded == 1, number
        await service.server.store.connection.command("DEL", mark, key=mark)
    events = await recorded(service)
    assert len({event.event_id for event in events}) == len(events) == 5


async def test_no_client_takes_the_ids_of_another(service: Any, report: Any) -> None:
    spool = secrets.token_bytes(16)
    await report(use(1), spool=spool, caller=await service.new_client("mallory", REPORTER))
    assert (await report(use(1), spool=spool)).recorded == 1
    assert len({event.event_id for event in await recorded(service)}) == 2


async def test_only_clients_with_the_grant_may_report(service: Any, report: Any, refused: Any) -> None:
    refusal = await refused(report(use(1), caller=service.login))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "GRANT_MISSING")
    assert await recorded(service) == []


async def test_a_token_of_another_issuer_is_told_apart(service: Any, report: Any) -> None:
    await report(use(1, issuer="https://id.example"), use(2, issuer="https://other.example"))
    assert [event.detail for event in await recorded(service)] == ["", "a token of https://other.example"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", ""),
        ("method", "/" + "m" * 256),
        ("subject", ""),
        ("subject", "ä" * 129),
        ("subject", "al\nice"),
        ("session_id", "s" * 257),
        ("token_id", ""),
        ("token_id", "j" * 257),
        ("client_id", "c" * 257),
        ("issuer", "i" * 257),
        ("ip_address", "not an address"),
        ("ip_address", "1" * 60_000),
        ("user_agent", "u" * 513),
        ("status_code", ""),
        ("status_code", "FINE"),
        ("reason", "because"),
        ("occurred_at_ms", 0),
        pytest.param("occurred_at_ms", NOW_MS - 367 * DAY_MS, id="a-year-ago"),
        pytest.param("occurred_at_ms", NOW_MS + 2 * DAY_MS, id="ahead"),
        ("occurred_at_ms", 253_402_300_799_999),
        ("occurred_at_ms", 2**62),
        ("step", 0),
        ("step", 7),
        ("sequence", 1),
        ("sequence", 2**53),
    ],
)
async def test_a_hostile_report_is_refused_whole_and_names_the_record(
    service: Any, report: Any, refused: Any, field: str, value: Any
) -> None:
    refusal = await refused(report(use(1), use(2, **{field: value})))
    assert refusal.reason == "FIELD_INVALID"
    assert list(refusal.violations) == [f"records[1].{field}"]
    assert await recorded(service) == []


async def test_a_begun_use_has_no_status_yet(report: Any, refused: Any) -> None:
    refusal = await refused(report(use(1, step=pb.USAGE_STEP_BEGUN)))
    assert list(refusal.violations) == ["records[0].status_code"]


@pytest.mark.parametrize("records", [0, 257])
async def test_a_batch_is_bounded(report: Any, refused: Any, records: int) -> None:
    batch = [begun(number, ip_address="", user_agent="") for number in range(1, records + 1)]
    assert list((await refused(report(*batch))).violations) == ["records"]


@pytest.mark.parametrize("traceparent", NO_TRACES)
async def test_a_trace_that_is_none_does_not_lose_the_record(
    service: Any, report: Any, traceparent: str
) -> None:
    await report(use(1, traceparent=traceparent))
    assert [event.traceparent for event in await recorded(service)] == [""]


@pytest.mark.parametrize("traceparent", NO_TRACES)
async def test_a_trace_that_is_none_is_not_recorded_of_a_call_either(
    service: Any, report: Any, traceparent: str
) -> None:
    caller = (*await service.new_client("watched", REPORTER), ("traceparent", traceparent))
    await report(lost(1), caller=caller)
    assert [event.traceparent for event in await recorded(service)] == [""]


@pytest.mark.parametrize("field", ["method", "subject", "session_id", "token_id", "client_id", "issuer"])
async def test_no_token_gets_into_an_event_and_its_use_is_not_lost(
    service: Any, report: Any, new_session: Any, field: str
) -> None:
    tokens = (await new_session()).tokens
    await report(use(1, **{field: tokens.refresh_token}), use(2, **{field: f"/x/{tokens.refresh_token}"}))
    named = "detail" if field == "issuer" else field
    for event in await recorded(service):
        assert tokens.refresh_token not in canonical(event).decode()
        assert getattr(event, named).endswith(f"…{tokens.refresh_token[-6:]}")


async def test_a_name_that_only_begins_like_a_token_stays(service: Any, report: Any) -> None:
    await report(use(1, subject="eyJohannes_Schmidt"))
    assert [event.subject for event in await recorded(service)] == ["eyJohannes_Schmidt"]


async def test_uses_leave_room_for_issuing_and_nothing_of_them_is_lost(
    make_settings: Any, start_service: Any, refused: Any
) -> None:
    service = await start_service(make_settings(redis={"buckets": 1}, audit={"outbox_max_events": 100}))
    orders = await service.new_client("orders", REPORTER)
    spool, batch = secrets.token_bytes(16), [use(number) for number in range(1, 201)]

    async def report() -> Any:
        request = pb.RecordUsageRequest(spool_id=spool, records=batch)
        return await service.identity.RecordUsage(request, metadata=orders)

    refusal = await refused(report())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE")
    assert refusal.retry_after_seconds
    some = await recorded(service)
    assert [event.occurred_at_ms - NOW_MS for event in some] == list(range(1, len(some) + 1))
    issued = pb.IssueTokensRequest(subject="alice", audience=["orders"])
    assert (await service.identity.IssueTokens(issued, metadata=service.login)).tokens.access_token

    outbox = service.server.store.keys.buckets[0].outbox
    await service.server.store.connection.command("XTRIM", outbox, "MAXLEN", 0, key=outbox)
    await refused(report())
    more = await recorded(service)
    await service.server.store.connection.command("XTRIM", outbox, "MAXLEN", 0, key=outbox)
    answer = await report()
    rest = await recorded(service)
    assert answer.recorded == len(rest)
    everything = [*some, *more, *rest]
    assert [event.occurred_at_ms - NOW_MS for event in everything] == list(range(1, 201))
    assert len({event.event_id for event in everything}) == 200
