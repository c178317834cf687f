"""Logging of the service's own doings. Audit events do not go here; tokens and secrets never do."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

_CHATTY = ("grpc._cython.cygrpc",)
"""Loggers of libraries that would bury all else at ``DEBUG``: gRPC has a line for each look at the event loop."""


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        members: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        members |= _fields_of(record)
        if record.exc_info:
            members["exception"] = self.formatException(record.exc_info)
        return json.dumps(members)


class _ConsoleFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        # As JSON: a line break that a caller has chosen must not begin a line of the log.
        fields = "".join(f" {name}={json.dumps(value)}" for name, value in _fields_of(record).items())
        return super().formatMessage(record) + fields


def _fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """What a line has beside its message: ``extra={"fields": {...}}``."""
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def configure_logging(level: str, form: str, stream: TextIO | None = None) -> None:
    """Sends everything to standard error, or to ``stream``."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        _JsonFormatter()
        if form == "json"
        else _ConsoleFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    root = logging.getLogger()
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(root.level, logging.INFO))
