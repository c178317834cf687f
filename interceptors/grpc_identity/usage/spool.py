"""Records on disk, first in, first out, in a file of fixed size that is mapped into memory.

To append is to copy into memory. What was appended is in the page cache then: it survives the process, however that ends, and
not the machine. Rules it keeps:

- the file has its full size from the start, with its blocks allocated, so that a full disk is noticed then and not by a
  signal later;
- every record has a number, one more than that of the one before, and a checksum that starts from it; reading stops at the first
  that does not fit, which is the end, a record that was not finished, or one of an earlier round (``frames``);
- where there are whole ones with higher numbers, it was damage: reading goes on with those, and a record that tells how many
  are lost takes the number of the last of them;
- how far it is acknowledged stands in two places, written in turn, so that one of them is always whole;
- what found no room is counted beside that (``losses``), and told by a record as soon as there is room for one.

Layout: 4,096 bytes of head, then a ring of frames.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

from grpc_identity.usage.frames import (
    FRAME_BYTES,
    HEAD_BYTES,
    MAX_RECORD_BYTES,
    Run,
    follow,
    frame_head,
    padded,
    read_frame,
    runs_above,
    skip_head,
)
from grpc_identity.usage.losses import NO_LOSSES, Losses, LossLedger, losses_between

__all__ = [
    "FRAME_BYTES",
    "MAX_RECORD_BYTES",
    "MIN_SPOOL_BYTES",
    "Batch",
    "Spool",
    "SpoolDamagedError",
    "client_of",
]

SPOOL_ID_BYTES = 16
MAX_CLIENT_ID_BYTES = 64
MIN_SPOOL_BYTES = 64 * 1024
_MAGIC = b"GIUSAGE1"
_HEAD = struct.Struct("<8s16sQ")
_CRC = struct.Struct("<I")
_MARK = struct.Struct("<QQQ")
_MARK_PLACES = (512, 1024)
_CLIENT_PLACE = 3072
# From Linux 5.14 on; the module does not name it.
_POPULATE_WRITE = 23
# More than any ring has: room that is kept from everybody.
_ALL_ROOM = 1 << 62


class SpoolDamagedError(Exception):
    """A file that is no spool, or whose head cannot be read."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The oldest records, with their numbers; ``end`` is the position after them.

    ``unreadable``: how many could not be read, and are told as lost by a record among these.
    """

    records: Sequence[tuple[int, bytes]]
    end: int
    unreadable: int = 0

    @property
    def last_number(self) -> int:
        """The number of the newest of them."""
        return self.records[-1][0]


@dataclass(frozen=True, slots=True)
class _Gap:
    """What cannot be read; the position and the number of what comes after that."""

    losses: Losses
    at: int
    number: int


class Spool:
    """One file. Any thread may append; one reads and acknowledges. To one that is left over, of another process, nothing is
    appended."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Reads what the file holds; ``descriptor`` is open for reading and writing, and is closed with the spool."""
        self.path = path
        self._descriptor = descriptor
        size = os.fstat(descriptor).st_size
        if size < HEAD_BYTES + MIN_SPOOL_BYTES:
            raise SpoolDamagedError(f"{path} is too short for a spool")
        self._map = mmap.mmap(descriptor, size)
        # Entered again by `tell_losses`, which appends.
        self._lock = threading.RLock()
        self._is_sealed = False
        self.is_left_over = True
        self.spool_id: bytes
        self._capacity: int
        magic, self.spool_id, self._capacity = _HEAD.unpack_from(self._map)
        (crc,) = _CRC.unpack_from(self._map, _HEAD.size)
        is_whole = magic == _MAGIC and crc == crc32(self._map[: _HEAD.size])
        if not is_whole or size != HEAD_BYTES + self._capacity or self._capacity % 8:
            raise SpoolDamagedError(f"{path} is no spool")
        self._mark, self._acknowledged, self._acknowledged_number = self._newest_mark()
        self._gaps: dict[int, _Gap] = {}
        # Its maker may be alive, if this is a copy: a number that was given here would be another record's.
        self._kept_bytes = _ALL_ROOM
        newest = self._find_gaps()
        self._end, self._last_number = newest.end, newest.last
        self._ledger = LossLedger(self._map, self._last_number)

    @classmethod
    def create(cls, path: Path, descriptor: int, *, size_bytes: int, client_id: str = "") -> Spool:
        """An empty one of this client, in a file that is empty. Raises ``OSError``, where there is no room for all of it."""
        capacity = max(size_bytes, MIN_SPOOL_BYTES) // 8 * 8
        _allocate(descriptor, HEAD_BYTES + capacity)
        head = _HEAD.pack(_MAGIC, secrets.token_bytes(SPOOL_ID_BYTES), capacity)
        mark = _MARK.pack(0, 0, 0)
        client = client_id.encode()[:MAX_CLIENT_ID_BYTES].ljust(MAX_CLIENT_ID_BYTES, b"\0")
        os.pwrite(descriptor, client + _CRC.pack(crc32(client)), _CLIENT_PLACE)
        os.pwrite(descriptor, mark + _CRC.pack(crc32(mark)), _MARK_PLACES[0])
        os.pwrite(descriptor, head + _CRC.pack(crc32(head)), 0)
        spool = cls(path, descriptor)
        spool.is_left_over, spool._kept_bytes = False, 0
        # The kernel makes its pages now, so that no call waits for them.
        with contextlib.suppress(OSError, ValueError):
            spool._map.madvise(_POPULATE_WRITE)
        return spool

    @property
    def waiting(self) -> int:
        """How many records are not acknowledged, those among them that cannot be read."""
        return self._last_number - self._acknowledged_number

    @property
    def appended(self) -> int:
        """How many records it has taken since it was made."""
        return self._last_number

    @property
    def untold(self) -> Losses:
        """What was lost, and is told by no record yet."""
        return self._ledger.untold

    @property
    def is_deleted(self) -> bool:
        """Whether nobody will find the file once this process lets go of it."""
        return os.fstat(self._descriptor).st_nlink == 0

    @property
    def waiting_bytes(self) -> int:
        """How much of the ring they take."""
        return self._end - self._acknowledged

    @property
    def capacity_bytes(self) -> int:
        """How much the ring holds."""
        return self._capacity

    def append(self, record: bytes, keep_bytes: int = 0, kept_bytes: int = 0) -> bool:
        """Whether there was room; see ``UsageSink.put``."""
        size = FRAME_BYTES + len(record)
        needed = (size + 7) & ~7
        if size > FRAME_BYTES + MAX_RECORD_BYTES:
            return False
        ring = self._capacity
        with self._lock:
            end, kept = self._end, self._kept_bytes - kept_bytes
            offset = end % ring
            skipped = ring - offset if needed > ring - offset else 0
            if end + skipped + needed + kept + keep_bytes - self._acknowledged > ring:
                self._kept_bytes = kept
                return False
            number = self._last_number + 1
            if skipped:
                if skipped >= FRAME_BYTES:
                    place = HEAD_BYTES + offset
                    self._map[place : place + FRAME_BYTES] = skip_head(number)
                offset = 0
            place = HEAD_BYTES + offset
            self._map[place : place + size] = frame_head(record, number) + record
            self._end = end + skipped + needed
            self._last_number = number
            self._kept_bytes = kept + keep_bytes
        return True

    def lose(self, losses: Losses) -> bool:
        """Counts what could not be kept, or will never be taken. Not where the spool is sealed."""
        with self._lock:
            if not self._is_sealed:
                self._ledger.add(losses)
            return not self._is_sealed

    def tell_losses(self) -> None:
        """Makes a record of what was lost, where there is something to tell and room for it."""
        if not self._ledger.untold.records:
            return
        with self._lock:
            record = self._ledger.untold.record()
            # Where the end of the ring is skipped, that is less than the record needs.
            at_most = 2 * padded(FRAME_BYTES + len(record))
            if self.waiting_bytes + self._kept_bytes + at_most <= self._capacity:
                self._ledger.telling(self._last_number + 1)
                self.append(record)
                self._ledger.told()

    def report_of_losses(self) -> tuple[bytes, Batch] | None:
        """Of a spool that is left over: what tells of its losses, and under which id."""
        if not self.is_left_over or not self.untold.records:
            return None
        return self._ledger.identity(self.spool_id), Batch([(1, self.untold.record())], 0)

    def losses_told(self) -> None:
        """``report_of_losses`` was recorded."""
        with self._lock:
            self._ledger.told()

    def seal(self) -> None:
        """Takes nothing from now on, so that what waits and what was lost is what there will be."""
        with self._lock:
            self._is_sealed = True
            self._kept_bytes = _ALL_ROOM

    def oldest(self, *, at_most: int, max_bytes: int) -> Batch | None:
        """The oldest records, at least one; ``None`` when all are acknowledged."""
        records: list[tuple[int, bytes]] = []
        at, number, last = self._acknowledged, self._acknowledged_number, self._last_number
        size = unreadable = 0
        while number < last and len(records) < at_most:
            found = self._next(at, number)
            if found is None:
                break
            size += len(found[1])
            if size > max_bytes and records:
                break
            number, record, at, lost = found
            records.append((number, record))
            unreadable += lost
        return Batch(records, at, unreadable) if records else None

    def acknowledge(self, batch: Batch) -> None:
        """Lets go of the records of ``oldest``."""
        self._mark += 1
        mark = _MARK.pack(self._mark, batch.end, batch.last_number)
        place = _MARK_PLACES[self._mark % len(_MARK_PLACES)]
        self._map[place : place + _MARK.size + _CRC.size] = mark + _CRC.pack(crc32(mark))
        # In this order: the room is used again as soon as it is free.
        self._acknowledged_number = batch.last_number
        self._acknowledged = batch.end

    def close(self) -> None:
        """Lets go of the file, which stays."""
        with self._lock:
            self.seal()
            self._map.close()
            os.close(self._descriptor)

    def abandon(self) -> None:
        """For the child after a fork: the file, and the lock on it, are the parent's."""
        # Not locked: whichever thread held the lock is not here.
        self._map.close()
        os.close(self._descriptor)

    def _next(self, at: int, number: int) -> tuple[int, bytes, int, int] | None:
        """After this position and number: the number of a record, that record, the position after it, and how many are lost there."""
        frame = read_frame(self._map, self._capacity, at, number + 1)
        if frame is not None:
            return number + 1, *frame, 0
        gap = self._gaps.get(number) or self._gap_after(number)
        if gap is None:
            return None
        if gap.losses.records:
            # By a number that nothing else has any more, so that the service takes it once, as every record.
            return gap.number - 1, gap.losses.record(), gap.at, gap.losses.records
        frame = read_frame(self._map, self._capacity, gap.at, gap.number)
        return None if frame is None else (gap.number, *frame, 0)

    def _gap_after(self, number: int) -> _Gap | None:
        """In a spool that was damaged since it was opened."""
        with self._lock:
            end, last = self._end, self._last_number
        run = self._find_gaps()
        if run.last < last:
            self._gaps[run.last] = self._gap(run, Run(end, last + 1, end, last, None, None))
        return self._gaps.get(number)

    def _find_gaps(self) -> Run:
        """Notes where reading goes on after what cannot be read; returns the newest run."""
        run = follow(self._map, self._capacity, self._acknowledged, self._acknowledged_number + 1)
        for found in runs_above(self._map, self._capacity, run.last):
            further = run.end + (found.at - run.end) % self._capacity - found.at
            later = replace(found, at=found.at + further, end=found.end + further)
            self._gaps[run.last] = self._gap(run, later)
            run = later
        return run

    def _gap(self, run: Run, later: Run) -> _Gap:
        # Where the mark is older than the ring, as a loss of power may leave it, numbers are missing that were acknowledged.
        lost = min(later.first - run.last - 1, (later.at - run.end) // FRAME_BYTES)
        changed_ms = os.fstat(self._descriptor).st_mtime_ns // 1_000_000
        losses = losses_between(run.last_record, later.first_record, changed_ms)
        return _Gap(replace(losses, records=lost) if lost else NO_LOSSES, later.at, later.first)

    def _newest_mark(self) -> tuple[int, int, int]:
        marks = []
        for place in _MARK_PLACES:
            mark = self._map[place : place + _MARK.size]
            if crc32(mark) == _CRC.unpack_from(self._map, place + _MARK.size)[0]:
                marks.append(_MARK.unpack(mark))
        if not marks:
            raise SpoolDamagedError(f"{self.path} does not say how far it is acknowledged")
        turn, position, number = max(marks)
        return turn, position, number


def client_of(descriptor: int) -> str:
    """Which client reports what is in this file; empty where it does not say so. Raises ``OSError``."""
    said = os.pread(descriptor, MAX_CLIENT_ID_BYTES + _CRC.size, _CLIENT_PLACE)
    client, crc = said[:MAX_CLIENT_ID_BYTES], said[MAX_CLIENT_ID_BYTES:]
    # A spool of an earlier version has nothing there.
    return client.rstrip(b"\0").decode(errors="replace") if crc == _CRC.pack(crc32(client)) else ""


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    for start in range(0, size, 1 << 20):
        os.pwrite(descriptor, bytes(min(1 << 20, size - start)), start)
