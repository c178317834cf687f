"""Files that a command is given, read: one that cannot be read, or is not what it should be, ends the command in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from identity.cli.failure import fail

STANDARD_INPUT = Path("-")


def content_of(file: Path, what: str = "") -> bytes:
    """All of it; of ``-``, what comes on standard input. ``what`` is how the message calls it."""
    if file == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        fail(f"cannot read {_named(file, what)}: {error.strerror}")


def text_of(file: Path, what: str = "") -> str:
    """As ``content_of``, of a file in UTF-8."""
    try:
        return content_of(file, what).decode()
    except UnicodeDecodeError:
        fail(f"cannot read {_named(file, what)}: it is not text")


def members_of(file: Path, what: str = "") -> Mapping[str, Any]:
    """The members of a JSON object."""
    try:
        members = json.loads(text_of(file, what))
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        fail(f"cannot read {_named(file, what)}: it is not a JSON object")
    return members


def _named(file: Path, what: str) -> str:
    return f"{what} {file}" if what else str(file)
