"""What can go wrong, as one exception tree and one closed set of reasons.

::

    GrpcIdentityError
    ├── TokenError            a call is refused; says why, in a word that is stable
    │   └── NotHeldError      ... because something the decision needs is not held (yet): waiting may help
    │       ├── KeyNotHeldError          the key that a token names
    │       └── RevocationsNotHeldError  whether the token was revoked
    ├── KeyRefusedError       a JWK or a JWK set must not be used
    │   └── KeyUnsuitableError  ... because it serves another purpose; a set leaves it out and goes on
    ├── KeyFetchError         keys could not be fetched
    │   └── KeysWithdrawnError  ... because the identity service has none any more; those that are held must go
    ├── StateFeedError        revocations cannot be followed
    ├── TokenSourceError      there is no token to call with
    │   ├── TokenUnavailableError  ... at the moment: the identity service does not answer
    │   ├── TokenRefusedError      ... because the identity service refuses this client; somebody has to change something
    │   └── SessionEndedError      ... because the session is over: the person has to log in again
    ├── PlaintextError        a token would travel where everybody can read it
    ├── PolicyError           rules that contradict each other or cannot be met
    ├── UsageSpoolError       there is no place on disk to record uses of tokens
    └── NoPrincipalError      ``current_principal()`` where no caller was verified

A ``reason`` is for the caller and is API. A ``detail`` is for the log of the service; it never contains a token
or a part of one. Which gRPC status a reason becomes is decided in ``grpc_identity.transport`` alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpc_identity.jwk import KeySet
    from grpc_identity.principal import Principal

__all__ = [
    "GrpcIdentityError",
    "KeyFetchError",
    "KeyNotHeldError",
    "KeyRefusedError",
    "KeyUnsuitableError",
    "KeysWithdrawnError",
    "NoPrincipalError",
    "NotHeldError",
    "PlaintextError",
    "PolicyError",
    "Reason",
    "RevocationsNotHeldError",
    "SessionEnd",
    "SessionEndedError",
    "StateFeedError",
    "TokenError",
    "TokenRefusedError",
    "TokenSourceError",
    "TokenUnavailableError",
    "UsageSpoolError",
]


class Reason(StrEnum):
    """Why a call was refused; sent as ``google.rpc.ErrorInfo.reason``."""

    TOKEN_MISSING = "TOKEN_MISSING"  # noqa: S105 - a reason, not a token
    TOKEN_INVALID = "TOKEN_INVALID"  # noqa: S105
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105
    TOKEN_NOT_YET_VALID = "TOKEN_NOT_YET_VALID"  # noqa: S105
    TOKEN_REVOKED = "TOKEN_REVOKED"  # noqa: S105
    KEY_UNKNOWN = "KEY_UNKNOWN"
    ISSUER_MISMATCH = "ISSUER_MISMATCH"
    AUDIENCE_MISMATCH = "AUDIENCE_MISMATCH"
    SCOPE_MISSING = "SCOPE_MISSING"
    ROLE_MISSING = "ROLE_MISSING"
    CLAIM_MISSING = "CLAIM_MISSING"
    KEYS_UNAVAILABLE = "KEYS_UNAVAILABLE"
    REVOCATIONS_UNAVAILABLE = "REVOCATIONS_UNAVAILABLE"
    AUDIT_UNAVAILABLE = "AUDIT_UNAVAILABLE"
    VERIFIER_FAILED = "VERIFIER_FAILED"


class GrpcIdentityError(Exception):
    """The root of the tree."""


class TokenError(GrpcIdentityError):
    """A call is refused. ``attempted_subject`` is whom the token names, where it was readable; not to be believed.
    ``principal`` is there where the token was good, and the rule of the method asks for more.

    >>> error = TokenError(Reason.TOKEN_EXPIRED, "expired 40 seconds ago")
    >>> error.reason
    <Reason.TOKEN_EXPIRED: 'TOKEN_EXPIRED'>
    """

    def __init__(self, reason: Reason, detail: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        self.attempted_subject: str | None = None
        self.principal: Principal | None = None


class NotHeldError(TokenError):
    """Something that the decision needs is not held; ``issuer`` is who can be asked for it."""

    def __init__(
        self, reason: Reason, detail: str, *, issuer: str, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(reason, detail, retry_after_seconds=retry_after_seconds)
        self.issuer = issuer


class KeyNotHeldError(NotHeldError):
    """The key that a token names is not held; ``key_set`` is what was held instead, if anything."""

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        issuer: str,
        key_set: KeySet | None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(reason, detail, issuer=issuer, retry_after_seconds=retry_after_seconds)
        self.key_set = key_set


class RevocationsNotHeldError(NotHeldError):
    """Nothing has been heard of revocations for too long, and the issuer was not asked about this token yet."""


class KeyRefusedError(GrpcIdentityError, ValueError):
    """A JWK, or a set of them, must not be used to verify anything."""


class KeyUnsuitableError(KeyRefusedError):
    """A JWK is sound but for another purpose: another algorithm, another curve, encryption."""


class KeyFetchError(GrpcIdentityError):
    """Keys could not be fetched; the message says from where and why."""


class KeysWithdrawnError(KeyFetchError):
    """The identity service has said that none of its keys is good any more, and has no other yet."""


class StateFeedError(GrpcIdentityError):
    """Keys and revocations cannot be followed; the message says from where and why."""


class TokenSourceError(GrpcIdentityError):
    """There is no access token to call with."""


class TokenUnavailableError(TokenSourceError):
    """The identity service does not answer; ``retry_after_seconds`` is when it is asked again."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class TokenRefusedError(TokenSourceError):
    """The identity service has refused; ``reason`` is its ``ErrorInfo`` reason, empty where it gave none."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SessionEnd(StrEnum):
    """Why a session is over; the reasons of the identity service that no retry can change."""

    FAMILY_REVOKED = "FAMILY_REVOKED"
    REFRESH_TOKEN_REUSED = "REFRESH_TOKEN_REUSED"  # noqa: S105 - a reason, not a token
    REFRESH_TOKEN_EXPIRED = "REFRESH_TOKEN_EXPIRED"  # noqa: S105
    REFRESH_TOKEN_INVALID = "REFRESH_TOKEN_INVALID"  # noqa: S105
    SUBJECT_DISABLED = "SUBJECT_DISABLED"


class SessionEndedError(TokenSourceError):
    """The session is over: log in again. ``session_id`` is empty where it is not known."""

    def __init__(self, reason: SessionEnd, *, session_id: str = "") -> None:
        super().__init__(f"the session has ended ({reason}); log in again")
        self.reason = reason
        self.session_id = session_id


class PlaintextError(GrpcIdentityError, ValueError):
    """A token would travel unencrypted; the message says what to do."""


class PolicyError(GrpcIdentityError, ValueError):
    """Rules that contradict each other, or that cannot be understood."""


class UsageSpoolError(GrpcIdentityError, OSError):
    """There is no place on disk to record uses of tokens; the message says where, and what failed."""


class NoPrincipalError(GrpcIdentityError, LookupError):
    """There is no verified caller here."""
