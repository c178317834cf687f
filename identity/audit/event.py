"""What may be recorded: the closed set of event types, and the circumstances every event carries.

An event never contains a token or a secret. docs/audit.md lists the types and the attributes.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from identity.tokens.access_token import EVENT_ID_BYTES


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


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCESS = "success"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class EndUser:
    """The end user's side of a call, as far as the caller is believed. Empty strings: not known."""

    ip_address: str = ""
    user_agent: str = ""
    device_label: str = ""

    def serialised(self) -> str:
        """A JSON object with the members that are known."""
        members = {"ip": self.ip_address, "ua": self.user_agent, "device": self.device_label}
        return json.dumps({name: value for name, value in members.items() if value}, separators=(",", ":"))


NOBODY = EndUser()


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Who called, for whom, in which trace, by which method."""

    client_id: str
    method: str
    end_user: EndUser = NOBODY
    traceparent: str = ""
    detail: str = ""

    def serialised(self) -> str:
        """A JSON object with the members that are known; stored with the event as it is."""
        members = {"client": self.client_id, "method": self.method}
        if self.traceparent:
            members["traceparent"] = self.traceparent
        if self.detail:
            members["detail"] = self.detail
        if self.end_user.ip_address:
            members["ip"] = self.end_user.ip_address
        if self.end_user.user_agent:
            members["ua"] = self.end_user.user_agent
        if self.end_user.device_label:
            members["device"] = self.end_user.device_label
        return _dumps(members)


def new_event_id() -> bytes:
    """80 random bits."""
    return secrets.token_bytes(EVENT_ID_BYTES)


@dataclass(frozen=True, slots=True)
class Event:
    """An event that goes with no change of state, on its way to the outbox."""

    type: EventType
    outcome: Outcome
    circumstances: Circumstances
    reason: str = ""
    subject: str = ""
    session_id: str = ""
    event_id: bytes = field(default_factory=new_event_id)


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """An event as it was read from the outbox.

    ``entry_id`` is its place there, opaque to all but the outbox; ``time_ms`` is the store's clock.
    """

    entry_id: str
    event_id: str
    bucket: int
    sequence: int
    time_ms: int
    type: str
    outcome: str
    reason: str
    subject: str
    session_id: str
    generation: int | None
    client_id: str
    method: str
    traceparent: str
    ip_address: str
    user_agent: str
    device_label: str
    detail: str
    evidence: Mapping[str, str | int | bool] = field(default_factory=dict)


_dumps = json.JSONEncoder(separators=(",", ":")).encode
