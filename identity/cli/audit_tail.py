"""``identity audit tail``: events as they happen."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from identity.cli.audit_query import (
    Client,
    OutcomeOption,
    PseudonymKeyFile,
    Session,
    Subject,
    Type,
    selection_of,
)
from identity.cli.connection import Json
from identity.cli.failure import fail
from identity.cli.settings import ConfigFile, Overrides, settings_of

if TYPE_CHECKING:
    from identity.audit.recorded_event import RecordedEvent
    from identity.audit.selection import Selection

LOOK_SECONDS = 0.2


def tail(
    file: Annotated[
        Path | None, typer.Argument(help="File of the file sink; without one, the outbox of the store.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow/--once", help="Go on until Ctrl-C, or end with what is there.")
    ] = True,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=10_000, help="Begin with the last so many.")
    ] = 20,
    subject: Subject = None,
    session: Session = None,
    client: Client = None,
    event_type: Type = None,
    outcome: OutcomeOption = None,
    pseudonym_key_file: PseudonymKeyFile = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Watch events as they happen, in the colour of their severity.

        identity audit tail /var/log/identity/audit.jsonl --type 'refresh.*'
        identity audit tail --config identity.toml

    The outbox is only looked at: relays are not disturbed, and take events away as soon as every sink has them. Those that went
    by between two looks are counted. To see each one, watch the file sink. A file that is put away is followed to the
    new one of its name.
    """
    selection = selection_of(subject, session, client, event_type, outcome, None, None, pseudonym_key_file)
    printer = _Printer(selection, lines, as_json=as_json)
    try:
        if file is not None:
            _tail_file(file, printer, follow=follow)
        else:
            asyncio.run(_tail_outbox(config, overrides, printer, follow=follow))
    except KeyboardInterrupt:
        return


class _Printer:
    """Prints what is asked for: of what is there at the beginning the last ``lines``, and all that comes after."""

    def __init__(self, selection: Selection, lines: int, *, as_json: bool) -> None:
        from rich.console import Console

        self._selection = selection
        self._as_json = as_json
        self._console = Console(soft_wrap=True, highlight=False)
        self._last: deque[RecordedEvent] | None = deque(maxlen=lines)

    def take(self, event: RecordedEvent | None) -> None:
        """``None``: there are no more at the moment."""
        if event is None:
            last, self._last = self._last or (), None
            for each in last:
                self._show(each)
        elif self._selection.takes(event):
            if self._last is None:
                self._show(event)
            else:
                self._last.append(event)

    def _show(self, event: RecordedEvent) -> None:
        from identity.cli.audit_shown import as_json, as_line

        if self._as_json:
            typer.echo(as_json(event))
        else:
            self._console.print(as_line(event))

    def missed(self, bucket: int, count: int) -> None:
        typer.secho(f"({count} events of bucket {bucket} went by)", dim=True, err=True)


async def _tail_outbox(
    config: Path | None, overrides: Sequence[str] | None, printer: _Printer, *, follow: bool
) -> None:
    from identity.waiting_events import events_as_they_come

    async with aclosing(events_as_they_come(settings_of(config, overrides), printer.missed)) as events:
        async for event in events:
            printer.take(event)
            if event is None and not follow:
                return


def _tail_file(file: Path, printer: _Printer, *, follow: bool) -> None:
    from identity.audit.exported import from_line
    from identity.audit.recorded_event import NotAnEventError

    for line in _lines_of(file, follow=follow):
        try:
            printer.take(None if line is None else from_line(line).event)
        except NotAnEventError:
            # For `identity audit verify` to name.
            continue


def _lines_of(file: Path, *, follow: bool) -> Iterator[bytes | None]:
    """Whole lines; ``None`` whenever all that is there has been read."""
    from identity.audit.sinks.file.following import FollowedFile

    try:
        followed = FollowedFile(file, lambda said: typer.secho(f"({said})", dim=True, err=True))
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
    try:
        while True:
            yield from followed.new_lines()
            yield None
            if not follow:
                return
            time.sleep(LOOK_SECONDS)
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}")
    finally:
        followed.close()
