"""How the fields of an event are called as attributes of a span or a log record; one table, read in both directions.

Names follow OpenTelemetry's semantic conventions (``rpc.*``, ``client.address``, ``user_agent.original``, ``user.*``, ``session.id``,
``error.type``); all others are ``identity.*``. Nothing is lost on the way: whoever holds the attributes of a span can make the
canonical form of its event again, and with it the chain. What is told beside that, for the comfort of those who search, is
named in ``DERIVED``; it must agree. No other attribute under these names may be there: whoever searches a backend would find what
no link covers. ``contradictions`` says where that is not so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from re import compile as compile_pattern
from typing import Any

from identity.audit.chain import ChainedEvent
from identity.audit.event_types import Outcome
from identity.audit.recorded_event import NotAnEventError, RecordedEvent, ReuseEvidence, canonical

AttributeValue = str | int | bool

# Fields without a default come first, and are there however small they are; the others where they are not empty.
_ALWAYS: Mapping[str, str] = {
    "event_id": "identity.event.id",
    "bucket": "identity.event.bucket",
    "sequence": "identity.event.sequence",
    "time_ms": "identity.event.recorded_at_ms",
    "type": "identity.event.type",
    "outcome": "identity.event.outcome",
}
_WHERE_KNOWN: Mapping[str, str] = {
    "reason": "identity.event.reason",
    "client_id": "identity.client.id",
    "session_id": "session.id",
    "session_expires_at_ms": "identity.session.expires_at_ms",
    "token_id": "identity.token.id",
    "key_id": "identity.key.id",
    "audience": "identity.token.audience",
    "scope": "identity.token.scope",
    "ip_address": "client.address",
    "user_agent": "user_agent.original",
    "device_label": "identity.device.label",
    "traceparent": "identity.event.traceparent",
    "detail": "identity.event.detail",
    "count": "identity.event.count",
    "reported_by": "identity.event.reported_by",
    "status_code": "rpc.response.status_code",
    "occurred_at_ms": "identity.event.occurred_at_ms",
    "checkpoint": "identity.audit.checkpoint",
}
_GENERATION = "identity.session.generation"
# A subject is an id, a pseudonym of one is what the conventions call a hash.
_SUBJECT, _PSEUDONYM = "user.id", "user.hash"
# The conventions have a method without the slash that gRPC puts before it; what has none is no RPC.
_RPC_METHOD, _OTHER_METHOD = "rpc.method", "identity.event.method"
_REUSE: Mapping[str, str] = {
    "distance": "identity.reuse.distance",
    "since_spent_ms": "identity.reuse.since_spent_ms",
    "key": "identity.reuse.key",
    "address": "identity.reuse.address",
    "user_agent": "identity.reuse.user_agent",
    "device": "identity.reuse.device",
}
_PREVIOUS, _LINK = "identity.chain.previous", "identity.chain.link"

DERIVED = frozenset({"identity.event.severity", "rpc.system.name", "error.type"})
"""What follows from other attributes."""

FIELD_NAMES = frozenset(
    {*_ALWAYS, *_WHERE_KNOWN, "generation", "subject", "subject_is_pseudonym", "method", "reuse"}
)
"""The fields of an event that the table knows; a test holds them equal to those there are."""

ATTRIBUTE_NAMES = frozenset(
    {
        *_ALWAYS.values(),
        *_WHERE_KNOWN.values(),
        *_REUSE.values(),
        *DERIVED,
        _GENERATION,
        _SUBJECT,
        _PSEUDONYM,
        _RPC_METHOD,
        _OTHER_METHOD,
        _PREVIOUS,
        _LINK,
    }
)
"""Every attribute that an event can have; docs/audit.md explains them."""

RESOURCE_NAMES = frozenset({"identity.audit.sink"})
"""What the resource has; some backends give that out with each span."""

_OUR_NAMES = "identity."
_WHOLE_NUMBER = compile_pattern(r"-?[0-9]{1,20}")
_INTEGERS = frozenset({"bucket", "sequence", "time_ms", "count", "occurred_at_ms", "session_expires_at_ms"})
_always_of = attrgetter(*_ALWAYS)
_where_known_of = attrgetter(*_WHERE_KNOWN)
_ALWAYS_NAMES = tuple(_ALWAYS.values())
_WHERE_KNOWN_NAMES = tuple(_WHERE_KNOWN.values())


def attributes_of(chained: ChainedEvent) -> Iterator[tuple[str, AttributeValue]]:
    """Name and value of each; none is empty that need not be there."""
    event = chained.event
    yield from zip(_ALWAYS_NAMES, _always_of(event), strict=True)
    for name, value in zip(_WHERE_KNOWN_NAMES, _where_known_of(event), strict=True):
        if value:
            yield name, value
    if event.subject_is_pseudonym:
        yield _PSEUDONYM, event.subject
    elif event.subject:
        yield _SUBJECT, event.subject
    if event.generation is not None:
        yield _GENERATION, event.generation
    if event.method.startswith("/"):
        yield _RPC_METHOD, event.method[1:]
    elif event.method:
        yield _OTHER_METHOD, event.method
    if event.reuse is not None:
        for field, name in _REUSE.items():
            yield name, getattr(event.reuse, field)
    yield _PREVIOUS, chained.previous.hex()
    yield _LINK, chained.link.hex()
    yield from derived_of(event)


def derived_of(event: RecordedEvent) -> Iterator[tuple[str, AttributeValue]]:
    """Those of ``DERIVED`` that the event has."""
    yield "identity.event.severity", event.severity
    if event.method.startswith("/"):
        yield "rpc.system.name", "grpc"
    if event.outcome == Outcome.REFUSED and event.reason:
        yield "error.type", event.reason


def from_attributes(attributes: Mapping[str, Any]) -> ChainedEvent:
    """The event that they tell of, with the place in the chain that they claim.

    Whether the link is right is for ``link_after`` to say, and whether they say more than the event for ``contradictions``. Whole numbers
    may come as text, or with a point and a zero: not every backend keeps types. Raises ``NotAnEventError``.
    """
    try:
        event = _event(attributes)
        return ChainedEvent(
            event,
            canonical(event),
            bytes.fromhex(attributes[_PREVIOUS]),
            bytes.fromhex(attributes[_LINK]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise NotAnEventError(
            f"no audit event in these attributes: {type(error).__name__} {error}"
        ) from error


def contradictions(attributes: Mapping[str, Any], chained: ChainedEvent) -> Iterator[str]:
    """Names of attributes that say otherwise than the event that was read from them, or what no event says."""
    told = dict(attributes_of(chained))
    for name in sorted(attributes):
        is_ours = name in ATTRIBUTE_NAMES or (name.startswith(_OUR_NAMES) and name not in RESOURCE_NAMES)
        if is_ours and not (name in told and _says(attributes[name], told[name])):
            yield name


def _says(found: Any, told: AttributeValue) -> bool:
    try:
        match told:
            case bool():
                return found in ((True, "true", "True") if told else (False, "false", "False"))
            case int():
                return _integer(found) == told
            case str():
                return isinstance(found, str) and found == told
    except ValueError:
        return False


def _integer(value: Any) -> int:
    """A whole number in one of the spellings of backends, and in no other that Python would read."""
    if type(value) is int or (type(value) is float and value.is_integer()):
        return int(value)
    if type(value) is str and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    raise ValueError("not a whole number")


def _event(attributes: Mapping[str, Any]) -> RecordedEvent:
    values: dict[str, Any] = {field: attributes[name] for field, name in _ALWAYS.items()}
    values |= {field: attributes[name] for field, name in _WHERE_KNOWN.items() if name in attributes}
    values = {field: _integer(value) if field in _INTEGERS else str(value) for field, value in values.items()}
    if _PSEUDONYM in attributes:
        values |= {"subject": attributes[_PSEUDONYM], "subject_is_pseudonym": True}
    elif _SUBJECT in attributes:
        values["subject"] = attributes[_SUBJECT]
    if _GENERATION in attributes:
        values["generation"] = _integer(attributes[_GENERATION])
    if _RPC_METHOD in attributes:
        values["method"] = "/" + attributes[_RPC_METHOD]
    elif _OTHER_METHOD in attributes:
        values["method"] = attributes[_OTHER_METHOD]
    if _REUSE["distance"] in attributes:
        values["reuse"] = _evidence({field: attributes.get(name) for field, name in _REUSE.items()})
    return RecordedEvent(**values)


def _evidence(values: Mapping[str, Any]) -> ReuseEvidence:
    return ReuseEvidence(
        distance=_integer(values["distance"]),
        since_spent_ms=_integer(values["since_spent_ms"] or 0),
        key=values["key"] in (True, "true", "True"),
        address=values["address"] or "",
        user_agent=values["user_agent"] or "",
        device=values["device"] or "",
    )
