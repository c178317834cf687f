"""Slots move between the primaries while everybody refreshes: nobody notices but for waiting. ``MIGRATION_ROUNDS`` says how
often every bucket moves in each of the two ways (1)."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from store_cluster import slot_of

ROUNDS = int(os.environ.get("MIGRATION_ROUNDS", "1"))
PEOPLE = 24


def places(fleet: Any, cluster: Any) -> list[int]:
    """The slot of each bucket."""
    return [slot_of(bucket.ledger) for bucket in fleet.keys.buckets]


def next_after(cluster: Any, slot: int) -> Any:
    """A primary that has not got this slot."""
    primaries = sorted(cluster.primaries(), key=lambda node: node.port)
    return primaries[(primaries.index(cluster.owner(slot)) + 1) % len(primaries)]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", ["key by key", "at once"])
async def test_sessions_go_on_while_their_slots_move(
    fleet: Any, cluster: Any, start_traffic: Any, wait_until: Any, way: str
) -> None:
    traffic = await start_traffic(fleet, people=PEOPLE)
    move = cluster.move_by_key if way == "key by key" else cluster.move_at_once
    moves = 0
    for _ in range(ROUNDS):
        for slot in places(fleet, cluster):
            answered = traffic.answered()
            await asyncio.to_thread(move, slot, next_after(cluster, slot))
            moves += 1
            # Everybody in turn, before the next slot goes.
            await wait_until(lambda answered=answered: traffic.answered() >= answered + PEOPLE)
    await traffic.end()
    longest = max(person.longest_wait_seconds() for person in traffic.people)
    print(
        f"{moves} slots moved {way}: {traffic.answered()} refreshes, {dict(traffic.refusals())}, "
        f"longest wait {longest:.2f} s, {traffic.figures()}"
    )
    assert not any(traffic.figures().values()), [person.lost for person in traffic.people if person.lost]
    await traffic.check_records()
