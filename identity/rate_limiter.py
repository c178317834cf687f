"""A rate limiter in memory (GCRA): a burst, then one call per interval. Bounded, and exact about the wait."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class RateLimiter:
    """Counts per key. ``monotonic`` gives seconds; the least recently seen of too many keys is forgotten."""

    __slots__ = ("_arrivals", "_burst_seconds", "_interval_seconds", "_max_keys", "_monotonic")

    def __init__(
        self, *, calls: int, per_seconds: float, monotonic: Callable[[], float], max_keys: int = 10_000
    ) -> None:
        self._interval_seconds = per_seconds / calls
        self._burst_seconds = per_seconds - self._interval_seconds
        self._monotonic = monotonic
        self._max_keys = max_keys
        self._arrivals: OrderedDict[str, float] = OrderedDict()

    def spend(self, key: str) -> float:
        """Counts one call. Returns 0, or how many seconds to wait; then nothing was counted."""
        now = self._monotonic()
        arrival = max(self._arrivals.get(key, 0.0), now)
        wait = arrival - now - self._burst_seconds
        if wait > 0:
            return wait
        self._arrivals[key] = arrival + self._interval_seconds
        self._arrivals.move_to_end(key)
        if len(self._arrivals) > self._max_keys:
            self._arrivals.popitem(last=False)
        return 0.0
