"""What can happen in a history of sessions: attempts to refresh, boundaries of time, and how verdicts look from outside."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from ipaddress import IPv6Address

from hypothesis import strategies as st

DAY_MS = 24 * 3600 * 1000
SCOPES = ("orders.read", "orders.write")
AUDIENCE = ("orders", "stock")
ROLES = ("clerk",)
CLIENTS = st.sampled_from(["web", "web", "other"])
MAX_SESSIONS = 3
SESSIONS = st.integers(min_value=0, max_value=MAX_SESSIONS - 1)
JUMPS_MS = st.sampled_from([1, 1_000, 30_000, 3_600_000, 47 * 3_600_000])
# Between two refreshes; three of them are the first that the lineage needs one byte more for.
PAUSES_MS = st.sampled_from([600_000, 600_000, 0, 1_000, 256_000, 65_536_000])
# What a session can run into, and how far from it: the last millisecond before, the first at which it holds.
BOUNDARIES = st.sampled_from(
    ["leeway", "retry window", "recovery", "idle", "absolute", "budget", "failures", "successes"]
)

# Verdict: gRPC reason, event type, outcome of the event, reason of the event.
SUCCEEDED = {
    "ROTATED": "tokens.refreshed",
    "REPEATED": "refresh.retry_answered",
    "RECOVERED": "family.recovered",
    "REPORTED": "refresh.reuse_detected",
}
REFUSED = {
    "UNKNOWN": "REFRESH_TOKEN_INVALID",
    "WRONG_CLIENT": "REFRESH_TOKEN_INVALID",
    "REVOKED": "FAMILY_REVOKED",
    "EXPIRED": "REFRESH_TOKEN_EXPIRED",
    "REUSED": "REFRESH_TOKEN_REUSED",
    "SCOPE_EXCEEDED": "SCOPE_NOT_ALLOWED",
    "AUDIENCE_EXCEEDED": "AUDIENCE_NOT_ALLOWED",
    "RATE_LIMITED": "RATE_LIMITED",
}
THEFTS = {"WRONG_CLIENT": "refresh.wrong_client", "REUSED": "refresh.reuse_detected"}


@dataclass(frozen=True)
class Attempt:
    """A token of any generation: the newest that a caller holds, one that was spent, or one that was never given."""

    which: int
    behind: int
    key: str
    client: str
    scopes: tuple[str, ...]
    audience: tuple[str, ...]
    address: int | None
    wrong_secret: bool


ATTEMPTS = st.builds(
    Attempt,
    which=SESSIONS,
    behind=st.sampled_from([0] * 12 + [1] * 5 + [2, 3, -1, -64, -65]),
    key=st.sampled_from(["", "", "new", "new", "same", "same"]),
    client=st.sampled_from(["own"] * 15 + ["another"]),
    scopes=st.sampled_from([(), (), (), SCOPES[:1], SCOPES, ("bank",)]),
    audience=st.sampled_from([(), (), (), AUDIENCE[1:], AUDIENCE, ("bank",)]),
    address=st.sampled_from([None, None, 0, 1]),
    wrong_secret=st.sampled_from([False] * 15 + [True]),
)


@dataclass(frozen=True)
class Answer:
    """What a caller was told: a reason and how long to wait, or the generation it holds now."""

    reason: str = ""
    retry_after_ms: int = 0
    generation: int = -1


def compared(last_address: str, circumstances: str) -> str:
    """Whether the address of the call is that of the session's last use."""
    now = json.loads(circumstances).get("ip", "")
    if not last_address or not now:
        return "unknown"
    return "same" if last_address == now else "other"


def random_address(*, ending: int) -> str:
    """An address that nobody else has, and that ends in what might be taken for a generation."""
    return str(IPv6Address(secrets.token_bytes(14) + bytes((0, ending))))
