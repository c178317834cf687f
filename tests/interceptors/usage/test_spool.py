"""The spool by itself: first in, first out, whatever the sizes, the round, and the end of the process."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections import deque
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from grpc_identity.usage.spool import FRAME_BYTES, MAX_RECORD_BYTES, MIN_SPOOL_BYTES, Spool, SpoolDamagedError
from grpc_identity.usage.spool_directory import SpoolDirectory

HEAD_BYTES = 4096


@pytest.fixture
def directory(tmp_path: Path) -> SpoolDirectory:
    return SpoolDirectory(tmp_path / "usage")


def everything(spool: Spool) -> list[tuple[int, bytes]]:
    """All that is not acknowledged; it stays so."""
    batch = spool.oldest(at_most=10**6, max_bytes=10**9)
    return list(batch.records) if batch else []


def opened(path: Path) -> Spool:
    return Spool(path, os.open(path, os.O_RDWR))


class SpoolModel(RuleBasedStateMachine):
    """A spool beside a queue: they hold the same, also for whoever opens the file anew, as after a SIGKILL."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = Path(tempfile.mkdtemp())
        self.queue: deque[tuple[int, bytes]] = deque()
        self.kept: list[int] = []
        self.numbered = 0

    @initialize()
    def create(self) -> None:
        self.spool = SpoolDirectory(self.folder).create(size_bytes=MIN_SPOOL_BYTES)

    def _append(self, size: int, **how: int) -> bool:
        record = bytes([self.numbered % 251]) * size
        if not self.spool.append(record, **how):
            return False
        self.numbered += 1
        self.queue.append((self.numbered, record))
        return True

    @rule(sizes=st.lists(st.integers(0, MAX_RECORD_BYTES), min_size=1, max_size=30))
    def append(self, sizes: list[int]) -> None:
        for size in sizes:
            if not self._append(size):
                taken = sum(len(record) + FRAME_BYTES + 8 for _, record in self.queue)
                # What a frame is filled up with, and what is left before the end of the ring.
                slack = MAX_RECORD_BYTES + FRAME_BYTES + 8
                assert taken + sum(self.kept) + size + 2 * slack > MIN_SPOOL_BYTES

    @rule(size=st.integers(0, 500), ending=st.integers(0, 500))
    def begin(self, size: int, ending: int) -> None:
        keep = 2 * (ending + FRAME_BYTES + 8)
        if self._append(size, keep_bytes=keep):
            self.kept.append(keep)

    @precondition(lambda self: self.kept)
    @rule(of=st.randoms(use_true_random=False))
    def end(self, of: random.Random) -> None:
        kept = self.kept.pop(of.randrange(len(self.kept)))
        assert self._append(kept // 2 - FRAME_BYTES - 8, kept_bytes=kept), "its room was taken"

    @rule(size=st.integers(MAX_RECORD_BYTES + 1, MAX_RECORD_BYTES + 9))
    def append_too_much(self, size: int) -> None:
        assert not self.spool.append(bytes(size))

    @rule(at_most=st.integers(1, 40), max_bytes=st.integers(1, 20_000))
    def acknowledge(self, at_most: int, max_bytes: int) -> None:
        batch = self.spool.oldest(at_most=at_most, max_bytes=max_bytes)
        if batch is None:
            assert not self.queue
            return
        assert 1 <= len(batch.records) <= at_most
        assert len(batch.records) == 1 or sum(len(record) for _, record in batch.records) <= max_bytes
        for held in batch.records:
            assert held == self.queue.popleft()
        self.spool.acknowledge(batch)

    @rule()
    def look_from_another_process(self) -> None:
        """What is in the page cache is what the process would leave behind if it were killed now."""
        found = opened(self.spool.path)
        assert found.spool_id == self.spool.spool_id
        assert everything(found) == list(self.queue)
        found.close()

    @invariant()
    def both_hold_the_same(self) -> None:
        if hasattr(self, "spool"):
            assert self.spool.waiting == len(self.queue)

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            assert everything(self.spool) == list(self.queue)
            self.spool.close()
        shutil.rmtree(self.folder)


TestSpoolModel = SpoolModel.TestCase
TestSpoolModel.settings = settings(max_examples=60, stateful_step_count=60)


@pytest.mark.parametrize("cut", range(1, FRAME_BYTES + 24))
def test_a_record_that_was_not_finished_is_left_out(directory: SpoolDirectory, cut: int) -> None:
    spool = directory.create(size_bytes=MIN_SPOOL_BYTES)
    spool.append(b"whole")
    before = spool.waiting_bytes
    spool.append(b"\xff" * 24)
    spool.close()
    content = bytearray(spool.path.read_bytes())
    end = HEAD_BYTES + before + FRAME_BYTES + 24
    content[end - cut : end] = bytes(cut)
    spool.path.write_bytes(content)
    found = opened(spool.path)
    assert everything(found) == [(1, b"whole")]
    found.close()


def test_a_mark_that_was_not_finished_leaves_the_one_before(directory: SpoolDirectory) -> None:
    spool = directory.create(size_bytes=MIN_SPOOL_BYTES)
    for name in (b"a", b"b", b"c"):
        spool.append(name)
    for _ in range(2):
        batch = spool.oldest(at_most=1, max_bytes=100)
        assert batch
        spool.acknowledge(batch)
    spool.close()
    content = bytearray(spool.path.read_bytes())
    content[512 + 4] ^= 1  # the mark of an even turn, which is the newest
    spool.path.write_bytes(content)
    found = opened(spool.path)
    assert everything(found) == [(2, b"b"), (3, b"c")]
    found.close()


def test_threads_that_append_at_once_lose_nothing(directory: SpoolDirectory) -> None:
    spool = directory.create(size_bytes=1 << 20)

    def append(name: int) -> None:
        for n in range(500):
            assert spool.append(b"%d-%d" % (name, n))

    threads = [threading.Thread(target=append, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = everything(spool)
    assert [number for number, _ in held] == list(range(1, 4001))
    assert {record for _, record in held} == {b"%d-%d" % (name, n) for name in range(8) for n in range(500)}
    for name in range(8):
        own = [record for _, record in held if record.startswith(b"%d-" % name)]
        assert own == [b"%d-%d" % (name, n) for n in range(500)]
    spool.close()


def test_a_spool_is_adopted_once_and_only_when_nobody_holds_it(directory: SpoolDirectory) -> None:
    spool = directory.create(size_bytes=MIN_SPOOL_BYTES)
    spool.append(b"one")
    assert directory.adopt() == []
    spool.close()
    (adopted,) = directory.adopt()
    assert everything(adopted) == [(1, b"one")]
    assert directory.adopt() == []
    directory.remove(adopted)
    assert directory.adopt() == []


def test_what_is_no_spool_is_put_aside_and_said(
    directory: SpoolDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    directory.create(size_bytes=MIN_SPOOL_BYTES).close()
    (path,) = directory.path.glob("*.spool")
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    assert directory.adopt() == []
    assert "cannot be read" in caplog.text
    assert [each.suffix for each in directory.path.iterdir() if each.name != "lock"] == [".damaged"]
    with pytest.raises(SpoolDamagedError):
        opened(path.with_suffix(".damaged"))


def test_files_are_for_their_owner_alone(directory: SpoolDirectory) -> None:
    spool = directory.create(size_bytes=MIN_SPOOL_BYTES)
    assert spool.path.stat().st_mode & 0o777 == 0o600
    assert directory.path.stat().st_mode & 0o777 == 0o700
    spool.close()
