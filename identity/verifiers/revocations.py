"""What verifiers must refuse, in the order in which this server has learnt of it. Pure: no I/O, no clock.

An entry is forgotten once the last access token it concerns has expired. Nothing is ever taken back before: a
store that has lost writes does not bring a revoked token back to life here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice


class RevokedThing(StrEnum):
    """What an entry is about; the names are those of the store's feed."""

    SESSION = "session"
    TOKEN = "token"  # noqa: S105 - a kind, not a token
    SUBJECT = "subject"
    CLIENT = "client"


@dataclass(frozen=True, slots=True, order=True)
class FeedPlace:
    """Where an entry stands in the feed of its bucket: the event's sequence number, and a count within it."""

    sequence: int = 0
    count: int = -1


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry. For a subject or client: tokens of ``bucket`` up to ``place.sequence`` are revoked."""

    thing: RevokedThing
    name: str
    bucket: int
    place: FeedPlace
    forget_at_ms: int


class RevocationLog:
    """The entries that still matter, numbered as they came in."""

    __slots__ = ("_entries", "_first", "places")

    def __init__(self) -> None:
        self._entries: deque[Revocation] = deque()
        self._first = 1
        self.places: dict[int, FeedPlace] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def last_number(self) -> int:
        """The number of the newest entry, 0 before there is one."""
        return self._first + len(self._entries) - 1

    def add(self, revocation: Revocation) -> None:
        """Appends an entry."""
        self._entries.append(revocation)
        self.places[revocation.bucket] = revocation.place

    def after(self, number: int) -> Iterator[Revocation]:
        """What came in after the entry with this number."""
        return islice(self._entries, max(0, number + 1 - self._first), None)

    def beyond(self, places: Mapping[int, FeedPlace]) -> Sequence[Revocation]:
        """What stands after these places of the feed; for verifiers that come from another server."""
        nowhere = FeedPlace()
        return [entry for entry in self._entries if entry.place > places.get(entry.bucket, nowhere)]

    def forget(self, now_ms: int) -> None:
        """Drops what no longer matters, as far as it stands at the front."""
        while self._entries and self._entries[0].forget_at_ms < now_ms:
            self._entries.popleft()
            self._first += 1
