"""Events as people read them: a row of a table, or a line in the colour of its severity."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from identity.audit.recorded_event import RecordedEvent, canonical

MAX_CHARS = 200
_STYLES = {"info": "", "warning": "yellow", "error": "bold red"}
# What a stranger has sent must not move the cursor of who looks at it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def as_json(event: RecordedEvent) -> str:
    """The canonical form; one line, with escapes for what JSON lets pass and a terminal may obey."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", canonical(event).decode())


def as_line(event: RecordedEvent) -> Text:
    """One line."""
    told = [
        f"{name}={printable(value)}"
        for name, value in (
            ("subject", _subject(event)),
            ("session", event.session_id),
            ("client", event.client_id),
            ("reason", event.reason),
            ("method", event.method),
            ("status", event.status_code),
            ("address", event.ip_address),
            ("count", str(event.count or "")),
            ("detail", event.detail),
        )
        if value
    ]
    return Text.assemble(
        (_time(event), "dim"),
        "  ",
        (f"{event.severity:7}", _STYLES.get(event.severity, "")),
        "  ",
        (f"{printable(event.type):26}", _STYLES.get(event.severity, "")),
        f"  {printable(event.outcome):7}  ",
        "  ".join(told),
    )


def table() -> Table:
    """Without rows."""
    made = Table("time", "type", "outcome", "reason", "client", "subject", "session", "address")
    made.add_column("detail", overflow="fold")
    return made


def add_row(shown: Table, event: RecordedEvent) -> None:
    """The event as a row of ``table``."""
    values = (
        _time(event),
        event.type,
        event.outcome,
        event.reason,
        event.client_id,
        _subject(event),
        event.session_id,
        event.ip_address,
        event.detail or event.method,
    )
    shown.add_row(*(Text(printable(value)) for value in values), style=_STYLES.get(event.severity, ""))


def _subject(event: RecordedEvent) -> str:
    return f"~{event.subject[:16]}" if event.subject_is_pseudonym else event.subject


def printable(value: str, max_chars: int = MAX_CHARS) -> str:
    """As far as it can do no harm to a terminal; what is long is cut."""
    text = _CONTROL.sub("�", str(value))
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def _time(event: RecordedEvent) -> str:
    moment = datetime.fromtimestamp(event.happened_at_ms / 1000, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{event.happened_at_ms % 1000:03d}"
