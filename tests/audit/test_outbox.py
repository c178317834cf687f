"""The outbox of a real store: what a flood leaves in it, and what makes room when it is full."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from grpc_identity.v1 import identity_service_pb2 as pb
from identity.audit.backlog_watch import BacklogWatch
from identity.audit.event import Circumstances, Event, EventType, Outcome
from identity.audit.folding import FOLD_BEYOND, FOLD_WINDOW_SECONDS
from identity.audit.recorder import MAX_QUEUED_EVENTS, RefusalRecorder
from identity.errors import IdentityError

FLOOD = 75


async def everything(relay_of: Any, service: Any, sink: Any) -> None:
    """Relays what is there."""
    relay = relay_of(service, sink)
    await relay.share_out()
    await relay.drain()


async def revoked_session(service: Any, issue: Any) -> Any:
    tokens = await issue(service)
    await service.identity.Revoke(pb.RevokeRequest(session_id=tokens.session_id), metadata=service.login)
    return tokens


async def test_of_a_flood_of_refusals_the_first_are_told_and_the_others_counted(
    make_settings: Any, start_service: Any, refused: Any, issue: Any, relay_of: Any, told_sink: Any
) -> None:
    service = await start_service(make_settings(limits={"address_failures_per_minute": 1_000_000}))
    tokens = await revoked_session(service, issue)
    service.server.store.clock.frozen_at_ms = 1_900_000_000_000
    for _ in range(FLOOD):
        refusal = await refused(
            service.identity.Refresh(
                pb.RefreshRequest(refresh_token=tokens.refresh_token), metadata=service.login
            )
        )
        assert refusal.reason == "FAMILY_REVOKED"
    sink = told_sink()
    await everything(relay_of, service, sink)
    assert sink.types().count("refresh.refused") == FOLD_BEYOND  # the window is not over

    service.server.store.clock.frozen_at_ms += int(FOLD_WINDOW_SECONDS * 1000)
    await everything(relay_of, service, sink)
    told = [each.event for each in sink.taken if each.event.type == "refresh.refused"]
    assert sum(event.count or 1 for event in told) == FLOOD
    (folded,) = [event for event in told if event.count]
    assert (folded.client_id, folded.reason, folded.outcome) == ("login", "FAMILY_REVOKED", "refused")
    assert len({event.event_id for event in told}) == len(told)


async def folded(service: Any, issue: Any, refused: Any) -> Callable[[], Awaitable[None]]:
    """Five refusals are only counted, at a time that stands still. What is returned asks once more."""
    tokens = await revoked_session(service, issue)
    request = pb.RefreshRequest(refresh_token=tokens.refresh_token)
    service.server.store.clock.frozen_at_ms = 1_900_000_000_000

    async def refuse_one() -> None:
        await refused(service.identity.Refresh(request, metadata=service.login))

    for _ in range(FOLD_BEYOND + 5):
        await refuse_one()
    return refuse_one


async def test_the_next_refusal_tells_what_was_counted_in_a_window_that_is_over(
    service: Any, refused: Any, issue: Any, relay_of: Any, told_sink: Any
) -> None:
    refuse_one = await folded(service, issue, refused)
    service.server.store.clock.frozen_at_ms += int(FOLD_WINDOW_SECONDS * 1000)
    await refuse_one()
    sink = told_sink()
    await everything(relay_of, service, sink)
    counts = [each.event.count for each in sink.taken if each.event.type == "refresh.refused"]
    assert counts == [0] * FOLD_BEYOND + [5, 0]


@pytest.mark.parametrize("told_by", ["a relay", "the next refusal"])
async def test_what_was_counted_is_told_when_the_stores_clock_has_gone_back(
    service: Any, refused: Any, issue: Any, relay_of: Any, told_sink: Any, told_by: str
) -> None:
    refuse_one = await folded(service, issue, refused)
    service.server.store.clock.frozen_at_ms -= 3_600_000
    expected = [0] * FOLD_BEYOND + [5]
    if told_by == "the next refusal":
        await refuse_one()
        expected += [0]
    sink = told_sink()
    await everything(relay_of, service, sink)
    assert [each.event.count for each in sink.taken if each.event.type == "refresh.refused"] == expected


async def test_a_theft_is_told_in_the_midst_of_a_flood(
    service: Any, refused: Any, issue: Any, relay_of: Any, told_sink: Any
) -> None:
    tokens = await revoked_session(service, issue)
    stolen = await issue(service)
    await service.identity.Refresh(
        pb.RefreshRequest(refresh_token=stolen.refresh_token, idempotency_key="a"), metadata=service.login
    )
    for token, key in [(tokens, "")] * FLOOD + [(stolen, "b")]:
        request = pb.RefreshRequest(refresh_token=token.refresh_token, idempotency_key=key)
        await refused(service.identity.Refresh(request, metadata=service.login))
    sink = told_sink()
    await everything(relay_of, service, sink)
    assert sink.types().count("refresh.reuse_detected") == 1


async def test_causes_beyond_the_bound_are_counted_together(
    service: Any, relay_of: Any, told_sink: Any, refused: Any, issue: Any
) -> None:
    """However many causes an attacker finds: the ledger of a bucket stays small."""
    tokens = await revoked_session(service, issue)
    bucket = service.server.store.keys.of_name("alice")
    connection = service.server.store.connection
    for number in range(100):
        await connection.command("HSET", bucket.ledger, f"fold request.refused OTHER{number} x", "1 1")
    request = pb.RefreshRequest(refresh_token=tokens.refresh_token)
    before = await connection.command("HLEN", bucket.ledger)
    await refused(service.identity.Refresh(request, metadata=service.login))
    assert await connection.command("HGET", bucket.ledger, "fold refresh.refused OTHER ")
    assert await connection.command("HLEN", bucket.ledger) == before + 1


async def test_what_waits_for_long_looks_so_whatever_the_stores_clock_says(
    service: Any, issue: Any, relay_of: Any, told_sink: Any
) -> None:
    store, now = service.server.store, 1_000.0
    watch = BacklogWatch(store.outbox, store.relay_outbox, ["told"], lambda: now)

    async def ages() -> tuple[float, float]:
        await watch.look()
        return watch.oldest_seconds, watch.oldest_seconds_of["told"]

    store.clock.frozen_at_ms = 1_900_000_000_000
    await everything(relay_of, service, told_sink())
    assert await ages() == (0, 0)
    await issue(service)
    store.clock.frozen_at_ms += 90_000
    assert await ages() == (90, 90)
    store.clock.frozen_at_ms -= 3_600_000
    other = BacklogWatch(store.outbox, store.relay_outbox, ["told"], lambda: now)
    await other.look()
    assert other.oldest_seconds == 0  # it cannot know
    now += 60
    assert await ages() == (60, 60)
    await other.look()
    assert other.oldest_seconds == 60
    # What is recorded from here on has an age again, though its place is still that of the clock as it was.
    await everything(relay_of, service, told_sink())
    assert await ages() == (0, 0)
    await issue(service)
    store.clock.frozen_at_ms += 30_000
    assert await ages() == (30, 30)


async def test_when_the_outbox_is_full_nothing_is_issued_and_revoking_still_works(
    make_settings: Any, start_service: Any, refused: Any, issue: Any, waiting: Any
) -> None:
    service = await start_service(make_settings(audit={"outbox_max_events": 100}, redis={"buckets": 1}))
    tokens = await issue(service)

    def revoke() -> Any:
        return service.identity.Revoke(pb.RevokeRequest(subject="nobody"), metadata=service.login)

    while await waiting(service) < 100:
        await revoke()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await issue(service)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    refresh = pb.RefreshRequest(refresh_token=tokens.refresh_token)
    refusal = await refused(service.identity.Refresh(refresh, metadata=service.login))
    assert (refusal.reason, refusal.retry_after_seconds) == ("AUDIT_UNAVAILABLE", 5.0)
    await service.identity.Revoke(pb.RevokeRequest(session_id=tokens.session_id), metadata=service.login)
    while await waiting(service) < 200:
        await revoke()
    assert (await refused(revoke())).reason == "AUDIT_UNAVAILABLE"  # even this is bounded


async def test_where_the_policy_says_so_the_oldest_refusals_make_room_and_that_is_told(
    make_settings: Any, start_service: Any, issue: Any, relay_of: Any, told_sink: Any, waiting: Any
) -> None:
    service = await start_service(
        make_settings(
            audit={"outbox_max_events": 100, "when_full": "drop_oldest_refusals"}, redis={"buckets": 1}
        )
    )
    first = await issue(service)
    refusals = [
        Event(EventType.REQUEST_REFUSED, Outcome.REFUSED, Circumstances("login", "Refresh"), "RATE_LIMITED")
        for _ in range(60)
    ]
    assert not await service.server.store.outbox.append(refusals)
    issued = [first.session_id]

    async def issue_until_refused(issued: list[str]) -> None:
        while len(issued) < 300:
            issued.append((await issue(service, f"user-{len(issued)}")).session_id)

    with pytest.raises(grpc.aio.AioRpcError):
        await issue_until_refused(issued)
    # No refusal is left: from here on it is as with the other policy.
    assert await waiting(service) == 100
    sink = told_sink()
    await everything(relay_of, service, sink)
    events = [each.event for each in sink.taken]
    sessions = [event.session_id for event in events if event.type == "tokens.issued"]
    assert sessions == issued
    told = [event.detail for event in events if event.type == "audit.refusals_dropped"]
    dropped = {
        int(number) for detail in told for number in re.findall(r"\d+", detail.removeprefix("bucket 0: "))
    }
    kept = {event.sequence for event in events}
    assert not dropped & kept
    assert dropped | kept == set(range(1, max(kept) + 1))
    refused_events = [event for event in events if event.type == "request.refused"]
    assert len(dropped) + len(refused_events) == len(refusals)


class _Room:
    """An outbox with room for so many events at a time."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken: list[Event] = []

    async def append(self, events: Any) -> Any:
        fitting, left = events[: self.room], events[self.room :]
        self.taken += fitting
        return left


async def test_what_two_write_at_once_is_written_once(service: Any, waiting: Any) -> None:
    """The background and an orderly end take from one queue."""
    recorder = RefusalRecorder(service.server.store.outbox)
    before = await waiting(service)
    for number in range(250):
        circumstances = Circumstances("web", f"Refresh{number}")
        recorder.record(Event(EventType.REQUEST_REFUSED, Outcome.REFUSED, circumstances, "FIELD_INVALID"))
    await asyncio.gather(*(recorder.flush() for _ in range(3)))
    assert await waiting(service) - before == 250


async def test_refusals_in_memory_are_told_up_to_a_number_and_then_counted() -> None:
    now = 0.0
    outbox = _Room(1000)
    recorder = RefusalRecorder(outbox, lambda: now)
    circumstances = Circumstances("web", "Refresh")
    for _ in range(FLOOD):
        recorder.record(Event(EventType.REQUEST_REFUSED, Outcome.REFUSED, circumstances, "RATE_LIMITED"))
    now = FOLD_WINDOW_SECONDS
    recorder.record(Event(EventType.REQUEST_REFUSED, Outcome.REFUSED, circumstances, "RATE_LIMITED"))
    await recorder.flush()
    counts = [event.circumstances.count for event in outbox.taken]
    assert counts == [0] * FOLD_BEYOND + [FLOOD - FOLD_BEYOND, 0]


async def test_no_refusal_goes_uncounted_while_the_store_is_away() -> None:
    outbox = _Room(100_000)
    recorder = RefusalRecorder(outbox, lambda: 0.0)
    for number in range(MAX_QUEUED_EVENTS + 300):
        circumstances = Circumstances("web", f"Refresh{number % 700}")
        recorder.record(Event(EventType.REQUEST_REFUSED, Outcome.REFUSED, circumstances, "RATE_LIMITED"))
    await recorder.flush()
    assert sum(event.circumstances.count or 1 for event in outbox.taken) == MAX_QUEUED_EVENTS + 300


async def test_what_finds_no_room_is_written_when_there_is_some() -> None:
    outbox = _Room(3)
    recorder = RefusalRecorder(outbox, lambda: 0.0)
    for number in range(10):
        recorder.record(
            Event(EventType.REVOCATION_OF_UNKNOWN, Outcome.SUCCESS, Circumstances("web", str(number)))
        )
    with pytest.raises(IdentityError):
        await recorder.flush()
    outbox.room = 1000
    await recorder.flush()
    assert [event.circumstances.method for event in outbox.taken] == [str(number) for number in range(10)]
