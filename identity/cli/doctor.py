"""``identity doctor``: looks at everything the service stands on, and says how to mend what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from identity.cli.connection import read_dev_file
from identity.cli.settings import ConfigFile, Overrides, settings_of

if TYPE_CHECKING:
    from identity.config import Settings
    from identity.diagnosis import Finding


def doctor(
    config: ConfigFile = None,
    overrides: Overrides = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Look at a running `identity dev` instead.")
    ] = None,
) -> None:
    """Check configuration, store, clock and keys, and say how to mend each. Ends with 1 if anything is wrong."""
    from rich.console import Console

    from identity.diagnosis import examine

    settings = _dev_settings(data_dir) if data_dir else settings_of(config, overrides)
    findings: Sequence[Finding] = asyncio.run(examine(settings))
    console = Console()
    for finding in findings:
        mark = "[green]✓[/]" if finding.healthy else "[red]✗[/]"
        console.print(
            f"{mark} [bold]{finding.subject}[/]: {finding.message}", highlight=False, soft_wrap=True
        )
    if not all(finding.healthy for finding in findings):
        raise typer.Exit(1)


def _dev_settings(data_dir: Path) -> Settings:
    from identity.config import Settings

    known = read_dev_file(data_dir)
    sections: dict[str, object] = {
        "redis": {"url": known["redis_url"]},
        "keys": {"store": "file", "file": data_dir / "keyring.json", "kek_file": data_dir / "kek"},
    }
    return Settings.model_validate({"issuer": known["issuer"], "environment": "development"} | sections)
