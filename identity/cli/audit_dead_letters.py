"""``identity audit dead-letters``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from identity.cli.connection import Json
from identity.cli.failure import fail
from identity.cli.settings import ConfigFile, Overrides, settings_of

if TYPE_CHECKING:
    from identity.audit.ports import KeptLetter
    from identity.audit.redelivery import Redelivery
    from identity.config import Settings


def dead_letters(
    redeliver: Annotated[
        bool,
        typer.Option(
            "--redeliver", help="Offer them to their sinks once more; those taken are forgotten here."
        ),
    ] = False,
    discard: Annotated[
        list[str] | None, typer.Option(metavar="EVENT_ID", help="Forget this one for good; may be repeated.")
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """List the audit events that a sink will never take, and what it has said of each.

    They are kept in the store until somebody sees to them. Once the cause is removed:

        identity audit dead-letters --redeliver --config identity.toml
    """
    settings = settings_of(config, overrides)
    letters, outcome = asyncio.run(_seen_to(settings, again=redeliver, discard=frozenset(discard or ())))
    if as_json:
        typer.echo(json.dumps([_row(letter) for letter in letters], indent=2))
    else:
        _print(letters)
    for each in outcome:
        said = each.problem or f"{each.delivered} delivered, {each.still_refused} still refused"
        typer.echo(f"{each.sink}: {said}", err=as_json)
    if any(each.problem or each.still_refused for each in outcome):
        fail("some are still here; the sink says why")


async def _seen_to(
    settings: Settings, *, again: bool, discard: frozenset[str]
) -> tuple[Sequence[KeptLetter], Sequence[Redelivery]]:
    from identity.audit.redelivery import redeliver
    from identity.audit_sinks import audit_sinks
    from identity.parts import StoreParts

    store = StoreParts(settings)
    try:
        letters = await store.dead_letters.letters()
        if discard:
            chosen = [letter for letter in letters if letter.letter.item.event.event_id in discard]
            if unknown := discard - {letter.letter.item.event.event_id for letter in chosen}:
                fail(f"there is no dead letter {', '.join(sorted(unknown))}")
            await store.dead_letters.remove(chosen)
            letters = [letter for letter in letters if letter not in chosen]
        if not again:
            return letters, ()
        sinks = audit_sinks(settings, "dead-letters")
        try:
            return letters, await redeliver(store.dead_letters, letters, sinks)
        finally:
            for sink in sinks:
                await sink.close()
    finally:
        await store.close()


def _print(letters: Sequence[KeptLetter]) -> None:
    from rich.console import Console

    from identity.cli.listing import Column, show

    if not letters:
        typer.echo("There are none.")
        return
    columns = (
        Column("event"),
        Column("time"),
        Column("sink"),
        Column("type"),
        Column("what it has said", folds=True),
    )
    rows = [
        [_row(letter)[name] for name in ("event_id", "time", "sink", "type", "problem")] for letter in letters
    ]
    show(Console(), columns, rows)


def _row(letter: KeptLetter) -> dict[str, str]:
    from identity.audit.recorded_event import timestamp

    event = letter.letter.item.event
    return {
        "time": timestamp(event.time_ms),
        "sink": letter.sink,
        "type": event.type,
        "event_id": event.event_id,
        "problem": letter.letter.problem,
    }
