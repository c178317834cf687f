"""``identity keys``: the signing keys, their schedule, and what to do when it must not be waited for."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from identity.cli.connection import CaFile, Connection, DataDir, Json, Target, connection
from identity.cli.failure import fail
from identity.cli.files import text_of
from identity.cli.ids import TakesId
from identity.cli.settings import ConfigFile, Overrides, settings_of

WAIT_FOR_VERIFIERS_SECONDS = 10.0
ASK_SECONDS = 0.2

app = typer.Typer(
    help="Look at the signing keys, rotate and revoke them, keep a backup of them.\n\n"
    "Rotation happens by itself. All but `export` and `import` need a client with the grant ADMIN.",
    no_args_is_help=True,
)

Kid: TypeAlias = Annotated[str, typer.Argument(help="Id of the key, as `identity keys list` prints it.")]


@app.command("list")
def list_keys(
    data_dir: DataDir = None, target: Target = None, ca_file: CaFile = None, as_json: Json = False
) -> None:
    """List the keys as a timeline: their state, when each comes and goes, and which verifiers lack it or still hold it.

    Needed is a key until the last token that it signed has expired everywhere.
    """
    from google.protobuf.json_format import MessageToDict
    from rich.console import Console

    from identity.cli import timeline
    from identity.cli.listing import show
    from identity.clock import SystemClock

    with connection(data_dir, target, ca_file, admin=True) as reached:
        answer = _keys_of(reached)
    if as_json:
        typer.echo(json.dumps([_row(MessageToDict(key)) for key in answer.keys], indent=2))
        return
    console = Console()
    show(console, timeline.COLUMNS, list(timeline.rows_of(answer.keys, SystemClock().now())))
    console.print(timeline.LEGEND, style="dim")


@app.command()
def plan(
    data_dir: DataDir = None, target: Target = None, ca_file: CaFile = None, as_json: Json = False
) -> None:
    """Say what the schedule has in store: which key does what, and when, and who still holds one that is over."""
    from google.protobuf.json_format import MessageToDict
    from rich.console import Console

    from identity.cli import timeline

    with connection(data_dir, target, ca_file, admin=True) as reached:
        answer = _keys_of(reached)
    if as_json:
        typer.echo(json.dumps([_row(MessageToDict(step)) for step in answer.steps], indent=2))
        return
    console = Console(soft_wrap=True)
    for line in timeline.steps_of(answer):
        console.print(line)


@app.command()
def rotate(
    now: Annotated[
        bool, typer.Option("--now", help="Sign with it once all verifiers hold it, in a minute at most.")
    ] = False,
    secret: Annotated[
        bool, typer.Option("--secrets", help="Rotate the secret of refresh tokens, and no signing key.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --secrets: even if that ends sessions.")
    ] = False,
    data_dir: DataDir = None,
    target: Target = None,
    ca_file: CaFile = None,
) -> None:
    """Publish a new signing key ahead of the schedule, of the algorithm that is configured.

    A new algorithm, or another place for keys, is a rotation like any other: change the setting, then rotate.
    """
    from grpc_identity.v1 import admin_service_pb2 as pb
    from grpc_identity.v1 import admin_service_pb2_grpc as pb_grpc

    if secret and now:
        raise typer.BadParameter("--now is for signing keys; a secret is used a minute after it was made")
    if force and not secret:
        raise typer.BadParameter("--force is for --secrets")
    with connection(data_dir, target, ca_file, admin=True) as reached:
        stub = pb_grpc.AdminServiceStub(reached.channel)
        if secret:
            made = stub.RotateRefreshTokenSecret(
                pb.RotateRefreshTokenSecretRequest(force=force), metadata=reached.metadata
            )
            typer.echo(f"secret {made.secret_number} is used in a minute; the one before it stays accepted")
            return
        request = pb.RotateKeysRequest(now=now, idempotency_key=secrets.token_hex(16))
        key = stub.RotateKeys(request, metadata=reached.metadata).key
    at = f"{key.activates_at.ToDatetime():%Y-%m-%d %H:%M:%S}"
    by = f"{key.activates_by.ToDatetime():%Y-%m-%d %H:%M:%S}"
    typer.echo(f"{key.public_key.kid} is published, and signs from {at} UTC, by {by} at the latest")


@app.command(cls=TakesId)
def revoke(kid: Kid, data_dir: DataDir = None, target: Target = None, ca_file: CaFile = None) -> None:
    """Take a key away at once: another one signs, tokens it signed die, sessions live on.

    Says how many connected verifiers still hold it after ten seconds. Those that poll by plain HTTP may hold it for an
    hour.
    """
    from grpc_identity.v1 import admin_service_pb2 as pb
    from grpc_identity.v1 import admin_service_pb2_grpc as pb_grpc

    with connection(data_dir, target, ca_file, admin=True) as reached:
        stub = pb_grpc.AdminServiceStub(reached.channel)
        active = stub.RevokeKey(pb.RevokeKeyRequest(kid=kid), metadata=reached.metadata).active_key
        typer.echo(f"{kid} is revoked; {active.public_key.kid} signs")
        ends = time.monotonic() + WAIT_FOR_VERIFIERS_SECONDS
        while True:
            answer = stub.ListVerifiers(pb.ListVerifiersRequest(), metadata=reached.metadata)
            holders = sorted({item.verifier_id for item in answer.verifiers if kid in item.held_kids})
            if not holders or time.monotonic() >= ends:
                break
            time.sleep(ASK_SECONDS)
    if holders:
        fail(f"these verifiers have not said that they dropped it: {', '.join(holders)}; restart them")
    typer.echo(f"none of {len(answer.verifiers)} connected verifiers holds it any more")


@app.command()
def reseal(data_dir: DataDir = None, target: Target = None, ca_file: CaFile = None) -> None:
    """Seal everything anew under `keys.kek_file`, so that `keys.previous_kek_file` is needed no more.

    First give every server the new key-encryption key, with the old one as the previous. A server without a previous
    one refuses.
    """
    from grpc_identity.v1 import admin_service_pb2 as pb
    from grpc_identity.v1 import admin_service_pb2_grpc as pb_grpc

    with connection(data_dir, target, ca_file, admin=True) as reached:
        answer = pb_grpc.AdminServiceStub(reached.channel).ResealKeyring(
            pb.ResealKeyringRequest(), metadata=reached.metadata
        )
    done = f"{answer.resealed} seals were made anew" if answer.resealed else "nothing was to do"
    typer.echo(
        f"{done}: everything in the keyring is sealed under the key-encryption key {answer.kek_fingerprint}; "
        f"the one before it, {answer.previous_kek_fingerprint}, opens nothing there"
    )


@app.command("export")
def export_keys(
    file: Annotated[Path, typer.Argument(help="File to write, mode 0600; `-` is standard output.")],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Write the keyring to a file, sealed as it is. Keep it apart from the key-encryption key.

    Reads the store that the settings name; no service needs to run.
    """
    from identity.backup import export_keyring

    bundle = asyncio.run(export_keyring(settings_of(config, overrides)))
    if str(file) == "-":
        typer.echo(bundle)
        return
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(bundle + "\n")
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}")


@app.command("import")
def import_keys(
    file: Annotated[Path, typer.Argument(help="File that `export` wrote; `-` is standard input.")],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Put an exported keyring back. One that is there already is joined with it, and nothing revoked comes back.

    Restart every service that shares the store afterwards.
    """
    from identity.backup import import_keyring

    bundle = text_of(file)
    keyring = asyncio.run(import_keyring(settings_of(config, overrides), bundle))
    typer.echo(
        f"{len(keyring.published)} published keys are in the store; restart the services that share it"
    )


def _keys_of(reached: Connection) -> Any:
    from grpc_identity.v1 import admin_service_pb2 as pb
    from grpc_identity.v1 import admin_service_pb2_grpc as pb_grpc

    stub = pb_grpc.AdminServiceStub(reached.channel)
    return stub.ListKeys(pb.ListKeysRequest(), metadata=reached.metadata)


def _row(message: dict[str, Any]) -> dict[str, Any]:
    return message | {"state": message["state"].removeprefix("KEY_STATE_").lower()}
