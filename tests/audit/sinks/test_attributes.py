"""Any event becomes attributes and comes back as it was: what a backend keeps is enough to check the chain."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
from audit.sinks.samples import PARENT_SPAN_ID, TRACE_ID, TRACEPARENT, any_event, chain, event
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from identity.audit.chain import GENESIS, ChainedEvent, chained
from identity.audit.recorded_event import NotAnEventError, RecordedEvent, ReuseEvidence, canonical
from identity.audit.sinks.otlp.attributes import (
    ATTRIBUTE_NAMES,
    FIELD_NAMES,
    attributes_of,
    contradictions,
    from_attributes,
)
from identity.audit.sinks.otlp.spans import encoded, from_span
from identity.audit.sinks.otlp.wire import attribute

ROOT = Path(__file__).parents[3]


def span_of(item: ChainedEvent, *, trusted: bool = True) -> Span:
    return Span.FromString(encoded(item, trusted=lambda _: trusted, with_log=False).span)


def log_of(item: ChainedEvent) -> LogRecord:
    return LogRecord.FromString(encoded(item, trusted=lambda _: True, with_log=True).log)


@given(any_event)
def test_any_event_comes_back_from_its_span_and_its_log_record(original: RecordedEvent) -> None:
    (item,) = chained(GENESIS, [original])
    for record in (span_of(item), log_of(item)):
        read = from_span(record)
        assert read == item
        assert read.canonical == canonical(original)


@given(any_event)
def test_any_event_comes_back_from_a_backend_that_keeps_only_text(original: RecordedEvent) -> None:
    (item,) = chained(GENESIS, [original])
    as_text = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in attributes_of(item)
    }
    assert from_attributes(as_text) == item


@given(st.text(min_size=1), st.text() | st.booleans() | st.integers(-(2**63), 2**63 - 1))
def test_an_attribute_is_what_protobuf_makes_of_it(name: str, value: str | int | bool) -> None:
    (parsed,) = Span.FromString(b"\x4a" + attribute(name, value)).attributes
    expected = KeyValue(key=name)
    kind = {str: "string_value", bool: "bool_value", int: "int_value"}[type(value)]
    setattr(expected.value, kind, value)
    assert parsed == expected


def test_the_table_has_every_field_of_an_event() -> None:
    assert {field.name for field in fields(RecordedEvent)} == FIELD_NAMES


def test_the_documents_list_every_attribute() -> None:
    section = (ROOT / "docs/audit.md").read_text().split("\n## Attributes\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    assert set(re.findall(r"`([a-z_.]+)`", " ".join(rows))) == ATTRIBUTE_NAMES


def test_an_attribute_that_was_changed_does_not_fit_its_link() -> None:
    (item,) = chain(1)
    altered = dict(attributes_of(item)) | {"user.id": "mallory"}
    read = from_attributes(altered)
    assert read.link == item.link
    assert read.canonical != item.canonical


@pytest.mark.parametrize(
    "missing",
    ["identity.event.id", "identity.event.sequence", "identity.event.outcome", "identity.chain.link"],
)
def test_attributes_without_what_every_event_has_are_no_event(missing: str) -> None:
    (item,) = chain(1)
    with pytest.raises(NotAnEventError):
        from_attributes({name: value for name, value in attributes_of(item) if name != missing})


def test_a_span_is_a_child_in_the_trace_of_a_trusted_caller_and_always_sampled() -> None:
    (item,) = chain(1)
    span = span_of(item)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, PARENT_SPAN_ID)
    assert span.flags & 1
    assert not span.links
    assert not span.trace_state
    assert log_of(item).trace_id.hex() == TRACE_ID
    assert log_of(item).span_id == span.span_id


def test_of_a_caller_that_is_not_trusted_it_is_a_root_with_a_link() -> None:
    (item,) = chain(1)
    span = span_of(item, trusted=False)
    assert span.trace_id.hex() != TRACE_ID
    assert not span.parent_span_id
    ((trace_id, span_id),) = [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
    assert (trace_id, span_id) == (TRACE_ID, PARENT_SPAN_ID)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        TRACEPARENT.upper(),
        f"ff-{TRACE_ID}-{PARENT_SPAN_ID}-01",
        f"00-{'0' * 32}-{PARENT_SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-{PARENT_SPAN_ID}-01\n",
        f"00-{TRACE_ID}-{PARENT_SPAN_ID}",
    ],
)
def test_what_is_no_trace_context_makes_a_root(traceparent: str) -> None:
    (item,) = chain(1, traceparent=traceparent)
    span = span_of(item)
    assert not span.parent_span_id
    assert not span.links
    assert from_span(span).event.traceparent == traceparent


def test_an_event_sent_twice_is_the_same_span_and_another_is_another() -> None:
    first, second = chain(2)
    assert span_of(first) == span_of(first)
    assert span_of(first).span_id != span_of(second).span_id


def test_two_events_of_one_id_are_two_spans() -> None:
    """Whoever names the trace, and can have an event recorded twice, does not make one replace the other."""
    first, second = chain(2, event_id="ab" * 10)
    assert span_of(first).trace_id == span_of(second).trace_id
    assert span_of(first).span_id != span_of(second).span_id


def test_times_are_those_of_the_event() -> None:
    (item,) = chain(1, time_ms=1_790_000_000_500, occurred_at_ms=1_790_000_000_123)
    span, log = span_of(item), log_of(item)
    assert span.start_time_unix_nano == span.end_time_unix_nano == 1_790_000_000_123_000_000
    assert log.time_unix_nano == 1_790_000_000_123_000_000
    assert log.observed_time_unix_nano == 1_790_000_000_500_000_000


def test_a_refusal_is_an_error_with_its_reason() -> None:
    (item,) = chain(
        1,
        type="refresh.reuse_detected",
        outcome="refused",
        reason="REFRESH_TOKEN_REUSED",
        reuse=ReuseEvidence(2, 5000, True, "other", "same", "unknown"),
    )
    span, log = span_of(item), log_of(item)
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "REFRESH_TOKEN_REUSED")
    told = dict(attributes_of(item))
    assert told["error.type"] == "REFRESH_TOKEN_REUSED"
    assert told["identity.event.severity"] == "error"
    assert told["rpc.method"] == "grpc_identity.v1.IdentityService/Refresh"
    assert (log.event_name, log.severity_text) == ("refresh.reuse_detected", "ERROR")


def test_a_pseudonym_is_never_called_an_id() -> None:
    (item,) = chained(GENESIS, [replace(event(), subject="5f1c", subject_is_pseudonym=True)])
    told = dict(attributes_of(item))
    assert told["user.hash"] == "5f1c"
    assert "user.id" not in told


@given(any_event)
def test_what_any_event_is_exported_with_contradicts_nothing(original: RecordedEvent) -> None:
    (item,) = chained(GENESIS, [original])
    told = dict(attributes_of(item))
    as_text = {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in told.items()
    }
    without_derived = {name: value for name, value in told.items() if name != "error.type"}
    for attributes in (told, as_text, without_derived, told | {"openinference.span.kind": "CHAIN"}):
        assert list(contradictions(attributes, from_attributes(attributes))) == []


@pytest.mark.parametrize(
    "added",
    [
        {"error.type": "NONE"},
        {"identity.event.severity": "info"},
        {"user.id": "mallory"},
        {"identity.event.method": "identity keys rotate"},
        {"identity.event.verified_by": "mallory"},
        {"identity.client.id": "web", "identity.reuse.key": "maybe"},
        {"identity.chain.link": "AB" * 32},
    ],
)
def test_what_is_added_beside_an_event_is_found_out(added: dict[str, str]) -> None:
    (item,) = chain(
        1,
        subject="5f1c",
        subject_is_pseudonym=True,
        outcome="refused",
        reason="REFRESH_TOKEN_REUSED",
        type="refresh.reuse_detected",
        client_id="web",
        reuse=ReuseEvidence(2, 5000, False, "other", "same", "unknown"),
    )
    attributes = dict(attributes_of(item)) | added
    name = list(added)[-1]
    assert list(contradictions(attributes, from_attributes(attributes))) == [name]


@pytest.mark.parametrize("odd", [1.9, "1.9", True, " 1", "1_0", "\u0661", None, "1e3", [1], float("inf")])
@pytest.mark.parametrize(
    "name",
    ["identity.event.sequence", "identity.event.recorded_at_ms", "identity.session.generation"],
)
def test_what_is_no_whole_number_is_no_number_of_an_event(name: str, odd: object) -> None:
    (item,) = chain(1)
    with pytest.raises(NotAnEventError):
        from_attributes(dict(attributes_of(item)) | {name: odd})
