"""The errors of the service: one exception, one closed set of reasons.

Deciding code raises ``IdentityError``; only ``identity.rpc`` knows which gRPC status a reason becomes.
A message is for the caller: it says what was wrong and what to do, never more than the reason allows, and
never contains a token or a secret. docs/errors.md lists every reason; a test keeps the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a call was refused; stable, sent as ``google.rpc.ErrorInfo.reason``."""

    CLIENT_UNAUTHENTICATED = "CLIENT_UNAUTHENTICATED"
    CLIENT_DISABLED = "CLIENT_DISABLED"
    GRANT_MISSING = "GRANT_MISSING"
    SUBJECT_NOT_ALLOWED = "SUBJECT_NOT_ALLOWED"
    AUDIENCE_NOT_ALLOWED = "AUDIENCE_NOT_ALLOWED"
    SCOPE_NOT_ALLOWED = "SCOPE_NOT_ALLOWED"
    ROLE_NOT_ALLOWED = "ROLE_NOT_ALLOWED"
    REVOCATION_NOT_ALLOWED = "REVOCATION_NOT_ALLOWED"
    SUBJECT_DISABLED = "SUBJECT_DISABLED"
    FIELD_INVALID = "FIELD_INVALID"
    TOKEN_TOO_LARGE = "TOKEN_TOO_LARGE"  # noqa: S105 - a reason, not a token
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    REFRESH_TOKEN_INVALID = "REFRESH_TOKEN_INVALID"  # noqa: S105
    REFRESH_TOKEN_EXPIRED = "REFRESH_TOKEN_EXPIRED"  # noqa: S105
    REFRESH_TOKEN_REUSED = "REFRESH_TOKEN_REUSED"  # noqa: S105
    FAMILY_REVOKED = "FAMILY_REVOKED"
    SUBJECT_TOKEN_INVALID = "SUBJECT_TOKEN_INVALID"  # noqa: S105
    CLIENT_EXISTS = "CLIENT_EXISTS"
    CLIENT_NOT_FOUND = "CLIENT_NOT_FOUND"
    KEY_NOT_FOUND = "KEY_NOT_FOUND"
    SECRET_STILL_NEEDED = "SECRET_STILL_NEEDED"  # noqa: S105
    PREVIOUS_KEK_MISSING = "PREVIOUS_KEK_MISSING"
    KEYRING_UNAVAILABLE = "KEYRING_UNAVAILABLE"
    RATE_LIMITED = "RATE_LIMITED"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    AUDIT_UNAVAILABLE = "AUDIT_UNAVAILABLE"
    SIGNER_UNAVAILABLE = "SIGNER_UNAVAILABLE"
    CLAIMS_SOURCE_UNAVAILABLE = "CLAIMS_SOURCE_UNAVAILABLE"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that cannot be accepted, by its proto path, and what it should be."""

    field: str
    description: str


class IdentityError(Exception):
    """A refusal, with the reason the caller may know.

    ``retry_after_seconds`` is set where waiting helps. ``recorded`` says that the store has already
    written the audit event, in the same step in which it decided. ``session_id`` is for the log: which session it was about.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        violations: tuple[FieldViolation, ...] = (),
        recorded: bool = False,
        session_id: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.violations = violations
        self.recorded = recorded
        self.session_id = session_id


def no_signing_key() -> IdentityError:
    """Nothing can be issued until a key is active."""
    return IdentityError(Reason.SIGNER_UNAVAILABLE, "No signing key is active.", retry_after_seconds=5.0)


def store_unavailable() -> IdentityError:
    """The store did not answer. Whether it acted is unknown: the caller retries with the same key."""
    return IdentityError(
        Reason.STORE_UNAVAILABLE,
        "The session store is not reachable; retry with the same idempotency key.",
        retry_after_seconds=1.0,
    )


def not_durable() -> IdentityError:
    """It was done, and may be lost if the store dies now: it does not count as done."""
    return IdentityError(
        Reason.STORE_UNAVAILABLE,
        "The session store could not make this durable in time; retry with the same idempotency key.",
        retry_after_seconds=1.0,
    )


def audit_unavailable() -> IdentityError:
    """What cannot be recorded is not done."""
    return IdentityError(
        Reason.AUDIT_UNAVAILABLE,
        "The audit outbox is full, so nothing is done; nothing was changed.",
        retry_after_seconds=5.0,
        recorded=True,
    )


def field_invalid(field: str, description: str) -> IdentityError:
    """One field cannot be accepted."""
    return IdentityError(
        Reason.FIELD_INVALID,
        f"{field}: {description}",
        violations=(FieldViolation(field, description),),
    )
