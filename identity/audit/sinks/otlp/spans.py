"""From an event to a span and a log record of OpenTelemetry's protocol, and back.

Each event is one finished span in the trace of the call that caused it: a child of the caller's span where the caller is trusted,
otherwise the root of a trace of its own with a link to what the caller said. Trace ids follow from the event's id, span ids from its
link in the chain, so that an event sent twice is the same span twice, and no two events are one span: nobody outside can tell or
choose a link, while who reports uses of tokens chooses what ids are made of. Times are those of the event. Sampling flags,
``tracestate`` and baggage of the caller decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from re import compile as compile_pattern
from typing import Any

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from identity.audit.chain import ChainedEvent
from identity.audit.event_types import Outcome, Severity
from identity.audit.recorded_event import RecordedEvent
from identity.audit.sinks.otlp.attributes import attributes_of, from_attributes
from identity.audit.sinks.otlp.wire import attribute, repeated, tag

# W3C Trace Context: ids of zeros are none, and neither is version ff; what later versions append does not matter.
_TRACEPARENT = compile_pattern(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?"
)
_SAMPLED = 0x01
_IS_LOCAL, _IS_REMOTE = 0x100, 0x300
_NANOSECONDS = 1_000_000
_SPAN_ATTRIBUTE = tag(Span.ATTRIBUTES_FIELD_NUMBER)
_LOG_ATTRIBUTE = tag(LogRecord.ATTRIBUTES_FIELD_NUMBER)
_SEVERITIES = {
    Severity.INFO: SeverityNumber.SEVERITY_NUMBER_INFO,
    Severity.WARNING: SeverityNumber.SEVERITY_NUMBER_WARN,
    Severity.ERROR: SeverityNumber.SEVERITY_NUMBER_ERROR,
}

TrustInTrace = Callable[[RecordedEvent], bool]


@dataclass(frozen=True, slots=True)
class EncodedEvent:
    """An event as the messages ``Span`` and ``LogRecord``, serialised; the log record is empty where none is wanted."""

    event_id: str
    span: bytes
    log: bytes


def encoded(chained: ChainedEvent, *, trusted: TrustInTrace, with_log: bool) -> EncodedEvent:
    """Both, with the same attributes and ids."""
    attributes = [attribute(name, value) for name, value in attributes_of(chained)]
    span = _span(chained, trusted)
    log = _log_record(chained.event, span).SerializeToString() if with_log else b""
    return EncodedEvent(
        chained.event.event_id,
        span.SerializeToString() + repeated(_SPAN_ATTRIBUTE, attributes),
        log + repeated(_LOG_ATTRIBUTE, attributes) if with_log else b"",
    )


def from_span(span: Span | LogRecord) -> ChainedEvent:
    """The event that a span or log record tells of. Raises ``NotAnEventError``."""
    return from_attributes(_plain(span.attributes))


def _span(chained: ChainedEvent, trusted: TrustInTrace) -> Span:
    event = chained.event
    time_ns = event.happened_at_ms * _NANOSECONDS
    span = Span(
        trace_id=sha256(event.event_id.encode()).digest()[:16],
        span_id=chained.link[:8],
        flags=_IS_LOCAL | _SAMPLED,
        name=event.type,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=time_ns,
        end_time_unix_nano=time_ns,
    )
    if event.traceparent and (caller := _TRACEPARENT.fullmatch(event.traceparent)):
        trace_id, span_id = bytes.fromhex(caller[1]), bytes.fromhex(caller[2])
        if trusted(event):
            span.trace_id, span.parent_span_id, span.flags = trace_id, span_id, _IS_REMOTE | _SAMPLED
        else:
            span.links.add(trace_id=trace_id, span_id=span_id, flags=_IS_REMOTE | _SAMPLED)
    if event.outcome == Outcome.REFUSED:
        span.status.code, span.status.message = Status.STATUS_CODE_ERROR, event.reason
    return span


def _log_record(event: RecordedEvent, span: Span) -> LogRecord:
    severity = Severity(event.severity)
    return LogRecord(
        time_unix_nano=span.start_time_unix_nano,
        observed_time_unix_nano=event.time_ms * _NANOSECONDS,
        severity_number=_SEVERITIES[severity],
        severity_text=severity.upper(),
        body=AnyValue(string_value=" ".join(filter(None, (event.type, event.outcome, event.reason)))),
        flags=_SAMPLED,
        trace_id=span.trace_id,
        span_id=span.span_id,
        event_name=event.type,
    )


def _plain(attributes: Sequence[KeyValue]) -> dict[str, Any]:
    return {
        item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value") for item in attributes
    }
