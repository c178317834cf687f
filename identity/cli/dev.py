"""``identity dev``: the whole service on this machine, everything it keeps under one folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from identity.cli.connection import DEFAULT_DATA_DIR, DEV_FILE
from identity.cli.failure import fail
from identity.cli.files import members_of

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from grpc_identity.v1 import clients_pb2
    from identity.app import IdentityServer
    from identity.config import Settings

CLIENTS_FILE = "clients.json"
_MADE_FOR = "made_for"
LOGIN_CLIENT, ADMIN_CLIENT, VERIFIER_CLIENT = "dev-login", "dev-admin", "dev-orders"
RELAY_POLL_MS = 100


def dev(
    data_dir: Annotated[
        Path, typer.Option("--data-dir", help="Folder for everything that is kept; made if missing.")
    ] = DEFAULT_DATA_DIR,
    grpc_port: Annotated[int, typer.Option("--grpc-port", help="0 picks a free one.")] = 50051,
    http_port: Annotated[int, typer.Option("--http-port", help="0 picks a free one.")] = 8080,
    play: Annotated[bool, typer.Option("--play", help="Play the main job once, then go on serving.")] = False,
) -> None:
    """Run the service for development: embedded Valkey, three clients, a collector for the audit spans.

    Once it is ready it writes DIR/dev.json (mode 0600) with all that a script needs to call it:

        identity dev --data-dir .data --grpc-port 0 --http-port 0

    Audit spans go to OTEL_EXPORTER_OTLP_ENDPOINT if that is set, and else to a small collector of its own.
    """
    import uvloop

    from identity.cli.logs import configure_logging
    from identity.valkey import embedded_valkey

    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _sole_user_of(data_dir), embedded_valkey(data_dir / "valkey") as redis_url:
        settings = _settings(data_dir, redis_url, grpc_port, http_port or _free_port())
        with (data_dir / "server.log").open("a") as log:
            configure_logging("INFO", "console", log)
            try:
                uvloop.run(_serve(settings, data_dir, play=play))
            finally:
                (data_dir / DEV_FILE).unlink(missing_ok=True)


async def _serve(settings: Settings, data_dir: Path, *, play: bool) -> None:
    from identity.app import serve
    from identity.http.collector import SPANS_PATH, DevelopmentCollector

    spans_path = ""
    routes: Sequence[BaseRoute] = ()
    if not any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT") for name in ("", "TRACES_")):
        collector = DevelopmentCollector()
        spans_path, routes = SPANS_PATH, collector.routes()
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{settings.http.listen}"
        os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"

    # Before the service starts, so that it knows them from its first call on.
    secrets = await _clients(settings, data_dir)

    async def announce(server: IdentityServer) -> None:
        known = _what_is_known(server, settings, secrets, spans_path)
        _write_private(data_dir / DEV_FILE, known)
        await _welcome(known, data_dir, play=play)

    await serve(settings, announce, extra_routes=routes)


def _settings(data_dir: Path, redis_url: str, grpc_port: int, http_port: int) -> Settings:
    from identity.config import Settings
    from identity.keys.sealing import create_kek_file

    kek_file = data_dir / "kek"
    create_kek_file(kek_file)
    sections: dict[str, Any] = {
        "grpc": {"listen": f"127.0.0.1:{grpc_port}"},
        "http": {"listen": f"127.0.0.1:{http_port}"},
        "redis": {"url": redis_url},
        "keys": {"store": "file", "file": data_dir / "keyring.json", "kek_file": kek_file},
        # Not every place for traces that one has at hand while developing takes log records.
        "audit": {
            "relay_poll_ms": RELAY_POLL_MS,
            "otlp_logs": bool(os.environ.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT")),
        },
    }
    return Settings.model_validate(
        {"issuer": f"http://127.0.0.1:{http_port}", "environment": "development"} | sections
    )


async def _clients(settings: Settings, data_dir: Path) -> Mapping[str, str]:
    """The secrets of the three clients, made at the first start and kept beside the store that knows them.

    They are made anew when a later version lets them do something else.
    """
    from grpc_identity.v1 import clients_pb2
    from identity.bootstrap import bootstrap_client

    path = data_dir / CLIENTS_FILE
    kept: Mapping[str, str] = members_of(path) if path.exists() else {}
    login_policy = clients_pb2.ClientPolicy(
        grants=[
            "GRANT_ISSUE",
            "GRANT_CLIENT_CREDENTIALS",
            "GRANT_REFRESH",
            "GRANT_REVOKE",
            "GRANT_INTROSPECT",
            "GRANT_LIST_SESSIONS",
        ],
        subjects=["*"],
        audiences=["orders", "*-test"],
        scopes=["*"],
        roles=["*"],
        may_forward_client_context=True,
    )
    policies: dict[str, tuple[str, clients_pb2.ClientPolicy]] = {
        LOGIN_CLIENT: ("Login service (development)", login_policy),
        ADMIN_CLIENT: ("Administrator (development)", clients_pb2.ClientPolicy(grants=["GRANT_ADMIN"])),
        VERIFIER_CLIENT: (
            "Orders (development)",
            clients_pb2.ClientPolicy(grants=["GRANT_VERIFY", "GRANT_REPORT_USAGE"]),
        ),
    }
    made_for = sha256(repr(policies).encode()).hexdigest()
    if kept.get(_MADE_FOR) == made_for:
        return kept
    made = {
        client_id: await bootstrap_client(
            settings, client_id=client_id, display_name=name, policy=policy, replace_secret=True
        )
        for client_id, (name, policy) in policies.items()
    }
    _write_private(path, {**made, _MADE_FOR: made_for})
    return made


def _what_is_known(
    server: IdentityServer, settings: Settings, secrets: Mapping[str, str], spans_path: str
) -> Mapping[str, str]:
    from identity.http.app import JWKS_PATH

    addresses = server.addresses
    return {
        "grpc_target": addresses.grpc_target,
        "jwks_url": addresses.http_url + JWKS_PATH,
        "issuer": settings.issuer,
        "client_id": LOGIN_CLIENT,
        "client_secret": secrets[LOGIN_CLIENT],
        "admin_client_id": ADMIN_CLIENT,
        "admin_client_secret": secrets[ADMIN_CLIENT],
        "verifier_client_id": VERIFIER_CLIENT,
        "verifier_client_secret": secrets[VERIFIER_CLIENT],
        "redis_url": settings.redis.url.get_secret_value(),
        "http_url": addresses.http_url,
        "spans_url": addresses.http_url + spans_path if spans_path else "",
    }


async def _welcome(known: Mapping[str, str], data_dir: Path, *, play: bool) -> None:
    from rich.console import Console

    from identity.cli.demo import stage_of
    from identity.cli.picture import print_picture
    from identity.demo.play import UnexpectedAnswerError
    from identity.demo.play import play as play_main_job

    console = Console()
    if play:
        try:
            await play_main_job(stage_of(known), console)
        except UnexpectedAnswerError as error:
            fail(f"the demonstration did not go as it must: {error}; see {data_dir / 'server.log'}")
    print_picture(console, known, data_dir)


@contextlib.contextmanager
def _sole_user_of(data_dir: Path) -> Iterator[None]:
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fail(f"another `identity dev` uses {data_dir}; stop it, or choose another --data-dir")
    try:
        yield
    finally:
        os.close(descriptor)


def _write_private(path: Path, members: Mapping[str, str]) -> None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(members, file, indent=2)
    new.replace(path)


def _free_port() -> int:
    # The issuer's URL carries the port, so it has to be known before anything listens.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
