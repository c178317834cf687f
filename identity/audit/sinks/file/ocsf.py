"""Events as OCSF's class Authentication (3002), for stores that take the Open Cybersecurity Schema Framework.

The class knows logging on and off, and tickets that are requested and renewed. What is none of these (a key, a client, the audit itself)
is an activity of another kind, 99, under the name of the event type. ``raw_data`` is the canonical form, ``unmapped`` its place in the
chain: those are what is read back and verified, the rest is there to be searched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from grpc_identity._version import __version__
from identity.audit.chain import ChainedEvent
from identity.audit.event_types import EventType, Outcome, Severity
from identity.audit.line import Line, from_line_members
from identity.audit.recorded_event import NotAnEventError, RecordedEvent

SCHEMA_VERSION = "1.2.0"
CATEGORY, CLASS = 3, 3002
_OTHER = 99
_LOGON, _LOGOFF, _REQUEST, _RENEW = 1, 2, 4, 5
_ACTIVITIES: Mapping[str, int] = {
    EventType.TOKENS_ISSUED: _LOGON,
    EventType.TOKENS_REISSUED: _LOGON,
    EventType.CLIENT_AUTHENTICATION_FAILED: _LOGON,
    EventType.SESSION_REVOKED: _LOGOFF,
    EventType.SUBJECT_REVOKED: _LOGOFF,
    EventType.OTHER_SESSIONS_REVOKED: _LOGOFF,
    EventType.SUBJECT_ERASED: _LOGOFF,
    EventType.CLIENT_REVOKED: _LOGOFF,
    EventType.SERVICE_TOKEN_ISSUED: _REQUEST,
    EventType.TOKEN_EXCHANGED: _REQUEST,
    EventType.TOKENS_REFRESHED: _RENEW,
    EventType.REFRESH_RETRY_ANSWERED: _RENEW,
    EventType.REFRESH_REFUSED: _RENEW,
    EventType.REUSE_DETECTED: _RENEW,
    EventType.WRONG_CLIENT: _RENEW,
    EventType.FAMILY_RECOVERED: _RENEW,
}
_ACTIVITY_NAMES = {
    _LOGON: "Logon",
    _LOGOFF: "Logoff",
    _REQUEST: "Service Ticket Request",
    _RENEW: "Service Ticket Renew",
}
_SEVERITIES = {
    Severity.INFO: (1, "Informational"),
    Severity.WARNING: (3, "Medium"),
    Severity.ERROR: (4, "High"),
}
_STATUSES = {Outcome.SUCCESS: (1, "Success"), Outcome.REFUSED: (2, "Failure")}
_USER, _SYSTEM, _SERVICE = 1, 3, 4


def ocsf_line_of(item: ChainedEvent, sink: str) -> bytes:
    """The event as a line of JSON, without a line feed."""
    return _dumps(to_ocsf(item, sink)).encode()


def to_ocsf(item: ChainedEvent, sink: str) -> dict[str, Any]:
    """The event as an object of the class."""
    event = item.event
    activity = _ACTIVITIES.get(event.type, _OTHER)
    severity_id, severity = _SEVERITIES[Severity(event.severity)]
    status_id, status = _STATUSES.get(Outcome(event.outcome), (_OTHER, event.outcome))
    members: dict[str, Any] = {
        "activity_id": activity,
        "activity_name": _ACTIVITY_NAMES.get(activity, event.type),
        "category_uid": CATEGORY,
        "category_name": "Identity & Access Management",
        "class_uid": CLASS,
        "class_name": "Authentication",
        "type_uid": CLASS * 100 + activity,
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "time": event.happened_at_ms,
        "metadata": {
            "version": SCHEMA_VERSION,
            "product": {"name": "grpc-identity", "vendor_name": "grpc-identity", "version": __version__},
            "uid": event.event_id,
            "event_code": event.type,
            "sequence": event.sequence,
            "logged_time": event.time_ms,
        },
        "message": " ".join(filter(None, (event.type, event.outcome, event.reason))),
        "service": {"name": "grpc-identity"},
        "user": _user(event),
        "is_remote": True,
        "raw_data": item.canonical.decode(),
        "unmapped": {
            "chain": {"link": item.link.hex(), "previous": item.previous.hex()},
            "sink": sink,
        },
    }
    if event.client_id:
        members["actor"] = {"app_name": event.client_id, "app_uid": event.client_id}
    if event.session_id:
        members["session"] = {"uid": event.session_id}
        if event.session_expires_at_ms:
            members["session"]["expiration_time"] = event.session_expires_at_ms
    if event.ip_address:
        members["src_endpoint"] = {"ip": event.ip_address}
    if event.user_agent:
        members["http_request"] = {"user_agent": event.user_agent}
    if code := event.reason or event.status_code:
        members["status_code"] = code
    if event.detail:
        members["status_detail"] = event.detail
    return members


def from_ocsf(members: Mapping[str, Any]) -> Line:
    """The event of an object that was read. Raises ``NotAnEventError``."""
    try:
        raw, unmapped = json.loads(members["raw_data"]), members["unmapped"]
        return from_line_members({**raw, "chain": unmapped["chain"], "sink": unmapped["sink"]})
    except NotAnEventError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise NotAnEventError("not an audit event: its raw_data or unmapped cannot be read") from error


def _user(event: RecordedEvent) -> dict[str, Any]:
    """Whom it is about: a person, else the client, else the service itself."""
    if event.subject:
        return {"uid": event.subject, "type_id": _USER, "type": "User"}
    if event.client_id:
        return {"uid": event.client_id, "type_id": _SERVICE, "type": "Service"}
    return {"name": "grpc-identity", "type_id": _SYSTEM, "type": "System"}


_dumps = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode
