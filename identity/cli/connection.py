"""How commands reach a running service: target, credentials, and whether the way is encrypted."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from identity.cli.failure import fail
from identity.cli.files import content_of, members_of, text_of

if TYPE_CHECKING:
    import grpc

DEV_FILE = "dev.json"
DEFAULT_DATA_DIR = Path(".data")

DataDir: TypeAlias = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of `identity dev`: takes target and credentials from there."),
]
Target: TypeAlias = Annotated[
    str | None, typer.Option("--target", envvar="IDENTITY_TARGET", help="host:port of the service.")
]
CaFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--ca-file", help="PEM roots to verify the service with; default: the system's."),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True)
class Connection:
    """A channel and the metadata that says who calls."""

    channel: grpc.Channel
    metadata: tuple[tuple[str, str], ...] = field(repr=False)


@contextmanager
def connection(
    data_dir: Path | None, target: str | None, ca_file: Path | None, *, admin: bool
) -> Iterator[Connection]:
    """Connects. Credentials: ``dev.json``, or IDENTITY_CLIENT_ID and IDENTITY_CLIENT_SECRET(_FILE)."""
    import grpc

    if target is None:
        known = read_dev_file(data_dir or DEFAULT_DATA_DIR)
        prefix = "admin_client" if admin else "client"
        target = known["grpc_target"]
        client_id, client_secret = known[f"{prefix}_id"], known[f"{prefix}_secret"]
    else:
        client_id, client_secret = _credentials_from_environment()
    host = target.rpartition(":")[0].strip("[]")
    if ca_file is None and host in {"127.0.0.1", "::1", "localhost"}:
        channel = grpc.insecure_channel(target)
    else:
        roots = content_of(ca_file, "--ca-file") if ca_file else None
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots))
    with channel:
        yield Connection(channel, basic_metadata(client_id, client_secret))


def basic_metadata(client_id: str, client_secret: str) -> tuple[tuple[str, str], ...]:
    """``authorization: Basic …``."""
    credentials = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
    return (("authorization", f"Basic {credentials}"),)


def read_dev_file(data_dir: Path) -> Mapping[str, Any]:
    """What ``identity dev`` says of itself; ends the command where it does not run."""
    file = data_dir / DEV_FILE
    if not file.exists():
        fail(
            f"there is no {file}: start the service with `identity dev --data-dir {data_dir}`, or name "
            "another one with --target"
        )
    return members_of(file)


def _credentials_from_environment() -> tuple[str, str]:
    client_id = os.environ.get("IDENTITY_CLIENT_ID", "")
    client_secret = os.environ.get("IDENTITY_CLIENT_SECRET", "")
    secret_file = os.environ.get("IDENTITY_CLIENT_SECRET_FILE")
    if secret_file and not client_secret:
        client_secret = text_of(Path(secret_file), "IDENTITY_CLIENT_SECRET_FILE").strip()
    if not client_id or not client_secret:
        fail("set IDENTITY_CLIENT_ID and IDENTITY_CLIENT_SECRET (or IDENTITY_CLIENT_SECRET_FILE)")
    return client_id, client_secret
