"""What a store is asked about sessions, and what it decides: the values that ``identity.store.ports`` passes.

Times are the store's own, in milliseconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from identity.audit.event import EndUser
from identity.tokens.access_token import TokenId
from identity.tokens.family import Step
from identity.tokens.family_id import FamilyId, SubjectTag, subject_tag
from identity.tokens.lifetimes import ClientKind
from identity.tokens.session_terms import SessionTerms


@dataclass(frozen=True, slots=True)
class NewFamily:
    """A session to start. ``auth_time_seconds`` is when the subject has proved who it is, where that is known."""

    family: FamilyId
    family_secret_hash: bytes = field(repr=False)
    subject: str
    terms: SessionTerms
    auth_time_seconds: int | None
    end_user: EndUser
    max_sessions: int


@dataclass(frozen=True, slots=True)
class IdempotentIssue:
    """Makes a retry of ``start_family`` find the first answer.

    ``request_digest`` tells the same request from another under the same key. ``sealed`` is what the caller
    needs to rebuild the answer, encrypted: the store keeps it for ``window_seconds`` and returns it as it is.
    """

    key_digest: bytes
    request_digest: bytes
    sealed: bytes = field(repr=False)
    window_seconds: int = 120


class StartVerdict(StrEnum):
    """What became of an attempt to start a session."""

    STARTED = "STARTED"
    REPEATED = "REPEATED"
    KEY_REUSED = "KEY_REUSED"
    CLIENT_DISABLED = "CLIENT_DISABLED"
    FAMILY_REVOKED = "FAMILY_REVOKED"
    OUTBOX_FULL = "OUTBOX_FULL"


@dataclass(frozen=True, slots=True)
class Started:
    """``sealed`` is that of the first attempt, with ``REPEATED`` only; times and sequence with these two."""

    verdict: StartVerdict
    now_ms: int = 0
    sequence: int = 0
    absolute_expiry_ms: int = 0
    sealed: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class ServiceGrant:
    """A client's token for itself was recorded, or may not be given."""

    verdict: StartVerdict
    now_ms: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class PresentedToken:
    """An access token of this service, as far as the store knows it; ``family`` is ``None`` where it belongs to no session."""

    subject: str
    family: FamilyId | None
    client_id: str
    token_id: TokenId
    expires_at_seconds: int

    @property
    def subject_tag(self) -> SubjectTag:
        """Whose token it is; decides the bucket."""
        return self.family.subject_tag if self.family else subject_tag(self.subject)


class ExchangeVerdict(StrEnum):
    """What became of an attempt to exchange a token."""

    EXCHANGED = "EXCHANGED"
    TOKEN_INVALID = "TOKEN_INVALID"  # noqa: S105 - a verdict, not a token
    CLIENT_DISABLED = "CLIENT_DISABLED"
    OUTBOX_FULL = "OUTBOX_FULL"


@dataclass(frozen=True, slots=True)
class Exchanged:
    """``sequence`` with ``EXCHANGED`` only."""

    verdict: ExchangeVerdict
    now_ms: int
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class SpendLimits:
    """Limits a spend counts against, per minute; an address limit holds where the address is known."""

    per_family: int
    address_successes: int
    address_failures: int


@dataclass(frozen=True, slots=True)
class Spend:
    """A refresh token to spend; with ``look_only`` not yet."""

    family: FamilyId
    generation: int
    family_secret_hash: bytes = field(repr=False)
    client_id: str
    idempotency_key_digest: bytes
    retry_window_ms: int
    leeway_ms: int
    scopes: tuple[str, ...]
    audience: tuple[str, ...]
    end_user: EndUser
    limits: SpendLimits
    recovery_window_ms: int
    reuse_policy: str
    look_only: bool = False


class SpendVerdict(StrEnum):
    """What became of a presented refresh token, in the order in which it is decided."""

    UNKNOWN = "UNKNOWN"
    WRONG_CLIENT = "WRONG_CLIENT"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"
    REUSED = "REUSED"
    SCOPE_EXCEEDED = "SCOPE_EXCEEDED"
    AUDIENCE_EXCEEDED = "AUDIENCE_EXCEEDED"
    RATE_LIMITED = "RATE_LIMITED"
    OUTBOX_FULL = "OUTBOX_FULL"
    ROTATED = "ROTATED"
    REPEATED = "REPEATED"
    RECOVERED = "RECOVERED"
    REPORTED = "REPORTED"


SPEND_SUCCEEDED = frozenset(
    {SpendVerdict.ROTATED, SpendVerdict.REPEATED, SpendVerdict.RECOVERED, SpendVerdict.REPORTED}
)


@dataclass(frozen=True, slots=True)
class Spent:
    """A token was spent. ``generation`` is the live one; ``roles`` (JSON) and ``private_claims`` (JSON members, each after a
    comma) are those of now. Of a look, ``sequence`` is that of the newest event."""

    verdict: SpendVerdict
    now_ms: int
    sequence: int
    generation: int
    absolute_expiry_ms: int
    subject: str
    auth_time_seconds: int | None
    roles: str
    private_claims: str
    terms: SessionTerms


@dataclass(frozen=True, slots=True)
class NotSpent:
    """A token was refused; ``retry_after_ms`` with ``RATE_LIMITED`` only."""

    verdict: SpendVerdict
    retry_after_ms: int = 0


class EndReason(StrEnum):
    """Why a session is over. The same names as in the proto; those that are stored with a family come first."""

    REUSE_DETECTED = "REUSE_DETECTED"
    WRONG_CLIENT = "WRONG_CLIENT"
    REVOKED_BY_USER = "REVOKED_BY_USER"
    REVOKED_BY_ADMIN = "REVOKED_BY_ADMIN"
    REVOKED_WITH_OTHERS = "REVOKED_WITH_OTHERS"
    SESSION_CAP = "SESSION_CAP"
    SUBJECT_DISABLED = "SUBJECT_DISABLED"
    SUBJECT_CUTOFF = "SUBJECT_CUTOFF"
    CLIENT_CUTOFF = "CLIENT_CUTOFF"
    CLIENT_DISABLED = "CLIENT_DISABLED"
    EXPIRED_IDLE = "EXPIRED_IDLE"
    EXPIRED_ABSOLUTE = "EXPIRED_ABSOLUTE"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a session ended. ``cause`` is what was said when it was revoked, ``client_id`` who did it."""

    reason: EndReason
    at_ms: int
    cause: str = ""
    client_id: str = ""


@dataclass(frozen=True, slots=True)
class Lineage:
    """A session's last steps, oldest first, and how many came before those."""

    state: FamilyState
    ending: Ending | None
    steps: tuple[Step, ...]
    earlier_steps: int


@dataclass(frozen=True, slots=True)
class Erased:
    """What was removed."""

    sessions: int
    entries: int


class RevokeVerdict(StrEnum):
    """What became of a revocation."""

    REVOKED = "REVOKED"
    ALREADY = "ALREADY"
    UNKNOWN = "UNKNOWN"
    NOT_ALLOWED = "NOT_ALLOWED"


@dataclass(frozen=True, slots=True)
class FamilyState:
    """A family, as far as Introspect and ListSessions need it. ``None`` in ``ended`` means it lives."""

    family: FamilyId
    family_secret_hash: bytes = field(repr=False)
    subject: str
    client_id: str
    client_kind: ClientKind
    generation: int
    created_ms: int
    last_used_ms: int
    absolute_expiry_ms: int
    idle_ms: int
    scope: str
    audience: str
    end_user: EndUser
    started_at_sequence: int
    ended: SpendVerdict | None
    now_ms: int
