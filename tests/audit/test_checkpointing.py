"""Servers that sign how far the sinks have got, on a real store; and an auditor who holds what a sink got."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from grpc_identity.jwk import KeySet
from identity.audit.chain import ChainedEvent
from identity.audit.checkpointing import CheckpointWriter
from identity.audit.checkpoints import read
from identity.audit.evidence import Evidence
from identity.audit.exported import exported
from identity.audit.report import Report, Verdict, report_of
from identity.clock import SystemClock
from identity.keys.ports import NoActiveKeyError
from identity.parts import checkpoint_writer

A_WHILE = 60.0


@pytest.fixture
def writer_of(service: Any) -> Any:
    def make(name: str = "one") -> CheckpointWriter:
        server = service.server
        writer = checkpoint_writer(service.settings, server.store, server.keys, name)
        return replace(writer, sinks=("told",), period_seconds=A_WHILE)

    return make


@pytest.fixture
def drained(service: Any, relay_of: Any, told_sink: Any) -> Any:
    """The sink has everything that was recorded until now."""
    sink = told_sink()

    async def drain() -> list[ChainedEvent]:
        relay = relay_of(service, sink)
        await relay.share_out()
        await relay.drain()
        return list(sink.taken)

    return drain


@pytest.fixture
def next_turn(service: Any, writer_of: Any) -> Any:
    """When the period of the turn before is over."""
    writer = writer_of()

    async def take() -> int:
        await service.server.store.connection.command("DEL", service.server.store.keys.checkpoint_turn)
        return int(await writer.take_turn())

    return take


@pytest.fixture
def remembered(service: Any) -> Any:
    """A bucket as it is now, to be put back: as a replica is that becomes the primary and did not have the last writes."""
    connection = service.server.store.connection

    async def remember(bucket: Any) -> Any:
        keys = (bucket.outbox, bucket.ledger, bucket.relays)
        kept = {key: await connection.command("DUMP", key) for key in keys}

        async def put_back() -> None:
            for key, dump in kept.items():
                await connection.command("DEL", key)
                if dump is not None:
                    await connection.command("RESTORE", key, 0, dump)

        return put_back

    return remember


def audited(events: Sequence[ChainedEvent], keys: Sequence[str], sink: str = "told") -> Report:
    with Evidence() as evidence:
        source = evidence.new_source("told", is_ordered=True)
        for line, each in enumerate(events, 1):
            evidence.add(exported(each.event, each.previous, each.link, sink), source, line)
        return report_of(evidence, keys)


def published(service: Any) -> list[str]:
    """Thumbprints of the keys that anybody can fetch."""
    return [key.thumbprint for key in KeySet.from_jwks(service.server.keys.published().jwks)]


async def test_what_a_sink_has_is_signed_and_an_auditor_with_the_public_keys_sees_it_proved(
    service: Any, issue: Any, writer_of: Any, drained: Any
) -> None:
    for subject in ("alice", "bob", "carol"):
        await issue(service, subject)
    before = await drained()
    assert await writer_of().take_turn() == 1
    events = await drained()
    (told,) = [each.event for each in events if each.event.type == "audit.checkpoint"]
    checkpoint = read(told.checkpoint)
    assert checkpoint.sink == "told"
    assert told.key_id == checkpoint.kid == service.server.keys.active_signer().kid
    report = audited(events, published(service))
    assert report.verdict is Verdict.GOOD
    assert sum(chain.proved.numbers.size for chain in report.chains if chain.proved) == len(before)


async def test_what_was_taken_out_of_the_backend_is_named(
    service: Any, issue: Any, writer_of: Any, drained: Any
) -> None:
    tokens = [await issue(service, subject) for subject in ("alice", "bob", "carol")]
    await drained()
    await writer_of().take_turn()
    events = await drained()
    gone = next(each.event for each in events if each.event.session_id == tokens[1].session_id)
    report = audited([each for each in events if each.event is not gone], published(service))
    (finding,) = report.findings
    assert (finding.fault, finding.bucket, str(finding.numbers)) == (
        "missing",
        gone.bucket,
        str(gone.sequence),
    )


async def test_of_several_servers_one_signs_in_a_period(
    service: Any, issue: Any, writer_of: Any, drained: Any
) -> None:
    await issue(service)
    await drained()
    writers = [writer_of(name) for name in ("one", "two", "three")]
    assert sorted(await asyncio.gather(*(writer.take_turn() for writer in writers))) == [0, 0, 1]


async def test_a_turn_that_ends_later_than_any_does_is_taken(
    service: Any, issue: Any, writer_of: Any, drained: Any
) -> None:
    """As it is where the clock of the store was set back: a key expires at a moment of it."""
    await issue(service)
    await drained()
    store = service.server.store
    turn = ("SET", store.keys.checkpoint_turn, "two", "PX")
    await store.connection.command(*turn, round(A_WHILE * 1000) - 1)
    assert await writer_of().take_turn() == 0
    await store.connection.command(*turn, 7_200_000)
    assert await writer_of().take_turn() == 1
    left_ms = await store.connection.command("PTTL", store.keys.checkpoint_turn)
    assert 0 < left_ms <= A_WHILE * 1000
    assert await writer_of("two").take_turn() == 0


async def test_nothing_is_signed_when_nothing_has_happened_but_checkpoints(
    service: Any, issue: Any, next_turn: Any, drained: Any
) -> None:
    await issue(service)
    await drained()
    assert await next_turn() == 1
    assert await next_turn() == 0
    await drained()
    assert await next_turn() == 0
    await issue(service)
    assert await next_turn() == 0  # the sink does not have it yet
    await drained()
    assert await next_turn() == 1


async def test_a_sink_that_only_a_relay_names_is_signed_as_well(
    service: Any, issue: Any, writer_of: Any, drained: Any
) -> None:
    await issue(service)
    await drained()
    assert await replace(writer_of(), sinks=("file",)).take_turn() == 1
    assert audited(await drained(), published(service)).verdict is Verdict.GOOD


async def test_a_chain_that_went_back_is_signed_at_once_and_told_of(
    service: Any, issue: Any, next_turn: Any, drained: Any, remembered: Any, caplog: Any
) -> None:
    buckets = service.server.store.keys
    checkpoints = buckets.of_name("")
    loses, other = two_subjects(lambda name: buckets.of_name(name) != checkpoints, buckets)
    await issue(service, loses)
    await drained()
    put_back = await remembered(buckets.of_name(loses))
    for _ in range(3):
        await issue(service, loses)
    await drained()
    assert await next_turn() == 1
    await drained()
    assert await next_turn() == 0
    assert "lost writes" not in caplog.text
    await put_back()
    # As many as were lost come elsewhere: nothing cancels out.
    await issue(service, other)
    await drained()
    assert await next_turn() == 1
    assert f"in 1 buckets ({buckets.of_name(loses).index})" in caplog.text


@pytest.mark.parametrize("of_checkpoints", [False, True])
async def test_other_events_under_the_numbers_of_lost_ones_are_news(
    service: Any, issue: Any, next_turn: Any, drained: Any, remembered: Any, of_checkpoints: bool
) -> None:
    buckets = service.server.store.keys
    checkpoints = buckets.of_name("")
    subject, _ = two_subjects(lambda name: (buckets.of_name(name) == checkpoints) is of_checkpoints, buckets)
    await issue(service, subject)
    await drained()
    put_back = await remembered(buckets.of_name(subject))
    if not of_checkpoints:
        await issue(service, subject)
        await drained()
    assert await next_turn() == 1
    await drained()
    assert await next_turn() == 0
    await put_back()
    await issue(service, subject)
    await drained()
    assert await next_turn() == 1


def two_subjects(fits: Callable[[str], bool], buckets: Any) -> tuple[str, str]:
    """In buckets of their own, where there are more than one that fit."""
    names = [name for name in (f"subject-{number}" for number in range(1_000)) if fits(name)]
    first = names[0]
    return first, next((name for name in names if buckets.of_name(name) != buckets.of_name(first)), first)


async def test_without_a_key_that_signs_nothing_is_recorded(
    service: Any, issue: Any, writer_of: Any, drained: Any
) -> None:
    await issue(service)
    count = len(await drained())
    writer = writer_of()

    def no_signer() -> Any:
        raise NoActiveKeyError

    with pytest.raises(NoActiveKeyError):
        await replace(writer, signing=replace(writer.signing, signer=no_signer)).take_turn()
    assert len(await drained()) == count


async def test_that_no_server_has_signed_for_long_is_a_problem_of_each(
    service: Any, issue: Any, writer_of: Any, drained: Any
) -> None:
    def no_signer() -> Any:
        raise NoActiveKeyError

    async def later() -> None:
        """The period of the turn before is over, and more."""
        await service.server.store.connection.command("DEL", service.server.store.keys.checkpoint_turn)
        service.server.store.clock.offset_ms += 200_000

    one, two = writer_of(), writer_of("two")
    cannot = replace(one, signing=replace(one.signing, signer=no_signer))
    await issue(service)
    await drained()
    assert await one.take_turn() == 1
    assert await two.take_turn() == 0
    await issue(service)
    await drained()
    for _ in range(2):
        await later()
        with pytest.raises(NoActiveKeyError):
            await cannot.take_turn()
        assert await two.take_turn() == 0
    for writer in (cannot, two):
        (problem,) = writer.overdue.problems()
        assert (problem.name, problem.blocks) == ("audit_checkpoints_overdue", False)
    # Whoever starts now has not waited yet; and one that can sign ends it, for all.
    await later()
    three = writer_of("three")
    assert await one.take_turn() == 1
    assert one.overdue.problems() == []
    assert await three.take_turn() == 0
    assert await two.take_turn() == 0
    assert three.overdue.problems() == two.overdue.problems() == []
    for _ in range(2):
        # Nothing to sign is no failure.
        await drained()
        await later()
        assert await one.take_turn() == 0
    assert await two.take_turn() == 0
    assert two.overdue.problems() == []


async def test_readiness_names_overdue_checkpoints(service: Any, wait_until: Any) -> None:
    store = service.server.store
    # Another server has the turns, and none of them ends well.
    await store.connection.command("SET", store.keys.checkpoint_turn, "other", "PX", 86_000_000)
    for _ in range(2):
        assert await service.server._checkpoints.take_turn() == 0
        store.clock.offset_ms += 6 * 86_400_000

    async def is_named() -> bool:
        async with httpx.AsyncClient(base_url=service.addresses.http_url) as http:
            answer = await http.get("/readyz")
        assert answer.status_code == 200
        return "audit_checkpoints_overdue" in [each["name"] for each in answer.json()["problems"]]

    await wait_until(is_named)


async def test_a_server_signs_by_itself(
    make_settings: Any, start_service: Any, relay_of: Any, told_sink: Any, issue: Any, wait_until: Any
) -> None:
    service = await start_service(make_settings(audit={"checkpoint_seconds": 0.5}))
    await issue(service)
    sink = told_sink(name="otlp")
    relaying = asyncio.create_task(relay_of(service, sink).run())
    try:
        await wait_until(lambda: "audit.checkpoint" in sink.types())
    finally:
        relaying.cancel()
    assert audited(sink.taken, published(service), sink.name).verdict is Verdict.GOOD


async def test_a_server_whose_clock_is_ahead_vouches_for_no_time_that_has_not_been(
    service: Any, issue: Any, writer_of: Any, drained: Any, monkeypatch: Any
) -> None:
    class TwoHoursAhead:
        def now(self) -> datetime:
            return SystemClock().now() + timedelta(hours=2)

    await issue(service)
    await drained()
    monkeypatch.setattr(service.server.keys, "clock", TwoHoursAhead())
    await writer_of().take_turn()
    (told,) = [each.event for each in await drained() if each.event.checkpoint]
    # The times of events are the store's.
    assert read(told.checkpoint).issued_at_seconds * 1000 <= told.time_ms


async def test_a_checkpoint_is_from_before_the_first_event_that_the_sink_did_not_have(
    service: Any, issue: Any, writer_of: Any, drained: Any
) -> None:
    await issue(service, "alice")
    await drained()
    clock = service.server.store.clock
    clock.offset_ms = 3_600_000
    await issue(service, "bob")
    clock.offset_ms = 7_200_000
    assert await writer_of().take_turn() == 1
    events = [each.event for each in await drained()]
    (checkpoint,) = [read(event.checkpoint) for event in events if event.checkpoint]
    (late,) = [event for event in events if event.subject == "bob"]
    assert late.time_ms - 1_000 <= checkpoint.issued_at_seconds * 1000 < late.time_ms
