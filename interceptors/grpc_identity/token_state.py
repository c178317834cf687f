"""What a client holds of an access token, and what to do next. Pure: the clocks are handed in, nothing waits here.

Rules:

- a token is renewed when 80 % of its lifetime are over, or 60 seconds before its end, or when the identity service
  said to (``refresh_after``), whichever comes first; it is handed out until 5 seconds before its end;
- it is renewed without being asked for only if it was used: an idle client keeps no session alive;
- a failed attempt is followed by another after 0.2, 0.4 ... seconds, jittered. The third failure in a row opens the
  circuit: callers are told at once, and one probe is let through after 1, 2, 4 ... 15 seconds, until one succeeds.
  A refusal that no retry changes opens it at once;
- an attempt whose answer may have been lost is repeated without being asked for: the identity service can repeat an
  answer for two minutes, and takes a later repetition for a theft;
- a token that a service has refused (``invalidate``) is not handed out again, and another is asked for at once. From
  the fourth time in a row, a token has to be 15, then 30 seconds old before that counts: a service whose clock is wrong
  refuses every token, and must not use up what the session may refresh (5 times a minute, by default). A token that
  was perhaps refused is renewed by the same rule, and handed out meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from grpc_identity.circuit_breaker import CircuitBreaker
from grpc_identity.clock import Clock
from grpc_identity.errors import SessionEndedError, TokenRefusedError, TokenSourceError, TokenUnavailableError

__all__ = ["HeldToken", "TokenState"]

RENEW_AT_FRACTION = 0.8
RENEW_AHEAD_SECONDS = 60.0
RENEW_NOT_BEFORE_FRACTION = 0.1
RENEW_JITTER_FRACTION = 0.1
UNUSABLE_AHEAD_SECONDS = 5.0
REPEAT_UNASKED_SECONDS = 150.0
SETTLED_AFTER_SECONDS = 60.0
FREE_INVALIDATIONS = 3
INVALIDATION_AGE_SECONDS = 15.0
MAX_INVALIDATION_AGE_SECONDS = 30.0
_MAX_EXPONENT = 10


@dataclass(frozen=True, slots=True)
class HeldToken:
    """An access token and how old it may get, in seconds.

    ``age_seconds`` is how old it was when it came.
    """

    text: str = field(repr=False)
    lifetime_seconds: float
    renew_after_seconds: float | None = None
    age_seconds: float = 0.0

    def usable_seconds(self) -> float:
        """Until what age it is handed out."""
        return self.lifetime_seconds - min(UNUSABLE_AHEAD_SECONDS, self.lifetime_seconds / 10)

    def renewed_seconds(self, jitter: float) -> float:
        """At what age it is renewed; ``jitter`` (0 to 1) spreads a fleet where the service has not done so."""
        ahead = min(RENEW_AHEAD_SECONDS, self.lifetime_seconds / 2)
        latest = min(self.lifetime_seconds * RENEW_AT_FRACTION, self.lifetime_seconds - ahead)
        if self.renew_after_seconds is None:
            return latest * (1 - RENEW_JITTER_FRACTION * jitter)
        return max(self.lifetime_seconds * RENEW_NOT_BEFORE_FRACTION, min(latest, self.renew_after_seconds))


class TokenState:
    """The token of one source, what became of the last attempt, and when the next one is due."""

    __slots__ = (
        "_age_at_start",
        "_ended",
        "_given_up",
        "_held",
        "_invalidated",
        "_invalidations",
        "_jitter",
        "_last_error",
        "_monotonic",
        "_monotonic_start",
        "_renewed_seconds",
        "_repeat_until",
        "_used",
        "_wall",
        "_wall_start",
        "breaker",
    )

    def __init__(self, *, monotonic: Clock, wall: Clock, jitter: Callable[[], float] = random.random) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._jitter = jitter
        self.breaker = CircuitBreaker(monotonic=monotonic, jitter=jitter)
        self._held: HeldToken | None = None
        self._monotonic_start = self._wall_start = self._age_at_start = self._renewed_seconds = 0.0
        self._used = False
        self._invalidated = False
        self._given_up = False
        self._invalidations = 0
        self._last_error: TokenSourceError | None = None
        self._ended: SessionEndedError | None = None
        self._repeat_until: float | None = None

    def age_seconds(self) -> float:
        """How old the held token is. Two clocks, because one stands still in a suspended machine and the other is set
        by people; whichever says more is believed."""
        past = max(self._monotonic() - self._monotonic_start, self._wall() - self._wall_start)
        return self._age_at_start + past

    def usable(self) -> str | None:
        """The token, if it may be handed out. Does not count as a use."""
        if self._held is None or self._invalidated or self.age_seconds() >= self._held.usable_seconds():
            return None
        return self._held.text

    def use(self) -> bool:
        """Notes that the token was handed out; says whether that is news."""
        news, self._used = not self._used, True
        return news

    def why_not(self) -> TokenSourceError | None:
        """Why waiting for a token is of no use: the session is over, or the circuit is open."""
        if self._ended is not None:
            return self._ended
        wait_seconds = self.breaker.seconds_until_attempt()
        if not self.breaker.is_open or wait_seconds <= 0 or self._last_error is None:
            return None
        if isinstance(self._last_error, TokenUnavailableError):
            return TokenUnavailableError(str(self._last_error), retry_after_seconds=wait_seconds)
        return self._last_error

    def due_in(self, *, asked: bool) -> float | None:
        """In how many seconds to attempt; ``None``: not before somebody asks. ``asked``: somebody waits for it."""
        if self._ended is not None:
            return None
        soonest = self.breaker.seconds_until_attempt()
        if asked or (self._repeat_until is not None and self._monotonic() + soonest < self._repeat_until):
            return soonest
        if self._held is None or not self._used or self._invalidated:
            return None
        age = self.age_seconds()
        if age >= self._held.lifetime_seconds:
            return None
        return max(soonest, self._renewed_seconds - age)

    def obtained(self, token: HeldToken, *, monotonic_start: float, wall_start: float) -> None:
        """A token has come; the starts are when it was asked for."""
        if not self._given_up:
            self._invalidations = 0
        self._held = token
        self._monotonic_start, self._wall_start = monotonic_start, wall_start
        self._age_at_start = token.age_seconds
        self._renewed_seconds = token.renewed_seconds(self._jitter())
        self._used = self._invalidated = self._given_up = False
        self._last_error = self._ended = self._repeat_until = None
        self.breaker.succeeded()

    def failed(self, error: TokenSourceError, *, answer_lost: bool = False) -> None:
        """None has come. ``answer_lost``: the identity service may have done what it was asked to."""
        if isinstance(error, SessionEndedError):
            self._ended, self._held, self._repeat_until = error, None, None
            return
        self._last_error = error
        self.breaker.failed(
            open_now=isinstance(error, TokenRefusedError),
            retry_after_seconds=getattr(error, "retry_after_seconds", None),
        )
        if answer_lost and self._repeat_until is None:
            self._repeat_until = self._monotonic() + REPEAT_UNASKED_SECONDS

    def invalidate(self, text: str, *, certain: bool = True) -> bool:
        """A service has refused this token; says whether it is given up. One that is not held any more is no news.

        ``certain``: else it has only perhaps been refused.
        """
        if self._held is None or self._given_up or self._held.text != text:
            return False
        age = self.age_seconds() - self._age_at_start
        if age >= SETTLED_AFTER_SECONDS:
            self._invalidations = 0
        if self._invalidations >= FREE_INVALIDATIONS:
            exponent = min(self._invalidations - FREE_INVALIDATIONS, _MAX_EXPONENT)
            if age < min(INVALIDATION_AGE_SECONDS * 2**exponent, MAX_INVALIDATION_AGE_SECONDS):
                return False
        self._invalidations += 1
        self._given_up = self._used = True
        self._invalidated = certain
        self._renewed_seconds = 0.0
        return True
