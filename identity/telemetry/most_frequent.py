"""How often the most frequent of many things was seen in the last minute, in bounded memory and without naming it."""

from __future__ import annotations

from collections.abc import Callable

WINDOW_SECONDS = 60.0
MAX_COUNTED = 4096


class MostFrequent:
    """Counts by window, and tells of the last whole one and of the present one the higher.

    When ``MAX_COUNTED`` things are counted, all counts go down by one and what has none left is forgotten (Misra and Gries): whatever
    makes up more than one in ``MAX_COUNTED`` of all stays, and its count is too low by that share of all at most.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._began = monotonic()
        self._counts: dict[str, int] = {}
        self._before = 0

    def add(self, name: str) -> None:
        """It was seen once more."""
        self._turn()
        if name not in self._counts and len(self._counts) >= MAX_COUNTED:
            self._counts = {known: count - 1 for known, count in self._counts.items() if count > 1}
            return
        self._counts[name] = self._counts.get(name, 0) + 1

    def highest(self) -> int:
        """The highest count."""
        self._turn()
        return max(self._before, max(self._counts.values(), default=0))

    def _turn(self) -> None:
        windows = int((self._monotonic() - self._began) / WINDOW_SECONDS)
        if not windows:
            return
        self._before = max(self._counts.values(), default=0) if windows == 1 else 0
        self._counts = {}
        self._began += windows * WINDOW_SECONDS
