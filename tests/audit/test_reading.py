"""Files of whatever content: what is no event is named, and nothing else happens."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import exported_ranges as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity.audit.exported import MAX_LINE_BYTES, from_line
from identity.audit.reading import EventFile, ReadError
from identity.audit.recorded_event import NotAnEventError
from identity.audit.sinks.otlp.attributes import attributes_of

LINE = made.checked_range(1, 1)[0]
ATTRIBUTES = dict(attributes_of(made.chain_lines([LINE])[0]))
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["\ud800", "²", "-", "9" * 5000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(json.loads(LINE))), value=ODD)
def test_a_line_with_an_odd_member_is_an_event_or_none(name: str, value: Any) -> None:
    text = json.dumps(json.loads(LINE) | {name: value}).encode()
    try:
        found = from_line(text)
    except NotAnEventError:
        return
    assert found.sink != "file" or not found.is_sound or json.loads(text) == json.loads(LINE)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(ATTRIBUTES)),
    value=ODD,
    kind=st.sampled_from(["intValue", "stringValue", "x"]),
)
def test_a_span_with_an_odd_attribute_is_an_event_or_none(
    tmp_path_factory: Any, name: str, value: Any, kind: str
) -> None:
    attributes = [
        {"key": key, "value": {"stringValue": item}} for key, item in ATTRIBUTES.items() if key != name
    ]
    attributes.append({"key": name, "value": {kind: value}})
    spans = [{"attributes": attributes}, {"attributes": value}, value]
    path = tmp_path_factory.getbasetemp() / "odd.json"
    path.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}, value]}))
    for found in EventFile(path, is_otlp=True).found():
        assert (found.event is None) == bool(found.problem)


@pytest.mark.parametrize(
    "names", [("resource_spans", "scope_spans", "spans"), ("resource_logs", "scope_logs", "log_records")]
)
def test_otlp_with_the_names_of_the_proto_and_nulls_for_what_is_not_set_is_read(
    tmp_path: Path, names: tuple[str, str, str]
) -> None:
    def value(item: Any) -> dict[str, Any]:
        number = item if isinstance(item, int) and not isinstance(item, bool) else None
        return {"bool_value": None, "int_value": number, "string_value": None if number is not None else item}

    attributes = [{"key": name, "value": value(item)} for name, item in ATTRIBUTES.items()]
    outer, middle, inner = names
    path = tmp_path / "spans.json"
    path.write_text(json.dumps({outer: [{middle: [{inner: [{"attributes": attributes}]}]}]}))
    (found,) = EventFile(path, is_otlp=True).found()
    assert found.problem == ""
    assert found.event is not None
    assert found.event.is_sound


def test_a_line_of_any_length_takes_no_more_than_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"x" * (3 * MAX_LINE_BYTES) + b"\n\n" + LINE + b"\n" + LINE[:50])
    found = list(EventFile(path).found())
    assert [(item.line, item.event is not None) for item in found] == [(1, False), (3, True), (4, False)]
    assert [item.is_torn for item in found] == [False, False, True]


@pytest.mark.parametrize("torn", [b'{"audience":"ord', b"x" * (2 * MAX_LINE_BYTES + 3), b"\0" * 4096])
def test_a_last_line_without_its_end_is_known_as_torn(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(LINE + b"\n" + torn)
    assert [(item.line, item.is_torn) for item in EventFile(path).found()] == [(1, False), (2, True)]
    path.write_bytes(LINE + b"\n" + torn + b"\n" + LINE)
    assert [(item.line, item.is_torn) for item in EventFile(path).found()] == [
        (1, False),
        (2, False),
        (3, False),
    ]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("outcome", 7, "its outcome cannot be read"),
        ("time", "noon", "its time cannot be read"),
        ("reuse", 1, "its reuse cannot be read"),
        ("time", None, "it has no time"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(name: str, value: object, said: str) -> None:
    members = {key: item for key, item in json.loads(LINE).items() if key != name}
    if value is not None:
        members[name] = value
    with pytest.raises(NotAnEventError, match=said):
        from_line(json.dumps(members).encode())


def test_what_cannot_be_unpacked_is_no_event_and_a_file_that_is_not_there_cannot_be_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.jsonl.gz"
    packed = gzip.compress(LINE * 50, mtime=0)
    for damaged in (LINE, packed[:-9], packed[:12] + b"\xff" * 40 + packed[52:], packed[:-8] + bytes(8)):
        path.write_bytes(damaged)
        *sound, last = EventFile(path).found()
        assert all(found.event for found in sound)
        assert last.event is None
        assert not last.is_torn
        assert "damaged" in last.problem
    with pytest.raises(ReadError, match="No such file"):
        list(EventFile(tmp_path / "none").found())


def test_a_place_in_the_chain_has_no_other_members() -> None:
    members = json.loads(LINE)
    members["chain"]["note"] = "x"
    with pytest.raises(NotAnEventError, match="other members"):
        from_line(json.dumps(members).encode())


def otlp_found(tmp_path: Path, attributes: list[dict[str, Any]]) -> Any:
    path = tmp_path / "spans.json"
    path.write_text(
        json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": attributes}]}]}]})
    )
    (found,) = EventFile(path, is_otlp=True).found()
    return found


def value_of(item: Any) -> dict[str, Any]:
    return {"intValue": str(item)} if isinstance(item, int) else {"stringValue": item}


GOOD_ATTRIBUTES = [{"key": name, "value": value_of(item)} for name, item in ATTRIBUTES.items()]


def test_an_attribute_that_is_there_twice_is_told_of_whichever_comes_first(tmp_path: Path) -> None:
    assert otlp_found(tmp_path, GOOD_ATTRIBUTES).contradicted == []
    second = {"key": "identity.client.id", "value": {"stringValue": "mallory"}}
    for attributes in ([second, *GOOD_ATTRIBUTES], [*GOOD_ATTRIBUTES, GOOD_ATTRIBUTES[0]]):
        found = otlp_found(tmp_path, attributes)
        assert found.contradicted == [attributes[0]["key"]]
        assert found.event.is_sound
    elsewhere = {"key": "service.version", "value": {"stringValue": "1"}}
    assert otlp_found(tmp_path, [*GOOD_ATTRIBUTES, elsewhere, elsewhere]).contradicted == []


def test_a_value_that_says_two_things_says_none(tmp_path: Path) -> None:
    client = next(item for item in GOOD_ATTRIBUTES if item["key"] == "identity.client.id")
    others = [item for item in GOOD_ATTRIBUTES if item is not client]
    for value in ({"stringValue": "web", "intValue": "1"}, {"stringValue": "web", "string_value": "mallory"}):
        found = otlp_found(tmp_path, [*others, {"key": "identity.client.id", "value": value}])
        assert found.event is None or not found.event.is_sound


def test_a_document_with_a_member_twice_is_none(tmp_path: Path) -> None:
    path = tmp_path / "spans.json"
    attributes = json.dumps(GOOD_ATTRIBUTES)
    twice = attributes.replace('{"stringValue": "web"}', '{"stringValue": "mallory", "stringValue": "web"}')
    assert twice != attributes
    path.write_text(f'{{"resourceSpans": [{{"scopeSpans": [{{"spans": [{{"attributes": {twice}}}]}}]}}]}}')
    (found,) = EventFile(path, is_otlp=True).found()
    assert found.event is None
