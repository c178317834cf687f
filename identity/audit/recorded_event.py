"""An event as it was recorded, and its canonical form.

The canonical form is the message ``grpc_identity.v1.AuditEvent`` as JSON (protobuf's mapping, with the names of the fields
as they are in the proto): members that are empty are left out, the others sorted by name, nothing between them, UTF-8.
Digests are made of it, and the file sink writes it; whoever holds an event, from whatever backend, can make it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from identity.audit.event_types import severity_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

T = TypeVar("T")


class NotAnEventError(ValueError):
    """A JSON object that is no event."""


@dataclass(frozen=True, slots=True)
class ReuseEvidence:
    """What speaks for a theft when a spent token comes back; see ``ReuseEvidence`` in the proto."""

    distance: int
    since_spent_ms: int
    key: bool
    address: str
    user_agent: str
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event of the outbox or of a backend; the fields are those of ``AuditEvent`` in the proto.

    ``time_ms`` is the store's clock, ``occurred_at_ms`` that of the server where a token was used; 0: the same.
    ``session_expires_at_ms``: by the store's clock; 0: nothing is said of it.
    """

    event_id: str
    bucket: int
    sequence: int
    time_ms: int
    type: str
    outcome: str
    reason: str = ""
    client_id: str = ""
    subject: str = ""
    subject_is_pseudonym: bool = False
    session_id: str = ""
    generation: int | None = None
    session_expires_at_ms: int = 0
    token_id: str = ""
    key_id: str = ""
    method: str = ""
    audience: str = ""
    scope: str = ""
    ip_address: str = ""
    user_agent: str = ""
    device_label: str = ""
    traceparent: str = ""
    detail: str = ""
    count: int = 0
    reuse: ReuseEvidence | None = None
    reported_by: str = ""
    status_code: str = ""
    occurred_at_ms: int = 0
    checkpoint: str = field(default="", repr=False)

    @property
    def severity(self) -> str:
        """How much it asks for attention."""
        return severity_of(self.type, self.outcome)

    @property
    def happened_at_ms(self) -> int:
        """When it happened, as far as is known."""
        return self.occurred_at_ms or self.time_ms


_AS_THEY_ARE = tuple(
    name
    for name in (item.name for item in fields(RecordedEvent))
    if name
    not in {
        "time_ms",
        "occurred_at_ms",
        "session_expires_at_ms",
        "outcome",
        "reuse",
        "sequence",
        "generation",
    }
)


def canonical(event: RecordedEvent) -> bytes:
    """The canonical form."""
    return _dumps(members_of(event)).encode()


def members_of(event: RecordedEvent) -> dict[str, Any]:
    """The members of its canonical form."""
    members: dict[str, Any] = {name: value for name in _AS_THEY_ARE if (value := getattr(event, name))}
    members["sequence"] = str(event.sequence)
    members["time"] = timestamp(event.time_ms)
    members["outcome"] = f"AUDIT_OUTCOME_{event.outcome.upper()}"
    members["severity"] = f"AUDIT_SEVERITY_{event.severity.upper()}"
    if event.generation is not None:
        members["generation"] = event.generation
    if event.occurred_at_ms:
        members["occurred_at"] = timestamp(event.occurred_at_ms)
    if event.session_expires_at_ms:
        members["session_expires_at"] = timestamp(event.session_expires_at_ms)
    if event.reuse is not None:
        members["reuse"] = _evidence_members(event.reuse)
    return members


def from_members(members: Any) -> RecordedEvent:
    """The event of a canonical form that was read. Raises ``NotAnEventError``."""
    if not isinstance(members, dict):
        raise NotAnEventError("not an audit event: it is no object")
    known: dict[str, Any] = {"event_id": "", "bucket": 0, "type": ""}
    known |= {name: members[name] for name in _AS_THEY_ARE if name in members}
    return RecordedEvent(
        **known,
        sequence=_member(members, "sequence", int),
        time_ms=_member(members, "time", _milliseconds),
        outcome=_member(members, "outcome", _outcome),
        generation=members.get("generation"),
        occurred_at_ms=_member_where_known(members, "occurred_at", _milliseconds) or 0,
        session_expires_at_ms=_member_where_known(members, "session_expires_at", _milliseconds) or 0,
        reuse=_member_where_known(members, "reuse", _evidence),
    )


def timestamp(time_ms: int) -> str:
    """RFC 3339 in UTC, as protobuf's JSON has it: without a fraction, or with three digits of it."""
    moment = _EPOCH + time_ms * _MILLISECOND
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{time_ms % 1000:03d}Z" if time_ms % 1000 else f"{text}Z"


def _milliseconds(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // _MILLISECOND


def _outcome(text: str) -> str:
    return text.removeprefix("AUDIT_OUTCOME_").lower()


def _member(members: dict[str, Any], name: str, parse: Callable[[Any], T]) -> T:
    if name not in members:
        raise NotAnEventError(f"not an audit event: it has no {name}")
    try:
        return parse(members[name])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise NotAnEventError(f"not an audit event: its {name} cannot be read") from error


def _member_where_known(members: dict[str, Any], name: str, parse: Callable[[Any], T]) -> T | None:
    return None if members.get(name) is None else _member(members, name, parse)


def _evidence_members(reuse: ReuseEvidence) -> dict[str, Any]:
    members: dict[str, Any] = {
        name: value
        for name in ("distance", "key", "address", "user_agent", "device")
        if (value := getattr(reuse, name))
    }
    if reuse.since_spent_ms:
        members["since_spent_ms"] = str(reuse.since_spent_ms)
    return members


def _evidence(members: Any) -> ReuseEvidence:
    return ReuseEvidence(
        distance=members.get("distance", 0),
        since_spent_ms=int(members.get("since_spent_ms", 0)),
        key=members.get("key", False),
        address=members.get("address", ""),
        user_agent=members.get("user_agent", ""),
        device=members.get("device", ""),
    )


_dumps = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode
