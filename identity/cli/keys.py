"""``identity keys``: the signing keys and their schedule."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import typer

from identity.cli.connection import DataDir, Json, read_dev_file
from identity.cli.failure import fail
from identity.cli.settings import ConfigFile, Overrides, settings_of

app = typer.Typer(help="Look at the signing keys and their schedule.", no_args_is_help=True)


@app.command("list")
def list_keys(
    config: ConfigFile = None, overrides: Overrides = None, data_dir: DataDir = None, as_json: Json = False
) -> None:
    """List the keys of the keyring: their state, and when each comes and goes.

    Reads the keyring file that the settings name, or that of `identity dev --data-dir`.
    """
    from rich.console import Console
    from rich.table import Table

    from identity.keys.file_store import FileKeyStore

    path = _keyring_of(data_dir) if data_dir else settings_of(config, overrides).keys.file
    keyring = asyncio.run(FileKeyStore(path).load())
    if keyring is None:
        fail(f"there is no keyring at {path}; the service makes one when it first starts")
    if as_json:
        rows = [
            {
                "kid": key.kid,
                "algorithm": key.algorithm,
                "state": key.state,
                "created_at": key.created_at.isoformat(),
                "activates_at": key.activates_at.isoformat(),
                "retires_at": key.retires_at.isoformat(),
                "removes_at": key.removes_at.isoformat(),
                "provider": key.provider,
            }
            for key in keyring.keys
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("alg", "state", "signs from", "signs until", "published until")
    table.add_column("kid", overflow="fold")
    for key in keyring.keys:
        table.add_row(
            key.algorithm,
            key.state,
            *(f"{moment:%Y-%m-%d %H:%M}" for moment in (key.activates_at, key.retires_at, key.removes_at)),
            key.kid,
        )
    Console().print(table)


def _keyring_of(data_dir: Path) -> Path:
    read_dev_file(data_dir)
    return data_dir / "keyring.json"
