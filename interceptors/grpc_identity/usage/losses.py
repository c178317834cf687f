"""Records that could not be kept: counted in the head of a spool, until a record in its ring tells of them.

The count survives the process as the records do, and is told once. A record of the ring tells of it only as long as the file is
its maker's: another process may hold a copy, and both would give one number to two reports. Whoever finds a file tells of its
count under an id of that count. Rules it keeps:

- it stands in two places, written in turn, so that one of them is always whole;
- before a record is made of it, the number that this will have is written beside it, and after that an empty count. Whoever opens
  the file after a crash in between sees by the numbers of the ring whether the record is there.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from dataclasses import dataclass
from typing import Self
from zlib import crc32

from google.protobuf.message import DecodeError

from grpc_identity.v1 import identity_service_pb2 as pb

__all__ = ["NO_LOSSES", "LossLedger", "Losses", "is_report_of_losses", "losses_between", "losses_with"]

_PLACES = (1536, 2048)
# Turn, number of the record that tells of it, records, first and last in milliseconds since 1970.
_COUNT = struct.Struct("<QQQQQ")
_CRC = struct.Struct("<I")
_LOST = b"\x10\x03"
_MAX_TOLD = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Losses:
    """How many records were lost, the first and the last of them when."""

    records: int
    since_ms: int
    until_ms: int

    @classmethod
    def one(cls, at_ms: int) -> Self:
        """A record, lost at that time."""
        return cls(1, at_ms, at_ms)

    def and_also(self, others: Losses) -> Losses:
        """Both as one."""
        if not self.records or not others.records:
            return self if self.records else others
        return Losses(
            min(self.records + others.records, _MAX_TOLD),
            min(self.since_ms, others.since_ms),
            max(self.until_ms, others.until_ms),
        )

    def record(self) -> bytes:
        """That tells of them."""
        return pb.UsageRecord(
            step=pb.USAGE_STEP_LOST,
            occurred_at_ms=self.until_ms,
            lost_records=self.records,
            lost_since_ms=self.since_ms,
        ).SerializeToString()


NO_LOSSES = Losses(0, 0, 0)


class LossLedger:
    """The count in one file. ``last_number``: of the newest record in its ring."""

    def __init__(self, mapped: mmap.mmap, last_number: int) -> None:
        self._map = mapped
        found = (0, 0, 0, 0, 0)
        for place in _PLACES:
            count = mapped[place : place + _COUNT.size]
            # A spool of an earlier version has nothing there.
            if crc32(count) == _CRC.unpack_from(mapped, place + _COUNT.size)[0]:
                found = max(found, _COUNT.unpack(count))
        self._turn, told_by, *lost = found
        self.untold = NO_LOSSES if 0 < told_by <= last_number else Losses(*lost)

    def add(self, losses: Losses) -> None:
        """Some more."""
        self._write(self.untold.and_also(losses), 0)

    def telling(self, number: int) -> None:
        """The next record in the ring will have this number, and tell of them."""
        self._write(self.untold, number)

    def told(self) -> None:
        """It is there."""
        self._write(NO_LOSSES, 0)

    def identity(self, spool_id: bytes) -> bytes:
        """The same for the same count of the same spool, also in a copy of it, and for no other; as long as the id of a spool."""
        count = _COUNT.pack(self._turn, 0, self.untold.records, self.untold.since_ms, self.untold.until_ms)
        return hashlib.sha256(spool_id + count).digest()[: len(spool_id)]

    def _write(self, losses: Losses, told_by: int) -> None:
        self._turn += 1
        count = _COUNT.pack(self._turn, told_by, losses.records, losses.since_ms, losses.until_ms)
        place = _PLACES[self._turn % len(_PLACES)]
        self._map[place : place + _COUNT.size + _CRC.size] = count + _CRC.pack(crc32(count))
        self.untold = losses


def is_report_of_losses(record: bytes) -> bool:
    """Whether the record is one of ``Losses.record``."""
    return record.startswith(_LOST)


def losses_with(record: bytes, now_ms: int) -> Losses:
    """What is lost when this record is: a use, or all that it tells of."""
    try:
        read = pb.UsageRecord.FromString(record)
    except DecodeError:
        return Losses.one(now_ms)
    if read.step == pb.USAGE_STEP_LOST:
        return Losses(read.lost_records, read.lost_since_ms, read.occurred_at_ms)
    return Losses.one(read.occurred_at_ms or now_ms)


def losses_between(before: bytes | None, after: bytes | None, otherwise_ms: int) -> Losses:
    """One that was lost between these records, as far as they are known: from when until when it may have been."""
    until_ms = losses_with(after, otherwise_ms).until_ms if after is not None else otherwise_ms
    since_ms = losses_with(before, until_ms).until_ms if before is not None else until_ms
    return Losses(1, min(since_ms, until_ms), max(since_ms, until_ms))
