"""Frames: how records stand in the ring of a spool, and which of them can be read.

A frame is length, CRC-32, number, record, filled up to 8 bytes. It is never split: what is left before the end of the ring is
skipped. Reading stops at the first that does not fit; ``runs_above`` finds what is whole behind that.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

__all__ = [
    "FRAME_BYTES",
    "HEAD_BYTES",
    "MAX_RECORD_BYTES",
    "Run",
    "follow",
    "frame_head",
    "padded",
    "read_frame",
    "runs_above",
    "skip_head",
]

HEAD_BYTES = 4096
MAX_RECORD_BYTES = 4096
_FRAME = struct.Struct("<IIQ")
_NUMBER = struct.Struct("<Q")
_CRC_MASK = 0xFFFFFFFF
_SKIP = 0xFFFFFFFF
# No mark is that far behind its ring; and the checksum covers the lower half of a number.
_TOO_FAR = 2**32
_BLOCK = bytes(64 * 1024)
_pack = _FRAME.pack
FRAME_BYTES = _FRAME.size


@dataclass(frozen=True, slots=True)
class Run:
    """Frames one after the other, none of them where ``last`` is less than ``first``. ``end`` is the position after them."""

    at: int
    first: int
    end: int
    last: int
    first_record: bytes | None
    last_record: bytes | None


def padded(length: int) -> int:
    """Filled up to 8 bytes."""
    return (length + 7) // 8 * 8


def frame_head(record: bytes, number: int) -> bytes:
    """What stands before a record."""
    return _pack(len(record), crc32(record, number & _CRC_MASK), number)


def skip_head(number: int) -> bytes:
    """Says that the record with this number is at the start of the ring."""
    return _pack(_SKIP, crc32(b"", number & _CRC_MASK), number)


def read_frame(memory: mmap.mmap, capacity: int, at: int, number: int) -> tuple[bytes, int] | None:
    """The record with this number, if it is at this position, and the position after it."""
    offset = at % capacity
    if capacity - offset < FRAME_BYTES:
        return read_frame(memory, capacity, at + capacity - offset, number)
    place = HEAD_BYTES + offset
    length, crc, found = _FRAME.unpack_from(memory, place)
    if found != number:
        return None
    if length == _SKIP:
        # At the start of the ring nothing is skipped, which ends this for whatever the file holds.
        is_whole = offset and crc == crc32(b"", number & _CRC_MASK)
        return read_frame(memory, capacity, at + capacity - offset, number) if is_whole else None
    if length > MAX_RECORD_BYTES or offset + FRAME_BYTES + length > capacity:
        return None
    record = memory[place + FRAME_BYTES : place + FRAME_BYTES + length]
    if crc32(record, number & _CRC_MASK) != crc:
        return None
    return record, at + padded(FRAME_BYTES + length)


def follow(memory: mmap.mmap, capacity: int, at: int, number: int) -> Run:
    """The run that begins at this position with this number."""
    start, first, first_record, record = at, number, None, None
    while (frame := read_frame(memory, capacity, at, number)) is not None:
        record, at = frame
        number += 1
        if first_record is None:
            first_record = record
    return Run(start, first, at, number - 1, first_record, record)


def runs_above(memory: mmap.mmap, capacity: int, number: int) -> list[Run]:
    """All runs of records with higher numbers, by those: one pass over the ring.

    Frames of an earlier round have lower numbers than what is not acknowledged. In what is damaged the text of a record may be
    read as a frame; it cannot pass for one, since both the length and the number of a frame hold zeros, which no text has. Zeros
    alone may pass for a frame without a record, with which no run begins therefore.
    """
    runs: list[Run] = []
    end = 0
    for offset, found in _likely(memory, capacity, number):
        if offset < end:
            continue
        run = follow(memory, capacity, offset, found)
        if run.first_record:
            runs.append(run)
            end = run.end
    in_order: list[Run] = []
    for run in sorted(runs, key=lambda each: each.first):
        # One that goes on at the start of the ring was found there as well.
        if run.first > number:
            in_order.append(run)
            number = run.last
    return in_order


def _likely(memory: mmap.mmap, capacity: int, number: int) -> Iterator[tuple[int, int]]:
    for start in range(0, capacity, len(_BLOCK)):
        block = memory[HEAD_BYTES + start : HEAD_BYTES + min(start + len(_BLOCK), capacity)]
        if block == _BLOCK:
            continue
        for word, (found,) in enumerate(_NUMBER.iter_unpack(block)):
            if 0 < found - number < _TOO_FAR and start + word:
                yield start + (word - 1) * _NUMBER.size, found
