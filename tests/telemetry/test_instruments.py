"""The table of instruments is what the documents say, and keeps the rules that Prometheus and OpenTelemetry have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from opentelemetry.semconv._incubating.metrics import db_metrics, process_metrics, rpc_metrics

from identity.telemetry.instruments import ATTRIBUTES, INSTRUMENTS, Instrument, Kind, label_of

DOCUMENT = Path(__file__).parents[2] / "docs/telemetry.md"


def instrument_rows() -> str:
    """The table of docs/telemetry.md."""
    lines = [
        "| OpenTelemetry | Prometheus | kind, unit | attributes | where | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in INSTRUMENTS:
        attributes = ", ".join(f"`{name}`" for name in each.attributes)
        unit = f", `{each.unit}`" if each.unit else ""
        lines.append(
            f"| `{each.name}` | `{each.prometheus_name}` | {each.kind}{unit} | {attributes} | {each.where} | {each.description} |"
        )
    return "\n".join(lines)


def attribute_rows() -> str:
    """The table of attributes."""
    lines = ["| attribute | label | values |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | `{label_of(name)}` | {values} |" for name, values in ATTRIBUTES.items()]
    return "\n".join(lines)


@pytest.mark.parametrize("rows", [instrument_rows, attribute_rows])
def test_the_document_has_the_table(rows: object) -> None:
    assert callable(rows)
    assert rows() in DOCUMENT.read_text()


def test_names_are_told_apart() -> None:
    for names in ([each.name for each in INSTRUMENTS], [each.prometheus_name for each in INSTRUMENTS]):
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=lambda each: each.name)
def test_an_instrument_keeps_the_rules(instrument: Instrument) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", instrument.name)
    assert set(instrument.attributes) <= ATTRIBUTES.keys()
    assert bool(instrument.buckets) is (instrument.kind is Kind.HISTOGRAM)
    assert list(instrument.buckets) == sorted(set(instrument.buckets))
    assert instrument.unit in {"", "s", "By", "1"} or re.fullmatch(r"\{[a-z]+\}", instrument.unit)
    assert instrument.description.endswith(".")


def test_no_attribute_is_unused_or_could_be_a_person_or_a_place() -> None:
    used = {name for each in INSTRUMENTS for name in each.attributes}
    assert used == set(ATTRIBUTES)
    assert not {name for name in used if re.search(r"address|user|subject|session", name)}


def test_what_is_not_our_own_is_of_the_conventions() -> None:
    theirs = {
        value
        for module in (rpc_metrics, db_metrics, process_metrics)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str)
    }
    assert {each.name for each in INSTRUMENTS if not each.name.startswith("identity.")} <= theirs


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rpc.server.call.duration", "rpc_server_call_duration_seconds"),
        ("identity.refreshes", "identity_refreshes_total"),
        ("identity.audit.outbox.fullest", "identity_audit_outbox_fullest_ratio"),
        ("identity.audit.sink.up", "identity_audit_sink_up"),
        ("identity.session.active", "identity_session_active"),
        ("process.memory.usage", "process_memory_usage_bytes"),
        ("process.cpu.time", "process_cpu_time_seconds_total"),
    ],
)
def test_prometheus_gets_the_names_that_opentelemetry_gives(name: str, expected: str) -> None:
    (found,) = [each for each in INSTRUMENTS if each.name == name]
    assert found.prometheus_name == expected
