"""What a client may do. Nothing is allowed by default; decisions here are pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from identity.errors import IdentityError, Reason, field_invalid
from identity.tokens.access_token import MAX_TTL_SECONDS
from identity.tokens.lifetimes import (
    MAX_REFRESH_LEEWAY_SECONDS,
    MAX_SESSION_SECONDS,
    ClientKind,
    SessionLifetime,
)

MIN_ACCESS_TOKEN_TTL_SECONDS = 60
MAX_PATTERNS = 64
MAX_PATTERN_BYTES = 128


class Grant(StrEnum):
    """One thing a client may do; the same names as in the proto."""

    ISSUE = "ISSUE"
    CLIENT_CREDENTIALS = "CLIENT_CREDENTIALS"
    REFRESH = "REFRESH"
    REVOKE = "REVOKE"
    INTROSPECT = "INTROSPECT"
    LIST_SESSIONS = "LIST_SESSIONS"
    EXCHANGE = "EXCHANGE"
    ERASE = "ERASE"
    ADMIN = "ADMIN"
    VERIFY = "VERIFY"
    REPORT_USAGE = "REPORT_USAGE"


MAX_SESSIONS_PER_SUBJECT = 500


class ReusePolicy(StrEnum):
    """What happens when a spent refresh token comes back; the same names as in the proto."""

    ENFORCE = "ENFORCE"
    REPORT = "REPORT"


@dataclass(frozen=True)
class Patterns:
    """A set of names, where ``*`` stands for any run of characters and all else is literal.

    >>> Patterns(("orders", "*-test")).allows("billing-test")
    True
    >>> Patterns(()).allows("orders")
    False
    """

    patterns: tuple[str, ...] = ()

    def allows(self, name: str) -> bool:
        """Whether one of the patterns covers ``name``."""
        return name in self._literal or (self._wild is not None and self._wild.fullmatch(name) is not None)

    def first_refused(self, names: Iterable[str]) -> str | None:
        """The first of ``names`` that no pattern covers."""
        return next((name for name in names if not self.allows(name)), None)

    @cached_property
    def _literal(self) -> frozenset[str]:
        return frozenset(pattern for pattern in self.patterns if "*" not in pattern)

    @cached_property
    def _wild(self) -> re.Pattern[str] | None:
        wild = [pattern for pattern in self.patterns if "*" in pattern]
        if not wild:
            return None
        alternatives = (".*".join(re.escape(part) for part in re.split(r"\*+", text)) for text in wild)
        return re.compile("|".join(alternatives), re.DOTALL)


@dataclass(frozen=True, slots=True)
class ClientPolicy:
    """What one client may do. Lifetimes of ``None`` are the service's own."""

    grants: frozenset[Grant] = frozenset()
    subjects: Patterns = Patterns()
    audiences: Patterns = Patterns()
    scopes: Patterns = Patterns()
    roles: Patterns = Patterns()
    access_token_ttl_seconds: int | None = None
    web_session_ttl_seconds: int | None = None
    mobile_session_ttl_seconds: int | None = None
    session_idle_ttl_seconds: int | None = None
    refresh_leeway_seconds: int | None = None
    max_sessions_per_subject: int | None = None
    may_forward_client_context: bool = False
    calls_per_second: int = 1000
    concurrent_calls: int = 500
    reuse_policy: ReusePolicy = ReusePolicy.ENFORCE


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The service's lifetimes, where a policy names none."""

    access_token_seconds: int = 600
    web_session_seconds: int = 7 * 24 * 3600
    mobile_session_seconds: int = 30 * 24 * 3600
    session_idle_seconds: int = 48 * 3600
    refresh_leeway_seconds: int = 10
    sessions_per_subject: int = 50

    def max_sessions(self, policy: ClientPolicy) -> int:
        """How many sessions a subject may have at this client."""
        return policy.max_sessions_per_subject or self.sessions_per_subject

    def access_token(self, policy: ClientPolicy) -> int:
        """Seconds an access token of this client lives."""
        return policy.access_token_ttl_seconds or self.access_token_seconds

    def session(self, policy: ClientPolicy, kind: ClientKind) -> SessionLifetime:
        """Absolute and idle lifetime of a new session of this client."""
        match kind:
            case ClientKind.WEB:
                absolute = policy.web_session_ttl_seconds or self.web_session_seconds
            case ClientKind.MOBILE:
                absolute = policy.mobile_session_ttl_seconds or self.mobile_session_seconds
        idle = policy.session_idle_ttl_seconds or self.session_idle_seconds
        return SessionLifetime(absolute, min(idle, absolute))

    def refresh_leeway(self, policy: ClientPolicy) -> int:
        """Seconds in which a spent token still gets the same answer, for callers without keys."""
        if policy.refresh_leeway_seconds is None:
            return self.refresh_leeway_seconds
        return policy.refresh_leeway_seconds


def validated(policy: ClientPolicy) -> ClientPolicy:
    """The policy, or ``FIELD_INVALID`` naming the first field that cannot be accepted."""
    for field in ("subjects", "audiences", "scopes", "roles"):
        patterns: Patterns = getattr(policy, field)
        _check_patterns(f"policy.{field}", patterns.patterns)
    for field, value, low, high in (
        ("access_token_ttl", policy.access_token_ttl_seconds, MIN_ACCESS_TOKEN_TTL_SECONDS, MAX_TTL_SECONDS),
        ("web_session_ttl", policy.web_session_ttl_seconds, MIN_ACCESS_TOKEN_TTL_SECONDS, MAX_SESSION_SECONDS),
        ("mobile_session_ttl", policy.mobile_session_ttl_seconds, MIN_ACCESS_TOKEN_TTL_SECONDS, MAX_SESSION_SECONDS),
        ("session_idle_ttl", policy.session_idle_ttl_seconds, MIN_ACCESS_TOKEN_TTL_SECONDS, MAX_SESSION_SECONDS),
        ("refresh_leeway", policy.refresh_leeway_seconds, 0, MAX_REFRESH_LEEWAY_SECONDS),
        ("max_sessions_per_subject", policy.max_sessions_per_subject, 1, MAX_SESSIONS_PER_SUBJECT),
        ("calls_per_second", policy.calls_per_second, 1, 1_000_000),
        ("concurrent_calls", policy.concurrent_calls, 1, 100_000),
    ):  # fmt: skip
        if value is not None and not low <= value <= high:
            raise field_invalid(
                f"policy.{field}", f"must be between {low} and {high} (seconds where a duration)"
            )
    return policy


def require_grant(policy: ClientPolicy, grant: Grant) -> None:
    """Raises ``GRANT_MISSING`` unless the policy has the grant."""
    if grant not in policy.grants:
        raise IdentityError(
            Reason.GRANT_MISSING,
            f"This client has no grant {grant}; an administrator can add it to its policy.",
        )


def require_subject(policy: ClientPolicy, subject: str) -> None:
    """Raises ``SUBJECT_NOT_ALLOWED`` unless the client may act for ``subject``."""
    if not policy.subjects.allows(subject):
        raise IdentityError(Reason.SUBJECT_NOT_ALLOWED, "This client may not act for that subject.")


def require_request(
    policy: ClientPolicy, audience: Sequence[str], scopes: Sequence[str], roles: Sequence[str]
) -> None:
    """Raises ``AUDIENCE_``, ``SCOPE_`` or ``ROLE_NOT_ALLOWED`` for the first name the policy does not cover."""
    for reason, what, patterns, names in (
        (Reason.AUDIENCE_NOT_ALLOWED, "audience", policy.audiences, audience),
        (Reason.SCOPE_NOT_ALLOWED, "scope", policy.scopes, scopes),
        (Reason.ROLE_NOT_ALLOWED, "role", policy.roles, roles),
    ):
        refused = patterns.first_refused(names)
        if refused is not None:
            raise IdentityError(reason, f"This client's policy does not cover the {what} {refused!r}.")


def _check_patterns(field: str, patterns: Sequence[str]) -> None:
    if len(patterns) > MAX_PATTERNS:
        raise field_invalid(field, f"at most {MAX_PATTERNS} patterns")
    for pattern in patterns:
        if (
            not pattern
            or len(pattern.encode()) > MAX_PATTERN_BYTES
            or not pattern.isprintable()
            or " " in pattern
        ):
            raise field_invalid(field, f"a pattern has 1 to {MAX_PATTERN_BYTES} printable bytes and no space")
