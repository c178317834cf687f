"""Exported events read back from files: lines of the file sink, or what a backend gives out as OTLP in JSON.

OTLP comes as one document, or as a document a line, as the collector's file exporter writes it; spans and log records alike. Members may
have the names of the proto's fields, and be null where nothing is set, as readers of protobuf's JSON have to accept it. What
in it is of other services is passed over. A name that ends with ``.gz`` is unpacked. One line, or document, is in memory at a time.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from identity.audit.exported import MAX_LINE_BYTES, ExportedEvent, exported, from_line
from identity.audit.recorded_event import NotAnEventError
from identity.audit.sinks.otlp.attributes import ATTRIBUTE_NAMES, contradictions, from_attributes

OTLP_SINK = "otlp"
MAX_DOCUMENT_BYTES = 512 * 1024 * 1024
_IS_EVENT = "identity.event.id"
# As the proto has them; the names before are those of JSON.
_FIELDS = {
    "resourceSpans": "resource_spans",
    "scopeSpans": "scope_spans",
    "resourceLogs": "resource_logs",
    "scopeLogs": "scope_logs",
    "logRecords": "log_records",
    "intValue": "int_value",
}
_PARTS = (("resourceSpans", "scopeSpans", "spans"), ("resourceLogs", "scopeLogs", "logRecords"))


class ReadError(Exception):
    """A file cannot be read; the message says which and why."""


class Found(NamedTuple):
    """``event``, or what is wrong with what is there. ``bytes_read``: of the file, so far.

    ``is_torn``: it is the end of a file, without an end of its line: what a crash has left, or is being written.
    ``contradicted``: names of attributes beside the event that say what it does not, or are there twice.
    """

    line: int
    event: ExportedEvent | None
    problem: str
    bytes_read: int
    is_torn: bool = False
    contradicted: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class EventFile:
    """``is_otlp``: it has OTLP in JSON. Only a file that a sink has written has an order."""

    path: Path
    is_otlp: bool = False

    def size_bytes(self) -> int:
        """As it lies there. Raises ``ReadError``."""
        try:
            return self.path.stat().st_size
        except OSError as error:
            raise ReadError(f"cannot read {self.path}: {error.strerror}") from error

    def found(self) -> Iterator[Found]:
        """What is in it; the last is what is wrong where the rest cannot be unpacked. Raises ``ReadError``."""
        line = 0
        with _opened(self.path) as (unpacked, raw):
            try:
                for found in _otlp(unpacked, raw) if self.is_otlp else _lines(unpacked, raw):
                    line = found.line
                    yield found
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                problem = f"damaged: from here on it cannot be unpacked ({error})"
                yield Found(line + 1, None, problem, raw.tell())
            except OSError as error:
                raise ReadError(f"cannot read {self.path}: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    try:
        raw = path.open("rb")
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror}") from error
    with raw:
        yield (gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw), raw  # type: ignore[misc]


def _lines(unpacked: IO[bytes], raw: IO[bytes]) -> Iterator[Found]:
    number = 0
    while line := unpacked.readline(MAX_LINE_BYTES + 2):
        number += 1
        end = line
        # Too long for an event: the rest of it is passed over, as far as it goes.
        while not end.endswith(b"\n") and (rest := unpacked.readline(MAX_LINE_BYTES + 2)):
            end = rest
        if not line.strip():
            continue
        try:
            yield Found(number, from_line(line.rstrip(b"\n")), "", raw.tell())
        except NotAnEventError as error:
            yield Found(number, None, str(error), raw.tell(), is_torn=not end.endswith(b"\n"))


def _otlp(unpacked: IO[bytes], raw: IO[bytes]) -> Iterator[Found]:
    number = 0
    while line := unpacked.readline(MAX_DOCUMENT_BYTES):
        number += 1
        if not line.strip():
            continue
        try:
            document = _json(line)
        except (ValueError, RecursionError):
            # One document over many lines.
            if number > 1:
                yield Found(number, None, "not a line of JSON", raw.tell())
                continue
            try:
                document = _json(line + unpacked.read(MAX_DOCUMENT_BYTES))
            except (ValueError, RecursionError):
                yield Found(number, None, "not a document of JSON", raw.tell())
                return
        for attributes, doubled in _attributes(document):
            yield _found(attributes, doubled, number, raw.tell())


def _json(text: bytes) -> Any:
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        # Readers do not agree on which of two counts.
        raise ValueError("a member is there twice")
    return members


def _found(attributes: Mapping[str, Any], doubled: Collection[str], number: int, bytes_read: int) -> Found:
    try:
        chained = from_attributes(attributes)
        event = exported(chained.event, chained.previous, chained.link, OTLP_SINK)
    except NotAnEventError as error:
        return Found(number, None, str(error), bytes_read)
    contradicted = sorted({*contradictions(attributes, chained), *doubled})
    return Found(number, event, "", bytes_read, contradicted=contradicted)


def _attributes(document: Any) -> Iterator[tuple[Mapping[str, Any], Collection[str]]]:
    """Those of each span and log record that is an event; and the names of ours that are there twice."""
    for outer, middle, inner in _PARTS:
        for resource in _each(document, outer):
            for scope in _each(resource, middle):
                for item in _each(scope, inner):
                    told = [
                        (str(each.get("key")), _value(each.get("value")))
                        for each in _each(item, "attributes")
                    ]
                    attributes = dict(told)
                    if _IS_EVENT in attributes:
                        yield attributes, _doubled(told, attributes)


def _doubled(told: Sequence[tuple[str, Any]], attributes: Mapping[str, Any]) -> Collection[str]:
    if len(told) == len(attributes):
        return ()
    counts = Counter(name for name, _ in told)
    return [name for name, count in counts.items() if count > 1 and name in ATTRIBUTE_NAMES]


def _each(members: Any, name: str) -> Iterator[Mapping[str, Any]]:
    found = _member(members, name) if isinstance(members, dict) else None
    if isinstance(found, list):
        yield from (item for item in found if isinstance(item, dict))


def _member(members: Mapping[str, Any], name: str) -> Any:
    return members[name] if name in members else members.get(_FIELDS.get(name, name))


def _value(value: Any) -> Any:
    if not isinstance(value, dict):
        return None
    said = [item for item in value.values() if item is not None]
    if len(said) != 1:
        # Which of them counts, readers do not agree on: none of them is what an event says.
        return said or None
    number = _member(value, "intValue")
    try:
        # Protobuf's JSON has 64-bit integers as text.
        return said[0] if number is None else int(number)
    except (TypeError, ValueError, OverflowError):
        return None
