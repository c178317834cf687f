"""``identity demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from identity.cli.connection import DEFAULT_DATA_DIR, basic_metadata, read_dev_file
from identity.cli.failure import fail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from identity.demo.play import Stage


def demo(
    data_dir: Annotated[
        Path, typer.Option("--data-dir", help="Folder of the `identity dev` to play against.")
    ] = DEFAULT_DATA_DIR,
) -> None:
    """Play the main job against a running `identity dev`, step by step.

    Tokens are issued, an orders service accepts and refuses, a lost answer is asked for again, a thief is caught, a
    revoked access token is refused, and the audit spans are shown. Ends with 1 if any step does not go as it must.
    """
    import asyncio

    from rich.console import Console

    from identity.demo.play import UnexpectedAnswerError, play

    console = Console()
    try:
        asyncio.run(play(stage_of(read_dev_file(data_dir)), console))
    except UnexpectedAnswerError as error:
        fail(f"the demonstration did not go as it must: {error}")
    console.print("\n[green]Every step went as it must.[/]")


def stage_of(known: Mapping[str, Any]) -> Stage:
    """Where to play, from what ``dev.json`` says."""
    from identity.demo.play import Stage

    return Stage(
        grpc_target=known["grpc_target"],
        issuer=known["issuer"],
        verifier_id=known["verifier_client_id"],
        verifier_secret=known["verifier_client_secret"],
        metadata=basic_metadata(known["client_id"], known["client_secret"]),
        spans_url=known.get("spans_url", ""),
    )
