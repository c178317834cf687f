"""How long things live, as pure arithmetic over seconds.

Bounds: an access token at most 15 minutes; a session at most 30 days, which no refresh extends
(RFC 9700, section 4.14.2); a session unused for its idle time ends before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

DAY_SECONDS = 24 * 3600
MAX_SESSION_SECONDS = 30 * DAY_SECONDS
MAX_REFRESH_LEEWAY_SECONDS = 60

# A client comes back in this part of its access token's life: late enough to be worth it, early enough for
# a retry, and spread so that a fleet started together does not refresh together.
_REFRESH_FROM, _REFRESH_TO = 0.7, 0.9


class ClientKind(StrEnum):
    """Where a session lives."""

    WEB = "web"
    MOBILE = "mobile"


@dataclass(frozen=True, slots=True)
class SessionLifetime:
    """Absolute and idle lifetime of a session."""

    absolute_seconds: int
    idle_seconds: int


def refresh_after_ms(issued_at_ms: int, access_ttl_seconds: int, spread: float) -> int:
    """When a client should refresh; ``spread`` in [0, 1) picks the place in the window."""
    part = _REFRESH_FROM + (_REFRESH_TO - _REFRESH_FROM) * spread
    return issued_at_ms + int(access_ttl_seconds * 1000 * part)


def refresh_expires_at_ms(now_ms: int, absolute_expiry_ms: int, idle_ms: int) -> int:
    """When the session ends if it is not refreshed before."""
    return min(absolute_expiry_ms, now_ms + idle_ms)
