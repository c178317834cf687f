"""What an auditor types, run here."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from identity.cli.main import app


def identity(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["audit", *arguments], env={"NO_COLOR": "1", "COLUMNS": "200"})
