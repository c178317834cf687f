"""What is handed in to be recorded: an event, and the circumstances every event carries.

An event never contains a token or a secret. docs/audit.md lists the types and the attributes.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from identity.audit.event_types import EventType, Outcome
from identity.tokens.access_token import EVENT_ID_BYTES

__all__ = [
    "NOBODY",
    "Circumstances",
    "EndUser",
    "Event",
    "EventType",
    "Outcome",
    "new_event_id",
]


@dataclass(frozen=True, slots=True)
class EndUser:
    """The end user's side of a call, as far as the caller is believed. Empty strings: not known."""

    ip_address: str = ""
    user_agent: str = ""
    device_label: str = ""


NOBODY = EndUser()


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Who called, for whom, in which trace, by which method.

    ``audience`` and ``scope`` (by spaces) are what is granted, ``key_id`` is the key that signs it, or that the event is
    about; ``token_id`` is for events about a token that none of theirs is. ``count``: how many events this one stands for.
    ``checkpoint``: see ``identity.audit.checkpoints``. ``reported_by``, ``status_code`` and ``occurred_at_ms`` are for the
    use of a token on a server of that client, whose word they are.
    """

    client_id: str
    method: str
    end_user: EndUser = NOBODY
    traceparent: str = ""
    detail: str = ""
    key_id: str = ""
    audience: str = ""
    scope: str = ""
    token_id: str = ""
    count: int = 0
    checkpoint: str = field(default="", repr=False)
    reported_by: str = ""
    status_code: str = ""
    occurred_at_ms: int = 0

    def giving(self, key_id: str, audience: Sequence[str], scopes: Sequence[str]) -> Circumstances:
        """The same, of a call that gives a token."""
        return replace(self, key_id=key_id, audience=" ".join(audience), scope=" ".join(scopes))

    def serialised(self) -> str:
        """A JSON object with the members that are known; stored with the event as it is."""
        known = (
            ("traceparent", self.traceparent),
            ("detail", self.detail),
            ("kid", self.key_id),
            ("aud", self.audience),
            ("scope", self.scope),
            ("jti", self.token_id),
            ("count", self.count),
            ("ip", self.end_user.ip_address),
            ("ua", self.end_user.user_agent),
            ("device", self.end_user.device_label),
            ("checkpoint", self.checkpoint),
            ("by", self.reported_by),
            ("status", self.status_code),
            ("occurred", self.occurred_at_ms),
        )
        members: dict[str, str | int] = {"client": self.client_id, "method": self.method}
        members.update({name: value for name, value in known if value})
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


_dumps = json.JSONEncoder(separators=(",", ":")).encode
