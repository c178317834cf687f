"""A spool with blocks that cannot be read: what is whole is delivered, and what is not is told as lost."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interceptors.usage import samples
from interceptors.usage.samples import NOW_MS

from grpc_identity.usage.losses import is_report_of_losses
from grpc_identity.usage.spool import FRAME_BYTES, MIN_SPOOL_BYTES, Spool
from grpc_identity.usage.spool_directory import SpoolDirectory
from grpc_identity.v1 import identity_service_pb2 as pb

HEAD_BYTES = 4096

record = functools.partial(samples.record, user_agent="a" * 100)


def opened(path: Path) -> Spool:
    return Spool(path, os.open(path, os.O_RDWR))


def everything(spool: Spool) -> list[tuple[int, bytes]]:
    batch = spool.oldest(at_most=10**6, max_bytes=10**9)
    return list(batch.records) if batch else []


def lost_in(held: list[tuple[int, bytes]]) -> int:
    told = [pb.UsageRecord.FromString(each) for _, each in held if is_report_of_losses(each)]
    return sum(each.lost_records for each in told)


def acknowledged(spool: Spool, at_most: int) -> None:
    batch = spool.oldest(at_most=at_most, max_bytes=10**9)
    assert batch is not None
    spool.acknowledge(batch)


def damaged(path: Path, *blocks: tuple[int, bytes]) -> None:
    with path.open("r+b") as file:
        for at, block in blocks:
            file.seek(at)
            file.write(block)


def flipped(path: Path, name: bytes) -> tuple[int, bytes]:
    """One byte of the record with this name, as another."""
    at = path.read_bytes().index(name)
    return at, bytes([name[0] ^ 1])


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return SpoolDirectory(tmp_path / "usage").create(size_bytes=MIN_SPOOL_BYTES)


class Ring:
    """A spool that has gone some rounds, and of each record that waits: its bytes, and where in the file they are."""

    def __init__(self, folder: Path, seed: int, appended: int) -> None:
        self.spool = SpoolDirectory(folder).create(size_bytes=MIN_SPOOL_BYTES)
        self.waiting: dict[int, tuple[bytes, int, int]] = {}
        sizes = random.Random(seed)
        for number in range(1, appended + 1):
            # Eight bytes of the same text might be a number; these are too high for one.
            each = b"%06d" % number + bytes([0x41 + number % 26]) * sizes.randrange(600)
            while not self.spool.append(each):
                self._acknowledge(sizes.randrange(1, 40))
            end = HEAD_BYTES + (self.spool._end - 1) % MIN_SPOOL_BYTES + 1
            size = (FRAME_BYTES + len(each) + 7) // 8 * 8
            self.waiting[number] = (each, end - size, end)

    def _acknowledge(self, records: int) -> None:
        acknowledged(self.spool, records)
        for number in sorted(self.waiting)[:records]:
            del self.waiting[number]


@given(
    seed=st.integers(0, 1 << 32),
    appended=st.integers(1, 900),
    blocks=st.lists(
        st.tuples(st.integers(HEAD_BYTES, HEAD_BYTES + MIN_SPOOL_BYTES - 1), st.binary(max_size=5000)),
        max_size=4,
    ),
    zeros=st.lists(st.integers(1, MIN_SPOOL_BYTES // 4096), max_size=4),
)
@settings(max_examples=150)
def test_all_that_is_whole_is_read_and_the_rest_counted(
    tmp_path_factory: Any, seed: int, appended: int, blocks: list[tuple[int, bytes]], zeros: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("usage")
    ring = Ring(folder, seed, appended)
    waiting = ring.waiting
    oldest, ring_end = min(waiting), HEAD_BYTES + MIN_SPOOL_BYTES
    before = ring.spool.path.read_bytes()
    damaged(
        ring.spool.path,
        *((at, block[: ring_end - at]) for at, block in blocks),
        *((4096 * page, bytes(4096)) for page in zeros),
    )
    after = ring.spool.path.read_bytes()
    whole = {number for number, (_, at, end) in waiting.items() if before[at:end] == after[at:end]}
    ring.spool.close()

    found = opened(ring.spool.path)
    held = everything(found)
    # What was filled up behind a record may be damaged without harm.
    kept = {number: each for number, each in held if not is_report_of_losses(each)}
    assert kept.items() <= {number: each for number, (each, _, _) in waiting.items()}.items()
    assert whole <= kept.keys()
    numbers = [number for number, _ in held]
    assert numbers == sorted(set(numbers))
    if numbers:
        assert len(kept) + lost_in(held) == numbers[-1] - oldest + 1
    found.close()

    # Whoever goes on from anywhere in between reads the same, by the same numbers.
    again = []
    while True:
        found = opened(ring.spool.path)
        batch = found.oldest(at_most=7, max_bytes=10**9)
        if batch is None:
            break
        again += batch.records
        found.acknowledge(batch)
        found.close()
    found.close()
    assert [number for number, _ in again] == numbers
    assert {number: each for number, each in again if not is_report_of_losses(each)} == kept
    assert lost_in(again) == lost_in(held)
    shutil.rmtree(folder)


def test_one_that_cannot_be_read_costs_no_other(spool: Spool) -> None:
    for name in ("one", "two", "three"):
        spool.append(record(name))
    spool.close()
    damaged(spool.path, flipped(spool.path, b"two"))
    found = opened(spool.path)
    (first, told, last) = everything(found)
    assert (first, last) == ((1, record("one")), (3, record("three")))
    assert (told[0], lost_in([told])) == (2, 1)
    found.close()


def test_a_number_of_which_the_checksum_knows_nothing_is_not_believed(spool: Spool) -> None:
    for name in ("one", "two", "three"):
        spool.append(record(name))
    at = HEAD_BYTES + 2 * (spool.waiting_bytes // 3) + 8
    spool.close()
    damaged(spool.path, (at + 4, b"\x01"))
    found = opened(spool.path)
    assert everything(found) == [(1, record("one")), (2, record("two"))]
    found.close()


def test_a_gap_lies_between_the_records_beside_it(spool: Spool) -> None:
    for name, at_ms in (("one", NOW_MS), ("two", NOW_MS + 5), ("three", NOW_MS + 9)):
        spool.append(record(name, at_ms))
    spool.close()
    damaged(spool.path, flipped(spool.path, b"two"))
    found = opened(spool.path)
    told = pb.UsageRecord.FromString(everything(found)[1][1])
    assert (told.lost_since_ms, told.occurred_at_ms) == (NOW_MS, NOW_MS + 9)
    found.close()


def around_the_ring(spool: Spool) -> int:
    """Fills the spool until the record behind the skipped end of the ring; its number."""
    size = 512
    while spool.append(bytes([0x41 + spool.appended % 26]) * size):
        pass
    acknowledged(spool, 10)
    assert MIN_SPOOL_BYTES % (FRAME_BYTES + size) > FRAME_BYTES
    assert spool.append(b"behind the end" * 10)
    assert spool.append(b"newest")
    return spool.appended - 1


@pytest.mark.parametrize("what", ["skip", "record", "both"])
def test_damage_before_the_skipped_end_of_the_ring(spool: Spool, what: str) -> None:
    behind = around_the_ring(spool)
    held = dict(everything(spool))
    skipped_at = HEAD_BYTES + MIN_SPOOL_BYTES // 528 * 528
    spool.close()
    at = {"skip": [skipped_at], "record": [skipped_at - 100], "both": [skipped_at, skipped_at - 100]}
    damaged(spool.path, *((place, b"\xff") for place in at[what]))
    found = opened(spool.path)
    after = dict(everything(found))
    assert after.keys() == held.keys()
    changed = [number for number in held if after[number] != held[number]]
    assert changed == ([] if what == "skip" else [behind - 1])
    assert lost_in(list(after.items())) == len(changed)
    found.close()


def test_a_mark_older_than_the_ring_gives_up_nothing_that_waits(tmp_path: Path) -> None:
    """As after a loss of power, where the ring was on disk and its head was not."""
    spool = SpoolDirectory(tmp_path / "usage").create(size_bytes=MIN_SPOOL_BYTES)
    names = iter(range(10**6))
    for _ in range(30):
        assert spool.append(record(f"s{next(names)}"))
    acknowledged(spool, 10)
    head = spool.path.read_bytes()[:HEAD_BYTES]
    for _ in range(5):
        while spool.append(record(f"s{next(names)}")):
            pass
        acknowledged(spool, 300)
    waiting = everything(spool)
    spool.close()
    damaged(spool.path, (0, head))
    found = opened(spool.path)
    held = everything(found)
    assert [each for each in waiting if each not in held] == []
    numbers = [number for number, _ in held]
    assert numbers == sorted(set(numbers))
    # No more is told as lost than could have stood there.
    assert lost_in(held) <= MIN_SPOOL_BYTES // FRAME_BYTES
    found.close()


def test_damage_under_a_host_that_goes_on_is_passed_as_well(spool: Spool) -> None:
    for number in range(40):
        spool.append(record(f"name-{number:03}"))
    acknowledged(spool, 3)
    damaged(spool.path, flipped(spool.path, b"name-010"), flipped(spool.path, b"name-039"))
    held = everything(spool)
    assert [number for number, _ in held] == list(range(4, 41))
    assert lost_in(held) == 2
    for number in range(40, 50):
        spool.append(record(f"name-{number:03}"))
    assert [number for number, _ in everything(spool)] == list(range(4, 51))
    while spool.waiting:
        acknowledged(spool, 5)
    assert spool.waiting_bytes == 0
    spool.close()


def zeroed_block(path: Path) -> list[tuple[int, bytes]]:
    return [(2 * 4096, bytes(4096))]


def two_neighbours(path: Path) -> list[tuple[int, bytes]]:
    return [flipped(path, b"name-050"), flipped(path, b"name-051")]


@pytest.mark.parametrize("damage", [zeroed_block, two_neighbours])
async def test_what_cannot_be_read_is_told_as_lost_and_the_rest_delivered(
    service: Any, recorder_of: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    usage = recorder_of(target="127.0.0.1:1")
    usage.start()
    for number in range(100):
        assert usage.put(record(f"name-{number:03}"))
    await asyncio.to_thread(usage.close, flush_seconds=0.1)
    (path,) = (tmp_path / "usage").glob("*.spool")
    damaged(path, *damage(path))
    async with recorder_of() as usage:
        await asyncio.to_thread(usage.close, flush_seconds=30.0)
    waiting = await service.server.store.outbox_view.after({}, at_most=10_000)
    names = [each.event.session_id for each in waiting if each.event.type == "token.used"]
    (lost,) = [each.event.count for each in waiting if each.event.type == "token.uses_lost"]
    assert len(set(names)) == len(names) == 100 - lost
    assert {"name-000", "name-099"} <= set(names)
    assert usage.counts()["lost"] == lost
    assert f"{lost} uses of tokens are lost" in caplog.text
    assert not [each for each in (tmp_path / "usage").iterdir() if each.name != "lock"]
