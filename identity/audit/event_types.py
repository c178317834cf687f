"""What may be recorded: the closed set of event types, how each may end, and how much it asks for attention.

docs/audit.md has the same list, for people; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class EventType(StrEnum):
    """What was attempted or happened."""

    TOKENS_ISSUED = "tokens.issued"
    TOKENS_REISSUED = "tokens.reissued"
    SERVICE_TOKEN_ISSUED = "service_token.issued"  # noqa: S105 - a name, not a token
    TOKEN_EXCHANGED = "token.exchanged"  # noqa: S105
    TOKENS_REFRESHED = "tokens.refreshed"
    REFRESH_RETRY_ANSWERED = "refresh.retry_answered"
    REFRESH_REFUSED = "refresh.refused"
    REUSE_DETECTED = "refresh.reuse_detected"
    WRONG_CLIENT = "refresh.wrong_client"
    FAMILY_RECOVERED = "family.recovered"
    TOKEN_REVOKED = "token.revoked"  # noqa: S105
    SESSION_REVOKED = "session.revoked"
    SUBJECT_REVOKED = "subject.revoked"
    SUBJECT_ACCESS_TOKENS_REVOKED = "subject.access_tokens_revoked"
    OTHER_SESSIONS_REVOKED = "subject.other_sessions_revoked"
    SUBJECT_CLAIMS_CHANGED = "subject.claims_changed"
    SUBJECT_ERASED = "subject.erased"
    CLIENT_REVOKED = "client.revoked"
    REVOCATION_OF_UNKNOWN = "revocation.of_unknown"
    REVOCATION_REFUSED = "revocation.refused"
    CLIENT_AUTHENTICATION_FAILED = "client.authentication_failed"
    REQUEST_REFUSED = "request.refused"
    CLIENT_CREATED = "client.created"
    CLIENT_UPDATED = "client.updated"
    CLIENT_DISABLED = "client.disabled"
    CLIENT_ENABLED = "client.enabled"
    CLIENT_SECRET_ROTATED = "client.secret_rotated"  # noqa: S105
    KEY_CREATED = "key.created"
    KEY_ACTIVATED = "key.activated"
    KEY_RETIRED = "key.retired"
    KEY_REMOVED = "key.removed"
    KEY_REVOKED = "key.revoked"
    KEY_NOT_TAKEN_UP = "key.not_taken_up"
    SECRET_ROTATED = "secret.rotated"  # noqa: S105
    KEYRING_RESEALED = "keyring.resealed"
    KEYRING_IMPORTED = "keyring.imported"
    TOKEN_USE_BEGUN = "token.use_begun"  # noqa: S105
    TOKEN_USED = "token.used"  # noqa: S105
    USES_LOST = "token.uses_lost"
    REFUSALS_DROPPED = "audit.refusals_dropped"
    DEAD_LETTERED = "audit.dead_lettered"
    SINK_RESUMED = "audit.sink_resumed"
    CHECKPOINT = "audit.checkpoint"


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCESS = "success"
    REFUSED = "refused"
    BEGUN = "begun"


class Severity(StrEnum):
    """How much an event asks for attention."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


CHANGES_NOTHING = frozenset(
    {
        EventType.REFRESH_REFUSED,
        EventType.REVOCATION_REFUSED,
        EventType.REQUEST_REFUSED,
        EventType.CLIENT_AUTHENTICATION_FAILED,
    }
)
"""Refusals after which all is as before. Under a flood they are counted, and may have to make room for others."""

GIVES_TOKEN = frozenset(
    {
        EventType.TOKENS_ISSUED,
        EventType.TOKENS_REISSUED,
        EventType.SERVICE_TOKEN_ISSUED,
        EventType.TOKEN_EXCHANGED,
        EventType.TOKENS_REFRESHED,
        EventType.REFRESH_RETRY_ANSWERED,
        EventType.FAMILY_RECOVERED,
    }
)
"""An access token is given, whose id follows from the event's."""

NAMES_KEY = frozenset(
    member for member in EventType if member.startswith("key.") or member is EventType.CHECKPOINT
)
"""Events about one signing key, or signed by it."""

_SEVERITIES: Mapping[str, Severity] = MappingProxyType(
    {
        EventType.REUSE_DETECTED: Severity.ERROR,
        EventType.WRONG_CLIENT: Severity.ERROR,
        EventType.REFUSALS_DROPPED: Severity.ERROR,
        EventType.DEAD_LETTERED: Severity.ERROR,
        EventType.USES_LOST: Severity.ERROR,
        EventType.FAMILY_RECOVERED: Severity.WARNING,
        EventType.SUBJECT_REVOKED: Severity.WARNING,
        EventType.SUBJECT_ERASED: Severity.WARNING,
        EventType.CLIENT_REVOKED: Severity.WARNING,
        EventType.CLIENT_DISABLED: Severity.WARNING,
        EventType.KEY_REVOKED: Severity.WARNING,
        EventType.KEY_NOT_TAKEN_UP: Severity.WARNING,
        EventType.KEYRING_IMPORTED: Severity.WARNING,
        EventType.SINK_RESUMED: Severity.WARNING,
    }
)


def severity_of(event_type: str, outcome: str) -> Severity:
    """By what the event is; any other refusal is a warning."""
    if (severity := _SEVERITIES.get(event_type)) is not None:
        return severity
    return Severity.WARNING if outcome == Outcome.REFUSED else Severity.INFO
