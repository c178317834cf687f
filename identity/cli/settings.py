"""The options by which commands find the settings of the service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from identity.config import Settings

ConfigFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar="IDENTITY_CONFIG", help="TOML file with the settings.", show_default=False
    ),
]
Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="A setting, stronger than file and environment; may be repeated."
    ),
]


def settings_of(config: Path | None, overrides: Sequence[str] | None) -> Settings:
    """The settings. Raises ``ConfigurationError``."""
    from identity.config import load_settings

    flags = {}
    for override in overrides or ():
        name, equals, value = override.partition("=")
        if not equals:
            raise typer.BadParameter(f"{override!r} is not NAME=VALUE", param_hint="--set")
        flags[name] = value
    return load_settings(config, flags)
