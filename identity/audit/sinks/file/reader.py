"""Reads what the file sink has written, in either format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from identity.audit.chain import ChainedEvent
from identity.audit.line import Line, from_line_members
from identity.audit.recorded_event import NotAnEventError
from identity.audit.sinks.file.ocsf import from_ocsf


class UnreadableLineError(ValueError):
    """A line that is no event; says which."""


@dataclass(frozen=True, slots=True)
class FileLine:
    """A line of a file, counted from 1. ``content`` is None where it is no event."""

    path: Path
    number: int
    content: Line | None


def read_lines(*paths: Path) -> Iterator[FileLine]:
    """Every line, in the order of the files and of the lines in them. One that is being written has no end yet, and is left out.

    Raises ``OSError``.
    """
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    content = parse_any_line(line)
                except NotAnEventError:
                    yield FileLine(path, number, None)
                else:
                    yield FileLine(path, number, content)


def read_events(*paths: Path) -> Iterator[ChainedEvent]:
    """The events. Raises ``UnreadableLineError`` and ``OSError``."""
    for line in read_lines(*paths):
        if line.content is None:
            raise UnreadableLineError(f"{line.path}, line {line.number}: not an audit event")
        yield line.content.event


def parse_any_line(line: bytes) -> Line:
    """The event of a line in either format. Raises ``NotAnEventError``."""
    try:
        members = json.loads(line)
    except (ValueError, RecursionError):
        raise NotAnEventError("not a line of JSON") from None
    if not isinstance(members, dict):
        raise NotAnEventError("not a JSON object")
    return from_ocsf(members) if "class_uid" in members else from_line_members(members)
