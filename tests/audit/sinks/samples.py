"""Events to send: one of an everyday kind, and any at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from identity.audit.chain import GENESIS, ChainedEvent, chained
from identity.audit.event_types import EventType, Outcome
from identity.audit.recorded_event import RecordedEvent, ReuseEvidence

TRACE_ID, PARENT_SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_SPAN_ID}-00"  # not sampled: recorded all the same
MAX_TIME_MS = 4_102_444_800_000  # the year 2100
LAST_TIME_MS = 253_402_300_799_999  # of what can be said at all; in nanoseconds it is no fixed64


def event(sequence: int = 1, **fields: Any) -> RecordedEvent:
    """A refresh, unless told otherwise."""
    values: dict[str, Any] = {
        "event_id": f"{sequence:020x}",
        "bucket": 3,
        "sequence": sequence,
        "time_ms": 1_790_000_000_123 + sequence,
        "type": "tokens.refreshed",
        "outcome": "success",
        "client_id": "login",
        "subject": "alice",
        "session_id": "b003-0123456789abcdef",
        "generation": 4,
        "token_id": "abcdefghijklmnop",
        "key_id": "2026-11-a",
        "method": "/grpc_identity.v1.IdentityService/Refresh",
        "audience": "orders billing",
        "scope": "orders.read orders.write",
        "ip_address": "192.0.2.7",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "device_label": "Laptop",
        "traceparent": TRACEPARENT,
    }
    return RecordedEvent(**values | fields)


def chain(count: int, **fields: Any) -> Sequence[ChainedEvent]:
    """The first events of a bucket."""
    return list(chained(GENESIS, [event(sequence, **fields) for sequence in range(1, count + 1)]))


_text = st.text(max_size=12)
_number = st.integers(0, 2**32 - 1)
_evidence = st.builds(
    ReuseEvidence,
    distance=_number,
    since_spent_ms=st.integers(-1, 2**53),
    key=st.booleans(),
    address=_text,
    user_agent=_text,
    device=_text,
)
_fields: dict[str, Any] = {
    "event_id": st.text(min_size=1, max_size=20),
    "bucket": st.integers(0, 4095),
    "sequence": st.integers(1, 2**53),
    "type": st.sampled_from([*EventType]).map(str) | st.text(min_size=1, max_size=12),
    "outcome": st.sampled_from([*Outcome]).map(str),
    "reason": _text,
    "client_id": _text,
    "subject": _text,
    "subject_is_pseudonym": st.booleans(),
    "session_id": _text,
    "generation": st.none() | _number,
    "token_id": _text,
    "key_id": _text,
    "method": _text | st.just("/a.B/C") | st.just("//a"),
    "audience": _text,
    "scope": _text,
    "ip_address": _text,
    "user_agent": _text,
    "device_label": _text,
    "traceparent": _text | st.just(TRACEPARENT),
    "detail": _text,
    "count": _number,
    "reuse": st.none() | _evidence,
    "reported_by": _text,
    "status_code": _text,
    "checkpoint": _text,
}


def _times(last_ms: int) -> dict[str, Any]:
    return dict.fromkeys(("time_ms", "occurred_at_ms", "session_expires_at_ms"), st.integers(0, last_ms))


any_event = st.builds(RecordedEvent, **(_fields | _times(MAX_TIME_MS)))
any_event_at_all = st.builds(
    RecordedEvent,
    **(_fields | _times(LAST_TIME_MS) | {"outcome": _text, "count": st.integers(-(2**70), 2**70)}),
)
"""Among them some that not every sink can say."""
