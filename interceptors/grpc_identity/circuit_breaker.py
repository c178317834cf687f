"""When to leave a peer alone that does not answer. Pure: the clock is handed in, nothing waits here.

Closed, it spaces attempts by 0.2, 0.4 ... seconds, jittered. Enough failures in a row open it: callers are to be told at once,
and one probe is let through after 1, 2, 4 ... seconds, up to a bound, until one succeeds.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from grpc_identity.clock import Clock

__all__ = ["FAILURES_TO_OPEN", "MAX_OPEN_SECONDS", "CircuitBreaker"]

FIRST_BACK_OFF_SECONDS = 0.2
FAILURES_TO_OPEN = 3
FIRST_OPEN_SECONDS = 1.0
MAX_OPEN_SECONDS = 15.0
MAX_RETRY_AFTER_SECONDS = 60.0
_MAX_EXPONENT = 10


class CircuitBreaker:
    """How long to leave a peer alone after failures.

    That there is only one probe at a time is up to the caller.
    """

    __slots__ = (
        "_failures",
        "_failures_to_open",
        "_jitter",
        "_max_open_seconds",
        "_monotonic",
        "_next_attempt_at",
    )

    def __init__(
        self,
        *,
        monotonic: Clock,
        jitter: Callable[[], float] = random.random,
        failures_to_open: int = FAILURES_TO_OPEN,
        max_open_seconds: float = MAX_OPEN_SECONDS,
    ) -> None:
        self._monotonic = monotonic
        self._jitter = jitter
        self._failures_to_open = failures_to_open
        self._max_open_seconds = max_open_seconds
        self._failures = 0
        self._next_attempt_at = monotonic()

    @property
    def is_open(self) -> bool:
        """Whether callers should be told at once that there is nothing to be had."""
        return self._failures >= self._failures_to_open

    def seconds_until_attempt(self) -> float:
        """Zero when an attempt, or the probe, may be made."""
        return max(0.0, self._next_attempt_at - self._monotonic())

    def succeeded(self) -> None:
        """The peer has answered."""
        self._failures = 0
        self._next_attempt_at = self._monotonic()

    def failed(self, *, open_now: bool = False, retry_after_seconds: float | None = None) -> None:
        """It has not; ``retry_after_seconds`` is what it asked for."""
        self._failures = max(self._failures + 1, self._failures_to_open if open_now else 0)
        exponent = min(self._failures - 1, _MAX_EXPONENT)
        delay = FIRST_BACK_OFF_SECONDS * 2**exponent
        if self.is_open:
            exponent = min(self._failures - self._failures_to_open, _MAX_EXPONENT)
            delay = min(FIRST_OPEN_SECONDS * 2**exponent, self._max_open_seconds)
        delay *= 1 - self._jitter() / 2
        if retry_after_seconds is not None:
            delay = max(delay, min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS))
        self._next_attempt_at = self._monotonic() + delay
