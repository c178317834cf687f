"""``identity config``: what is set, and what can be."""

from __future__ import annotations

from typing import Any

import typer

from identity.cli.settings import ConfigFile, Overrides, settings_of

app = typer.Typer(help="Show the settings in force, or every setting there is.", no_args_is_help=True)


@app.command()
def show(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Print the settings in force as JSON; secrets are hidden."""
    typer.echo(settings_of(config, overrides).model_dump_json(indent=2))


@app.command()
def reference() -> None:
    """Print every setting: its name, its default and what it is for."""
    from rich.console import Console
    from rich.table import Table

    from identity.config import ENV_DELIMITER, ENV_PREFIX, described_settings

    table = Table("setting", "default", "meaning", title_justify="left", show_lines=False)
    for name, info in described_settings():
        table.add_row(name, _default(info), info.description or "")
    Console().print(table)
    typer.echo(
        f'In the environment: redis.url is {ENV_PREFIX}REDIS{ENV_DELIMITER}URL. In TOML: [redis] url = "...".'
    )


def _default(info: Any) -> str:
    return "required" if info.is_required() else "" if info.default is None else str(info.default)
