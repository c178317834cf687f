"""A primary that sentinels watch is killed while everybody refreshes, and they make a replica the primary. ``KILL_ROUNDS`` says how many
primaries die (1)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest
from cluster.traffic import Person, Traffic

ROUNDS = int(os.environ.get("KILL_ROUNDS", "1"))
PEOPLE = 24
# Sentinels may change their minds once more, some seconds later. What that loses, too, must be few enough generations to be
# caught up with.
PAUSE_SECONDS = 0.2


@pytest.fixture(scope="session")
def valkey(watched_servers: Any) -> str:
    """What other tests call their store."""
    return str(watched_servers.url)


@pytest.fixture
def fleet_settings(fleet_settings: dict[str, Any]) -> dict[str, Any]:
    """Revocations survive one server; a server that is away is noticed soon."""
    redis = {"revoke_durability": "replica", "timeout_ms": 500}
    return fleet_settings | {"redis": fleet_settings["redis"] | redis}


@pytest.mark.timeout(3600)
async def test_when_a_primary_dies_the_service_follows_the_sentinels(
    fleet: Any, watched_servers: Any, start_traffic: Any, wait_until: Any
) -> None:
    traffic: Traffic = await start_traffic(fleet, people=PEOPLE, pause_seconds=PAUSE_SECONDS)
    gone: list[Person] = []
    for number in range(ROUNDS):
        gone += await traffic.sign_in_and_out(f"leaver-{number}")
        victim = watched_servers.primary()
        heirs = [node for node in watched_servers.nodes if node is not victim]
        victim.leave_behind(*heirs)
        counts = {person.subject: len(person.answered_at) for person in traffic.people}
        # The first answer of each may be of a call that was under way.
        await wait_until(
            lambda was=counts: all(len(p.answered_at) > was[p.subject] + 1 for p in traffic.people)
        )
        killed_at = time.monotonic()
        victim.kill()
        for node in heirs:
            node.send(signal.SIGCONT)
        await wait_until(
            lambda at=killed_at: all(person.answered_at[-1] > at + 0.5 for person in traffic.people),
            seconds=30,
        )
        if number + 1 == ROUNDS:
            break
        # A sentinel that has not heard of it yet would name the old one again, which comes back empty.
        await wait_until(lambda victim=victim: watched_servers.nobody_names(victim))
        victim.revive()
        await asyncio.to_thread(watched_servers.become_whole)
    assert traffic.refusals().keys() == {"STORE_UNAVAILABLE"}
    assert await traffic.refusals_of(gone) == {"FAMILY_REVOKED"}
    await traffic.end()
    healed = await traffic.count("family.recovered")
    assert healed
    longest = max(person.longest_wait_seconds() for person in traffic.people)
    print(
        f"{ROUNDS} watched primaries killed: {traffic.answered()} refreshes, {dict(traffic.refusals())}, longest wait "
        f"{longest:.1f} s, caught up with {healed} times, revocations undone 0 of {len(gone)}, {traffic.figures()}"
    )
    assert not any(traffic.figures().values()), [person.lost for person in traffic.people if person.lost]
