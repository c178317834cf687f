"""``identity kek``: key-encryption keys that a key provider has wrapped, and which one is which."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer

from identity.cli.failure import fail
from identity.cli.settings import ConfigFile, Overrides, settings_of

app = typer.Typer(help="Make and wrap key-encryption keys, and tell them apart.", no_args_is_help=True)


@app.command()
def new(
    config: ConfigFile = None,
    overrides: Overrides = None,
    existing: Annotated[
        Path | None, typer.Option("--existing", help="Wrap the key of this file instead of a new one.")
    ] = None,
) -> None:
    """Print a key-encryption key as the key of keys.kek_provider has wrapped it, for keys.kek_file."""
    from identity.keys.keyring import LOCAL
    from identity.keys.ports import ProviderError
    from identity.keys.providers.by_uri import scheme_of
    from identity.keys.providers.wrapping import wrapped_kek
    from identity.keys.sealing import KEK_BYTES, load_kek_file
    from identity.parts import remote_limits

    settings = settings_of(config, overrides)
    uri = settings.keys.kek_provider
    if scheme_of(uri) == LOCAL:
        fail("keys.kek_provider names nobody to wrap it; without one: head -c 32 /dev/urandom | base64")
    raw = load_kek_file(existing).raw if existing else secrets.token_bytes(KEK_BYTES)
    try:
        typer.echo(wrapped_kek(uri, raw, remote_limits(settings)))
    except ProviderError as error:
        fail(f"keys.kek_provider: {error}")


@app.command()
def fingerprint(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Print what tells the key-encryption key of the settings from another; it says nothing about the key.

    Compare it with what `identity keys reseal` prints. With keys.previous_kek_file, that one is on a second line.
    """
    from identity.parts import key_encryption_key

    kek = key_encryption_key(settings_of(config, overrides))
    typer.echo(kek.fingerprint)
    if kek.previous is not None:
        typer.echo(f"{kek.previous.fingerprint} (previous)")
