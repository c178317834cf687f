"""Relays whose ``audit.sinks`` differ lose no event, and everybody says that they differ."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import exported_ranges
import httpx
from audit.order import assert_chained_in_order
from audit.relays import running

from identity.audit.explanations import Dropped, Numbers, explanations
from identity.audit.line import line_of
from identity.audit.ports import LiveRelay
from identity.audit.relay import relay as relay_module
from identity.audit.sink_agreement import all_sinks, sinks_differ
from identity.diagnosis import examine
from identity.relay_process import RelayProcess


@contextlib.asynccontextmanager
async def sharing(*relays: Any) -> AsyncIterator[None]:
    """Each knows of the others before any begins."""
    for relay in relays:
        await relay.share_out()
    async with running(*relays):
        yield


async def test_every_sink_that_one_relay_names_gets_every_event_of_every_bucket(
    service: Any, issue: Any, relay_of: Any, told_sink: Any, wait_until: Any, waiting: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(relay_module, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(relay_module, "LAST_RETRY_SECONDS", 0.05)
    ones, two = told_sink("one"), told_sink("two", is_away=True)
    has_one, has_both = relay_of(service, ones, name="a"), relay_of(service, ones, two, name="b")
    async with sharing(has_one, has_both):
        await asyncio.gather(*(issue(service, f"user-{number}") for number in range(100)))
        await wait_until(lambda: ones.types().count("tokens.issued") == 100)
        # Also what was in the buckets of the relay that has no such sink.
        assert await waiting(service) == len({item.event.event_id for item in ones.taken})
        two.is_away = False

        async def is_empty() -> bool:
            return await waiting(service) == 0

        await wait_until(is_empty)
    assert assert_chained_in_order(two.taken) == assert_chained_in_order(ones.taken) >= 100


async def test_what_somebody_reads_for_stays_though_others_do_not_know_of_that_sink_yet(
    service: Any, issue: Any, relay_of: Any, told_sink: Any, waiting: Any
) -> None:
    await issue(service)
    count = await waiting(service)
    outbox = service.server.store.relay_outbox
    reading = await outbox.read("two", "new", range(8), alive=["new"], sinks=["two"], batch=10)
    assert sum(len(each.events) for each in reading) == count
    knows_nothing = relay_of(service, told_sink("one"), name="a")
    await knows_nothing.share_out()
    await knows_nothing.drain()
    assert await waiting(service) == count
    await outbox.release("two", "new", range(8))
    await knows_nothing.by_sink[0].relay_once()
    assert await waiting(service) == 0


async def test_servers_relays_and_the_doctor_say_who_has_which_sinks(
    make_settings: Any, start_service: Any, collector: Any, wait_until: Any, tmp_path: Path
) -> None:
    both = {"sinks": "otlp,file", "file_path": tmp_path / "audit.jsonl", "relay_listen": "127.0.0.1:0"}
    service = await start_service(make_settings(audit=both))
    like = {"redis": service.settings.redis.model_dump()}
    has_both = RelayProcess(make_settings(audit=both, **like))
    has_one = RelayProcess(make_settings(audit={"sinks": "otlp", "relay_listen": "127.0.0.1:0"}, **like))
    urls = [service.addresses.http_url]
    try:
        urls += [await has_both.start(), await has_one.start()]

        async def all_say_so() -> bool:
            async with httpx.AsyncClient() as http:
                answers = [await http.get(f"{url}/readyz") for url in urls]
            said = [
                problem["message"]
                for answer in answers
                for problem in answer.json()["problems"]
                if answer.status_code == 200 and problem["name"] == "audit_sinks_differ"
            ]
            return len(said) == 3 and all(" has otlp;" in one or " has otlp." in one for one in said)

        await wait_until(all_say_so)
        (told,) = [each for each in await examine(service.settings) if each.subject == "audit sinks"]
        assert not told.healthy
        assert "has otlp, file" in told.message
    finally:
        await has_one.stop()
        await has_both.stop()


async def test_a_sink_that_is_named_again_is_told_once_what_left_without_it(
    make_settings: Any, start_service: Any, issue: Any, relay_of: Any, told_sink: Any
) -> None:
    service = await start_service(make_settings(redis={"buckets": 1}))
    one, two = told_sink("one"), told_sink("two")

    async def relayed(*sinks: Any) -> None:
        for number in range(3):
            await issue(service, f"user-{number}")
        relay = relay_of(service, *sinks)
        await relay.share_out()
        await relay.drain()
        await relay.drain()  # the first round may have ended with a sink's last look
        await relay.close()

    await relayed(one, two)
    await relayed(one)
    before = two.taken[-1].event.sequence
    last = one.taken[-1].event.sequence
    assert last > before
    await relayed(one, two)
    await relayed(one, two)
    (resumed,) = [item.event for item in two.taken if item.event.type == "audit.sink_resumed"]
    assert [*explanations(resumed)] == [Dropped(0, Numbers(before + 1, last), "two")]
    assert resumed.severity == "warning"
    numbers = {item.event.sequence for item in one.taken}
    assert {item.event.sequence for item in two.taken} == numbers - set(range(before + 1, last + 1))
    assert resumed in [item.event for item in one.taken]
    report = exported_ranges.verified([line_of(item, "two") for item in two.taken], keys=[])
    assert [finding.fault for finding in report.findings] == []


def test_the_same_sinks_in_another_order_are_the_same() -> None:
    relays = [LiveRelay("a", ("file", "otlp")), LiveRelay("b", ("otlp", "file"))]
    assert not sinks_differ(["otlp", "file"], relays)
    assert not sinks_differ(["otlp", "file"], [])
    assert all_sinks(relays) == ["file", "otlp"]
    (problem,) = sinks_differ(["otlp"], relays)
    assert problem.name == "audit_sinks_differ"
    assert not problem.blocks
    assert "relay b has otlp, file" in problem.message
