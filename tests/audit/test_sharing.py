"""Several relays and several sinks over one outbox: each bucket in its order, each sink at its own pace."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from audit.order import assert_chained_in_order
from audit.relays import running
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from identity.audit.chain import GENESIS, link_after
from identity.audit.event import Circumstances, Event, EventType, Outcome
from identity.audit.ports import Cursor, LeaseLostError, LiveRelay
from identity.audit.redelivery import Redelivery, redeliver
from identity.audit.relay import relay as relay_module
from identity.audit.relay.relay import share_of
from identity.audit.sinks.ports import Delivered, Undelivered
from identity.cli.main import app
from identity.errors import IdentityError
from identity.store.redis.relay_outbox import MAX_DEAD_LETTERS

NOW_MS = 1_900_000_000_000


async def is_empty(service: Any, waiting: Any, *sinks: str) -> bool:
    return await waiting(service, *sinks) == 0


@given(st.sets(st.text(min_size=1), min_size=1, max_size=9), st.integers(1, 100))
def test_relays_that_live_share_all_buckets_and_no_bucket_twice(names: set[str], buckets: int) -> None:
    alive = sorted(names)
    shares = [bucket for name in alive for bucket in share_of(name, alive, buckets)]
    assert sorted(shares) == list(range(buckets))
    assert list(share_of("no such relay" * 9, alive, buckets)) == []


async def test_three_relays_deliver_every_bucket_in_its_order(
    service: Any, issue: Any, relay_of: Any, told_sink: Any, wait_until: Any, waiting: Any
) -> None:
    sink = told_sink()
    relays = [relay_of(service, sink, name=name, batch=7) for name in ("a", "b", "c")]
    for relay in relays:
        await relay.share_out()
    async with running(*relays):
        await asyncio.gather(*(issue(service, f"user-{number}") for number in range(200)))
        await wait_until(lambda: is_empty(service, waiting))
    assert assert_chained_in_order(sink.taken) >= 200
    assert all(each.delivered for relay in relays for each in relay.by_sink)


async def test_what_a_dead_relay_had_is_taken_over_and_keeps_its_place_in_the_chain(
    service: Any, issue: Any, relay_of: Any, told_sink: Any, wait_until: Any, waiting: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(relay_module, "HEARTBEAT_SECONDS", 0.05)
    for number in range(40):
        await issue(service, f"user-{number}")
    dying, living = told_sink(), told_sink()
    outbox = service.server.store.relay_outbox
    first = relay_of(service, dying, name="dies")
    await first.share_out()
    unread = await outbox.read("told", "dies", range(8), alive=["dies"], sinks=["told"], batch=100)
    await dying.deliver([each for events in unread for each in first.by_sink[0].chained(events)])
    # It had delivered, and is killed before it could say so. Its lease and its sign of life run out.
    second = relay_of(service, living, name="lives")
    async with running(second):
        alive = await outbox.relays("lives", ["told"])
        assert alive == [LiveRelay("dies", ("told",)), LiveRelay("lives", ("told",))]
        clock = service.server.store.clock
        clock.offset_ms += 11_000
        await wait_until(lambda: is_empty(service, waiting))
    taken_again = {each.event.event_id: each for each in living.taken}
    assert all(taken_again[each.event.event_id] == each for each in dying.taken)
    assert assert_chained_in_order(living.taken) >= 40


async def test_a_bucket_is_leased_to_one_relay_and_who_has_lost_it_moves_no_cursor(
    service: Any, issue: Any, told_sink: Any
) -> None:
    await issue(service)
    outbox = service.server.store.relay_outbox
    (mine, *_) = await outbox.read(
        "told", "mine", range(8), alive=["mine", "other", "third"], sinks=["told"], batch=10
    )
    bucket = mine.bucket
    assert (
        await outbox.read(
            "told", "other", [bucket], alive=["mine", "other", "third"], sinks=["told"], batch=10
        )
        == []
    )
    assert (
        await outbox.read(
            "another sink", "other", [bucket], alive=["mine", "other", "third"], sinks=["told"], batch=10
        )
        != []
    )
    # Free to those who know that its relay has died, and to all when the lease is over.
    assert await outbox.read("told", "other", [bucket], alive=["other"], sinks=["told"], batch=10) != []
    service.server.store.clock.offset_ms += 61_000
    assert (
        await outbox.read("told", "third", [bucket], alive=["other", "third"], sinks=["told"], batch=10) != []
    )
    with pytest.raises(LeaseLostError):
        await outbox.advance("told", "mine", bucket, Cursor(entry=mine.entries[-1]), (), ["told"])
    await outbox.release("told", "mine", [bucket])
    assert (
        await outbox.read("told", "other", [bucket], alive=["other", "third"], sinks=["told"], batch=10) == []
    )


@pytest.mark.parametrize("step_ms", [300_000, 3_600_000])
async def test_what_a_dead_relay_had_is_taken_over_when_the_stores_clock_has_gone_back(
    service: Any,
    issue: Any,
    relay_of: Any,
    told_sink: Any,
    wait_until: Any,
    waiting: Any,
    monkeypatch: Any,
    step_ms: int,
) -> None:
    monkeypatch.setattr(relay_module, "HEARTBEAT_SECONDS", 0.05)
    outbox, clock = service.server.store.relay_outbox, service.server.store.clock
    clock.frozen_at_ms = NOW_MS + step_ms
    for number in range(40):
        await issue(service, f"user-{number}")
    second = relay_of(service, sink := told_sink(), name="lives")
    await second.share_out()
    await outbox.relays("dies", ["told"])
    assert await outbox.read("told", "dies", range(8), alive=["dies"], sinks=["told"], batch=100)
    clock.frozen_at_ms = NOW_MS
    async with running(second):
        # Nothing that a clock says tells the dead from the living: either has the time that it has without a step.
        assert [relay.name for relay in await outbox.living()] == ["dies", "lives"]
        clock.frozen_at_ms += 10_000
        await wait_until(lambda: is_empty(service, waiting))
        assert [relay.name for relay in await outbox.living()] == ["lives"]
    assert assert_chained_in_order(sink.taken) >= 40


async def test_a_lease_from_before_the_stores_clock_went_back_ends_as_any_other(
    service: Any, issue: Any, relay_of: Any, told_sink: Any, waiting: Any
) -> None:
    """Be it of a relay that lives and has let the bucket go without a word, or of a sink that nobody names any more."""
    outbox, clock = service.server.store.relay_outbox, service.server.store.clock
    clock.frozen_at_ms = NOW_MS + 3_600_000
    await issue(service)
    sink, both = told_sink(), ["one", "other"]
    for name in ("told", "dead"):
        assert await outbox.read(name, "other", range(8), alive=both, sinks=["told"], batch=100)
    (relay,) = relay_of(service, sink).by_sink
    relay.buckets, relay.alive = range(8), both
    clock.frozen_at_ms = NOW_MS
    await relay.relay_once()
    clock.frozen_at_ms += 59_999
    # As long as a new one, so that what is being delivered is not overtaken.
    assert await relay.relay_once() is None
    clock.frozen_at_ms += 1
    assert await relay.relay_once() == Delivered()
    assert assert_chained_in_order(sink.taken)
    # Nothing leaves before a sink that somebody may be reading for.
    assert await waiting(service) > 0
    clock.frozen_at_ms += 60_000
    assert await relay.relay_once() is None
    assert await waiting(service) == 0


async def test_a_sink_that_hangs_stops_no_other_and_gets_all_of_it_later(
    service: Any, issue: Any, relay_of: Any, told_sink: Any, wait_until: Any, waiting: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(relay_module, "DELIVERY_SECONDS", 0.1)
    monkeypatch.setattr(relay_module, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(relay_module, "LAST_RETRY_SECONDS", 0.05)
    quick, hung = told_sink("quick"), told_sink("hung", hangs=True)
    relay = relay_of(service, quick, hung)
    async with running(relay):
        for number in range(50):
            await issue(service, f"user-{number}")
        await wait_until(lambda: quick.types().count("tokens.issued") == 50 and hung.asked > 2)
        assert "no answer" in relay.by_sink[1].problem
        assert await waiting(service) >= 50  # for the other

        async def is_told_apart() -> bool:
            # What a sink has taken is noted a moment later.
            backlog = await service.server.store.outbox.backlog(["quick", "hung"])
            return bool((backlog.behind["quick"], backlog.behind["hung"]) == (0, backlog.events))

        await wait_until(is_told_apart)
        hung.hangs = False
        await wait_until(lambda: is_empty(service, waiting))
    assert assert_chained_in_order(quick.taken) == assert_chained_in_order(hung.taken)
    assert {each.link for each in quick.taken} == {each.link for each in hung.taken}
    assert relay.by_sink[1].problem == ""


async def test_a_sink_that_fails_in_an_unforeseen_way_is_asked_again(
    service: Any, issue: Any, relay_of: Any, told_sink: Any, wait_until: Any, waiting: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(relay_module, "FIRST_RETRY_SECONDS", 0.01)
    sink = told_sink(answers=[RuntimeError("a defect"), Undelivered("busy", retry_after_seconds=0.02)])
    other = told_sink("other")
    await issue(service)
    async with running(relay_of(service, sink, other)):
        await wait_until(lambda: is_empty(service, waiting))
    assert sink.asked >= 3
    assert assert_chained_in_order(sink.taken) == assert_chained_in_order(other.taken)


async def test_an_event_without_a_canonical_form_keeps_its_bucket_and_no_other(
    service: Any, issue: Any, relay_of: Any, told_sink: Any, wait_until: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(relay_module, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(relay_module, "LAST_RETRY_SECONDS", 0.05)
    never = Circumstances("login", "/t.S/M", occurred_at_ms=2**62)
    await service.server.store.outbox.append([Event(EventType.TOKEN_USED, Outcome.SUCCESS, never)])
    sink, other = told_sink(), told_sink("other")
    relay = relay_of(service, sink, other)
    async with running(relay) as tasks:
        for number in range(40):
            await issue(service, f"user-{number}")
        await wait_until(lambda: sink.types().count("tokens.issued") >= 20)
        await wait_until(lambda: other.types().count("tokens.issued") >= 20)
        await wait_until(lambda: "cannot be chained" in relay.by_sink[0].problem)
        assert not any(task.done() for task in tasks)


async def test_what_a_sink_never_takes_is_kept_aside_told_and_stays_a_link(
    service: Any, issue: Any, relay_of: Any, told_sink: Any, wait_until: Any, waiting: Any
) -> None:
    sink = told_sink(refuses=lambda each: each.event.subject == "unwanted")
    async with running(relay_of(service, sink)):
        for subject in ("alice", "unwanted", "bob"):
            await issue(service, subject)
        await wait_until(lambda: is_empty(service, waiting))
    assert sink.types().count("tokens.issued") == 2
    (told,) = [each.event for each in sink.taken if each.event.type == "audit.dead_lettered"]
    store = service.server.store
    (kept,) = await store.dead_letters.letters()
    assert (kept.sink, kept.letter.problem) == ("told", "never")
    assert kept.letter.item.event.subject == "unwanted"
    digest = kept.letter.item.digest.hex()
    assert told.detail.endswith(f"digest {digest}")
    assert (await store.outbox.backlog(["told"])).dead_letters == 1
    # Whoever holds the digest can follow the chain over what is missing.
    in_bucket = [each for each in sink.taken if each.event.bucket == kept.bucket]
    before = [
        each.link
        for each in in_bucket
        if each.event.sequence < int(told.detail.split("sequence ")[1].split(",")[0])
    ]
    after = next(each for each in in_bucket if each.event.sequence > len(before) + 1)
    assert after.previous == link_after(before[-1] if before else GENESIS.link, bytes.fromhex(digest))


async def test_a_backend_that_takes_nothing_for_good_stops_at_a_number_and_loses_nothing(
    make_settings: Any, start_service: Any, relay_of: Any, told_sink: Any, waiting: Any
) -> None:
    """A wrong address answers like that: it is the backend that is wrong then, and not the events."""
    service = await start_service(make_settings(redis={"buckets": 1}))
    circumstances = Circumstances("login", "Refresh")
    for _ in range(MAX_DEAD_LETTERS // 100 + 2):
        events = [Event(EventType.REVOCATION_OF_UNKNOWN, Outcome.SUCCESS, circumstances) for _ in range(100)]
        await service.server.store.outbox.append(events)
    relay = relay_of(service, told_sink(refuses=lambda each: True))
    await relay.share_out()
    with pytest.raises(IdentityError):
        await relay.drain()
    backlog = await service.server.store.outbox.backlog(["told"])
    assert MAX_DEAD_LETTERS - 100 <= backlog.dead_letters <= MAX_DEAD_LETTERS
    assert backlog.events >= 200


async def test_a_relay_that_ends_leaves_its_buckets_to_others_at_once(
    service: Any, issue: Any, relay_of: Any, told_sink: Any
) -> None:
    await issue(service)
    ending, following = told_sink(is_away=True), told_sink()
    first = relay_of(service, ending, name="first")
    await first.share_out()
    await first.drain()
    await first.close()
    second = relay_of(service, following, name="second")
    await second.share_out()
    await second.drain()
    assert not ending.taken
    assert assert_chained_in_order(following.taken)


async def test_what_only_a_sink_that_was_taken_out_had_kept_leaves_a_full_outbox(
    make_settings: Any,
    start_service: Any,
    issue: Any,
    refused: Any,
    relay_of: Any,
    told_sink: Any,
    wait_until: Any,
    waiting: Any,
) -> None:
    """The sinks that are left have nothing to read then, and nobody may have to see to it by hand."""
    service = await start_service(make_settings(redis={"buckets": 1}, audit={"outbox_max_events": 100}))
    left, dead = told_sink("left"), told_sink("dead", is_away=True)
    before = relay_of(service, left, dead)
    async with running(before):
        await asyncio.gather(
            *(issue(service, f"user-{number}") for number in range(120)), return_exceptions=True
        )
        assert (await refused(issue(service))).reason == "AUDIT_UNAVAILABLE"
        await wait_until(lambda: len(left.taken) >= 100)
    await before.close()
    assert await waiting(service) >= 100
    async with running(relay_of(service, left, name="after")):
        await wait_until(lambda: is_empty(service, waiting))
        await issue(service)
        await wait_until(lambda: is_empty(service, waiting))
    assert assert_chained_in_order(left.taken) >= 101


async def test_a_dead_letter_that_is_taken_at_last_has_the_place_it_had(
    service: Any, issue: Any, relay_of: Any, told_sink: Any, wait_until: Any, waiting: Any
) -> None:
    sink = told_sink(refuses=lambda each: each.event.type == "tokens.issued")
    async with running(relay_of(service, sink)):
        for subject in ("alice", "bob"):
            await issue(service, subject)
        await wait_until(lambda: is_empty(service, waiting))
    box = service.server.store.dead_letters
    letters = await box.letters()
    assert len(letters) == 2
    (outcome,) = await redeliver(box, letters, [told_sink(is_away=True)])
    assert outcome == Redelivery("told", 0, 0, "away")
    (outcome,) = await redeliver(box, letters, [])
    assert "audit.sinks" in outcome.problem
    sink.refuses = lambda each: each.event.subject == "bob"
    (outcome,) = await redeliver(box, letters, [sink])
    assert outcome == Redelivery("told", 1, 1)
    sink.refuses = lambda each: False
    (outcome,) = await redeliver(box, await box.letters(), [sink])
    assert outcome == Redelivery("told", 1, 0)
    assert not await box.letters()
    in_order = sorted(sink.taken, key=lambda each: (each.event.bucket, each.event.sequence))
    assert assert_chained_in_order(in_order) == len(in_order)


async def test_what_a_backend_has_said_of_a_dead_letter_reaches_no_terminal_raw(
    service: Any, issue: Any, relay_of: Any, told_sink: Any, wait_until: Any, waiting: Any
) -> None:
    sink = told_sink(refuses=lambda each: each.event.subject == "alice", says="\x1b[2J[red]no[/red]")
    async with running(relay_of(service, sink)):
        await issue(service)
        await wait_until(lambda: is_empty(service, waiting))
    answer = await asyncio.to_thread(
        CliRunner().invoke, app, ["audit", "dead-letters", *service.store_options], env={"COLUMNS": "200"}
    )
    assert answer.exit_code == 0, answer.output
    assert "[2J[red]no[/red]" in answer.output
    assert "\x1b" not in answer.output
