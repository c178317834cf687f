"""Exported events whose digest does not give their link: each was altered, and what it says of itself is not believed.

Where it stood shows in its neighbours: the link of the event before it is its ``previous``, and its ``link`` is the
``previous`` of the event after it. One of its members, of these two included, may be the altered one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from identity.audit.chain import link_after

MAX_SUSPECTS = 10_000
MAX_OUTCOMES = 64
"""Links that may come next; more are only possible where many altered events stand side by side."""


@dataclass(slots=True, eq=False)
class Suspect:
    """``stands_at``: bucket and sequence of its place in the chain, where that was found."""

    sink: str
    bucket: int
    sequence: int
    event_id: str
    time_ms: int
    digest: bytes
    previous: bytes
    link: bytes
    source: int
    line: int
    stands_at: tuple[int, int] | None = None

    def outcomes(self) -> set[bytes]:
        """The links that an event after it can have been made with, if it follows what it says, or says what it should give.

        What stands before it is then in none of them, and proved by nothing that comes after.
        """
        return {self.link, link_after(self.previous, self.digest)}


@dataclass(slots=True)
class Suspects:
    """Those of one sink; the first ``MAX_SUSPECTS``, the rest only counted."""

    more: int = 0
    _by_place: dict[tuple[int, int], list[Suspect]] = field(default_factory=dict)
    _by_previous: dict[bytes, list[Suspect]] = field(default_factory=dict)
    _all: list[Suspect] = field(default_factory=list)
    _known: set[tuple[str, bytes, bytes, bytes]] = field(default_factory=set)

    def add(self, suspect: Suspect) -> bool:
        """``False``: the very same has been there before."""
        identity = (suspect.event_id, suspect.digest, suspect.previous, suspect.link)
        if identity in self._known:
            return False
        if len(self._all) >= MAX_SUSPECTS:
            self.more += 1
            return True
        self._known.add(identity)
        self._all.append(suspect)
        self._by_place.setdefault((suspect.bucket, suspect.sequence), []).append(suspect)
        self._by_previous.setdefault(suspect.previous, []).append(suspect)
        return True

    def __iter__(self) -> Iterator[Suspect]:
        return iter(self._all)

    def lift(self) -> None:
        """Forgets where they stand, for another walk."""
        for suspect in self._all:
            suspect.stands_at = None

    @property
    def buckets(self) -> set[int]:
        """Those they say they are of."""
        return {suspect.bucket for suspect in self._all}

    def at(self, bucket: int, sequence: int) -> Sequence[Suspect]:
        """Those that say they stand there."""
        found = self._by_place.get((bucket, sequence), ())
        return [suspect for suspect in found if suspect.stands_at in {None, (bucket, sequence)}]

    def between(self, bucket: int, first: int, last: int) -> Sequence[int]:
        """The sequence numbers that some claim there."""
        if last - first < len(self._by_place):
            return [number for number in range(first, last + 1) if self.at(bucket, number)]
        return sorted(
            number
            for other, number in self._by_place
            if other == bucket and first <= number <= last and self.at(bucket, number)
        )

    def after(self, links: Collection[bytes]) -> Suspect | None:
        """One that follows one of these links and has no place yet."""
        for link in links:
            for suspect in self._by_previous.get(link, ()):
                if suspect.stands_at is None:
                    return suspect
        return None
