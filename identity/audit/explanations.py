"""What events of the audit say about the audit: what a sink refused, what had to be dropped, which keys sign.

Read from ``detail``, in the one wording in which it is written::

    audit.dead_lettered      sink otlp, bucket 3, sequence 17, digest 9f86…
    audit.refusals_dropped   bucket 3: 12-19, 23
    audit.sink_resumed       sink file, bucket 3: 41-57
    key.created, key.activated, key.revoked   kid zk3l…

**Whether it counts is not decided here**: anybody who can write to a backend can write such an event there. It counts where a
checkpoint proves it (``identity.audit.trust``). What is missing is explained by a later event of the same bucket, since that is
where the store notes it; whatever else such an event says is not of the service, and left out.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from identity.audit.event_types import EventType
from identity.audit.recorded_event import RecordedEvent

_DEAD_LETTER = re.compile(r"sink ([^\s,]+), bucket (\d{1,5}), sequence (\d{1,15}), digest ([0-9a-f]{64})")
_DROPPED = re.compile(r"bucket (\d{1,5}): (\d{1,15}(?:-\d{1,15})?(?:, ?\d{1,15}(?:-\d{1,15})?)*)")
_RESUMED = re.compile(r"sink ([^\s,]+), bucket (\d{1,5}): (\d{1,15})-(\d{1,15})")
_KID = re.compile(r"kid ([A-Za-z0-9_-]{43})(?![A-Za-z0-9_-])")


class Numbers(NamedTuple):
    """Sequence numbers from ``first`` to ``last``, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"

    @property
    def size(self) -> int:
        """How many."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class RefusedBySink:
    """An event that ``sink`` will never have. Its digest stays a part of the chain."""

    sink: str
    bucket: int
    sequence: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Dropped:
    """Refusals that had to make room; sinks that had not had them never get them. ``sink``: of that one only, empty for all."""

    bucket: int
    numbers: Numbers
    sink: str = ""


@dataclass(frozen=True, slots=True)
class KeyNamed:
    """A signing key of the service, by its id. ``revoked``: it was taken away."""

    kid: str
    revoked: bool


Explanation = RefusedBySink | Dropped | KeyNamed
"""A further kind that explains numbers that a sink never had is a ``Dropped`` with the name of that sink."""


class Place(NamedTuple):
    """Where in a chain an event stands; the link tells it from others under the same number."""

    sink: str
    bucket: int
    sequence: int
    link: bytes


class Explained(NamedTuple):
    """An explanation, and the event that gives it."""

    place: Place
    says: Explanation


def explanations(event: RecordedEvent) -> Iterator[Explanation]:
    """What the event explains, if it counts; nothing for most."""
    match event.type:
        case EventType.DEAD_LETTERED:
            for sink, bucket, sequence, digest in _DEAD_LETTER.findall(event.detail):
                if int(bucket) == event.bucket and int(sequence) < event.sequence:
                    yield RefusedBySink(sink, event.bucket, int(sequence), bytes.fromhex(digest))
        case EventType.REFUSALS_DROPPED | EventType.SINK_RESUMED:
            for bucket, numbers, sink in _never_had(event):
                if bucket == event.bucket and numbers.first <= numbers.last < event.sequence:
                    yield Dropped(bucket, numbers, sink)
        case EventType.KEY_CREATED | EventType.KEY_ACTIVATED | EventType.KEY_REVOKED:
            named = _KID.search(event.detail)
            if kid := event.key_id or (named[1] if named else ""):
                yield KeyNamed(kid, event.type == EventType.KEY_REVOKED)
        case _:
            return


def _never_had(event: RecordedEvent) -> Iterator[tuple[int, Numbers, str]]:
    """Bucket, numbers and sink, as ``Dropped`` has it."""
    if event.type == EventType.SINK_RESUMED:
        for sink, bucket, first, last in _RESUMED.findall(event.detail):
            yield int(bucket), Numbers(int(first), int(last)), sink
        return
    for bucket, listed in _DROPPED.findall(event.detail):
        for item in listed.split(","):
            first, _, last = item.strip().partition("-")
            yield int(bucket), Numbers(int(first), int(last or first)), ""


def joined(numbers: Iterable[Numbers]) -> list[Numbers]:
    """The same numbers, in order, each once."""
    together: list[Numbers] = []
    for item in sorted(numbers):
        if together and item.first <= together[-1].last + 1:
            together[-1] = Numbers(together[-1].first, max(together[-1].last, item.last))
        else:
            together.append(item)
    return together


def without(numbers: Numbers, taken: Sequence[Numbers]) -> list[Numbers]:
    """What is left of ``numbers``; ``taken`` is as ``joined`` gives it."""
    left, first = [], numbers.first
    start = bisect_left(taken, numbers.first, key=lambda item: item.last)
    for item in islice(taken, start, None):
        if item.first > numbers.last:
            break
        if item.first > first:
            left.append(Numbers(first, item.first - 1))
        first = item.last + 1
    if first <= numbers.last:
        left.append(Numbers(first, numbers.last))
    return left
