"""Finds events that are further down in a file than one that follows them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple


class ChainLink(NamedTuple):
    """A sound event; ``source`` and ``line`` say where it was found, by numbers that rise in the order of reading."""

    sequence: int
    event_id: str
    time_ms: int
    previous: bytes
    link: bytes
    source: int
    line: int


class FileOrder:
    """Takes events in the order of the chain; ``ordered`` are the sources that have an order.

    One event is looked ahead: if that fits behind the one before, and the one between is behind both, then the one
    between has been moved down. Anything else that is not behind what was passed has been moved up.
    """

    def __init__(self, ordered: Collection[int]) -> None:
        self._ordered = ordered
        self._passed: dict[int, int] = {}
        self._held: ChainLink | None = None

    def after(self, event: ChainLink | None) -> Iterator[ChainLink]:
        """The events that are known to be out of order now that this one, or the end, has come."""
        held, self._held = self._held, event if event is None or event.source in self._ordered else None
        if held is None:
            return
        passed = self._passed.get(held.source, 0)
        was_moved_down = event is not None and event.source == held.source and passed < event.line < held.line
        if held.line < passed or was_moved_down:
            yield held
        else:
            self._passed[held.source] = held.line
