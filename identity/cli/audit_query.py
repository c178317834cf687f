"""``identity audit query``: the events of a subject, a session, a client, a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from heapq import nlargest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from identity.cli.audit_files import Files, OtlpFiles, Since, Until, event_files, moment_of, progress_over
from identity.cli.connection import Json
from identity.cli.failure import fail
from identity.cli.settings import ConfigFile, Overrides, settings_of

if TYPE_CHECKING:
    from identity.audit.reading import EventFile
    from identity.audit.recorded_event import RecordedEvent
    from identity.audit.selection import Selection


def _types(incomplete: str) -> list[str]:
    from identity.audit.event_types import EventType

    return [kind.value for kind in EventType if kind.startswith(incomplete)]


def _outcomes(incomplete: str) -> list[str]:
    from identity.audit.event_types import Outcome

    return [outcome.value for outcome in Outcome if outcome.startswith(incomplete)]


Subject: TypeAlias = Annotated[str | None, typer.Option("--subject", help="Of this subject.")]
Session: TypeAlias = Annotated[
    str | None, typer.Option("--session", help="Of this session (the claim `sid`).")
]
Client: TypeAlias = Annotated[str | None, typer.Option("--client", help="Of this client, or reported by it.")]
Type: TypeAlias = Annotated[
    str | None,
    typer.Option("--type", help="Of this type; `refresh.*` is all that begin so.", autocompletion=_types),
]
OutcomeOption: TypeAlias = Annotated[
    str | None, typer.Option("--outcome", help="success, refused or begun.", autocompletion=_outcomes)
]
PseudonymKeyFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--pseudonym-key-file",
        help="The key of pseudonyms (`audit.pseudonym_key_file`); for --subject and --session.",
    ),
]


def query(
    files: Files = None,
    otlp_files: OtlpFiles = None,
    outbox: Annotated[
        bool, typer.Option("--outbox", help="Look at the events that wait in the store, too.")
    ] = False,
    subject: Subject = None,
    session: Session = None,
    client: Client = None,
    event_type: Type = None,
    outcome: OutcomeOption = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=100_000, help="The newest so many; --json prints all.")
    ] = 200,
    pseudonym_key_file: PseudonymKeyFile = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Find events: whose session was it, from where, and why did it end?

    Over files of the file sink, over what a backend has given out, and, with --outbox, over what waits in the store for its sinks:

        identity audit query audit*.jsonl --subject alice --from 2026-11-01
        identity audit query audit.jsonl --session 6Xb… --json | jq .type
        identity audit query --outbox --config identity.toml --type 'refresh.*' --outcome refused

    Each event is shown once, by time, however often and by how many sinks it was exported. Whether they are all there, and as
    they were, is for `identity audit verify` to say.
    """
    chosen = event_files(files, otlp_files)
    if not chosen and not outbox:
        raise typer.BadParameter("name at least one FILE, --otlp-json FILE, or --outbox")
    selection = selection_of(subject, session, client, event_type, outcome, since, until, pseudonym_key_file)
    found = _found(chosen, outbox=outbox, config=config, overrides=overrides, selection=selection)
    if as_json:
        _print_json(found)
    else:
        _print_table(found, limit)


def selection_of(
    subject: str | None,
    session: str | None,
    client: str | None,
    event_type: str | None,
    outcome: str | None,
    since: str | None,
    until: str | None,
    pseudonym_key_file: Path | None,
) -> Selection:
    """What the options ask for. Ends the command where one of them cannot be."""
    from identity.audit.pseudonym import PseudonymKey, PseudonymKeyError
    from identity.audit.selection import Selection

    pseudonyms = None
    if pseudonym_key_file is not None:
        try:
            pseudonyms = PseudonymKey.from_file(pseudonym_key_file)
        except PseudonymKeyError as error:
            raise typer.BadParameter(str(error), param_hint="--pseudonym-key-file") from None
    return Selection(
        subject,
        session,
        client,
        event_type,
        outcome,
        moment_of(since, "--from"),
        moment_of(until, "--to"),
        pseudonyms,
    )


def _found(
    files: Sequence[EventFile],
    *,
    outbox: bool,
    config: Path | None,
    overrides: Sequence[str] | None,
    selection: Selection,
) -> Iterator[RecordedEvent]:
    """What is asked for, each once, in the order of reading."""
    # By the id alone two could be taken for one: a use that was reported again late has the id that it had.
    seen: set[tuple[str, int, int]] = set()
    for event in _read(files, outbox=outbox, config=config, overrides=overrides):
        place = (event.event_id, event.bucket, event.sequence)
        if selection.takes(event) and place not in seen:
            seen.add(place)
            yield event


def _read(
    files: Sequence[EventFile], *, outbox: bool, config: Path | None, overrides: Sequence[str] | None
) -> Iterator[RecordedEvent]:
    from identity.audit.reading import ReadError

    unreadable = 0
    try:
        with progress_over(files) as read:
            for file in files:
                for item in read(file):
                    if item.event is None:
                        unreadable += not item.is_torn
                    else:
                        yield item.event.event
    except ReadError as error:
        fail(str(error))
    if outbox:
        yield from asyncio.run(_waiting(config, overrides))
    if unreadable:
        typer.secho(f"{unreadable} lines are no events; `identity audit verify` names them", err=True)


async def _waiting(config: Path | None, overrides: Sequence[str] | None) -> Sequence[RecordedEvent]:
    from identity.waiting_events import waiting_events

    return [event async for event in waiting_events(settings_of(config, overrides))]


def _print_json(found: Iterator[RecordedEvent]) -> None:
    from identity.cli.audit_shown import as_json

    for event in found:
        typer.echo(as_json(event))


def _print_table(found: Iterator[RecordedEvent], limit: int) -> None:
    from rich.console import Console

    from identity.cli.audit_shown import add_row, table

    count = 0

    def counted() -> Iterator[RecordedEvent]:
        nonlocal count
        for event in found:
            count += 1
            yield event

    newest = nlargest(
        limit, counted(), key=lambda event: (event.happened_at_ms, event.bucket, event.sequence)
    )
    shown = table()
    for event in reversed(newest):
        add_row(shown, event)
    Console().print(shown)
    if count > limit:
        typer.echo(f"the newest {limit} of {count}; --limit and --json show more")
    else:
        typer.echo(f"{count} events")
