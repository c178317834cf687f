"""A primary of the cluster is killed while everybody refreshes, and its replica takes over.

What the replica had not heard is caught up with, nothing is restarted, and what was revoked stays revoked. ``KILL_ROUNDS`` says how many
primaries die (1).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any

import pytest
from cluster.traffic import Person, Traffic
from store_cluster import slot_of

ROUNDS = int(os.environ.get("KILL_ROUNDS", "1"))
PEOPLE = 24


@pytest.fixture
def fleet_settings(fleet_settings: dict[str, Any]) -> dict[str, Any]:
    """Revocations survive one server; a server that is away is noticed soon."""
    redis = {"revoke_durability": "replica", "timeout_ms": 500}
    return fleet_settings | {"redis": fleet_settings["redis"] | redis}


@pytest.mark.timeout(3600)
async def test_when_a_primary_of_a_cluster_dies_the_others_go_on_and_its_replica_takes_over(
    fleet: Any, cluster: Any, start_traffic: Any, wait_until: Any
) -> None:
    traffic: Traffic = await start_traffic(fleet, people=PEOPLE)
    gone: list[Person] = []
    waits: list[float] = []
    for number in range(ROUNDS):
        gone += await traffic.sign_in_and_out(f"leaver-{number}")
        victim = cluster.primaries()[number % 3]
        heir = cluster.replica_of(victim)
        orphans = {
            bucket.index for bucket in fleet.keys.buckets if cluster.owner(slot_of(bucket.ledger)) is victim
        }
        hit = [person for person in traffic.people if person.bucket in orphans]
        spared = [person for person in traffic.people if person.bucket not in orphans]
        assert hit
        assert spared
        victim.leave_behind(heir)
        counts = {person.subject: len(person.answered_at) for person in hit}
        # The first answer of each may be of a call that was under way.
        await wait_until(
            lambda hit=hit, was=counts: all(len(p.answered_at) > was[p.subject] + 1 for p in hit)
        )
        before = {person.subject: len(person.answered_at) for person in spared}
        refused_before = sum(person.refusals.total() for person in spared)
        killed_at = time.monotonic()
        victim.kill()
        heir.send(signal.SIGCONT)
        # With nobody in the place of the dead one, everybody else is answered.
        await wait_until(
            lambda was=before, spared=spared: all(len(p.answered_at) > was[p.subject] for p in spared)
        )
        assert not heir.is_primary, "too late to say anything"
        assert sum(person.refusals.total() for person in spared) == refused_before
        await wait_until(
            lambda hit=hit, at=killed_at: all(person.answered_at[-1] > at + 0.5 for person in hit)
        )
        waits.append(max(person.longest_wait_seconds() for person in hit))
        victim.revive()
        await asyncio.to_thread(cluster.become_whole)
    assert traffic.refusals().keys() == {"STORE_UNAVAILABLE"}
    assert await traffic.refusals_of(gone) == {"FAMILY_REVOKED"}
    await traffic.end()
    healed = await traffic.count("family.recovered")
    assert healed
    print(
        f"{ROUNDS} primaries of a cluster killed: {traffic.answered()} refreshes, {dict(traffic.refusals())}, longest wait "
        f"{max(waits):.1f} s, caught up with {healed} times, revocations undone 0 of {len(gone)}, {traffic.figures()}"
    )
    assert not any(traffic.figures().values()), [person.lost for person in traffic.people if person.lost]
