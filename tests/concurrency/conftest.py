"""Several servers of one store, each a process."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from concurrency.server_process import ServerProcess, start
from stores import open_async_client

from grpc_identity.v1 import clients_pb2, identity_service_pb2_grpc
from identity.bootstrap import bootstrap_client
from identity.config import Settings
from identity.store.redis.keys import KeySpace

BUCKETS = 8
POLICY = clients_pb2.ClientPolicy(
    grants=["GRANT_ISSUE", "GRANT_REFRESH", "GRANT_REVOKE"],
    subjects=["*"],
    audiences=["*"],
    calls_per_second=1_000_000,
    concurrent_calls=100_000,
    max_sessions_per_subject=500,
)


@dataclass
class Fleet:
    """Servers, and a client of theirs."""

    settings: dict[str, Any]
    metadata: tuple[tuple[str, str], ...]
    store: Any
    keys: KeySpace
    servers: list[ServerProcess] = field(default_factory=list)
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    def add_server(self, *, dies: str | None = None) -> Any:
        """Starts one more; a stub of it."""
        server = start(self.settings, dies=dies, folds=False)
        self.servers.append(server)
        channel = grpc.aio.insecure_channel(server.target)
        self.channels.append(channel)
        return identity_service_pb2_grpc.IdentityServiceStub(channel)  # type: ignore[no-untyped-call]

    async def events(self, subject: str, after: str = "-") -> list[dict[str, str]]:
        """The events of a subject's bucket that are about it, in the order in which they happened."""
        entries = await self.store.xrange(self.keys.of_name(subject).outbox, after)
        found = [{key.decode(): value.decode() for key, value in fields.items()} for _, fields in entries]
        return sorted(
            (event for event in found if event["subject"] == subject), key=lambda event: int(event["seq"])
        )


@pytest.fixture
def fleet_settings(valkey: str, tmp_path: Path) -> dict[str, Any]:
    """As plain values, which another process can read."""
    return {
        "issuer": "https://id.example",
        "environment": "development",
        "grpc": {"listen": "127.0.0.1:0"},
        "http": {"enabled": False},
        "redis": {"url": valkey, "key_prefix": f"c{secrets.token_hex(6)}", "buckets": BUCKETS},
        "keys": {
            "kek": base64.b64encode(secrets.token_bytes(32)).decode(),
        },
        "audit": {"relay": False, "outbox_max_events": 10_000_000},
        "limits": {"refreshes_per_family_per_minute": 1_000_000},
    }


@pytest_asyncio.fixture
async def fleet(fleet_settings: dict[str, Any]) -> AsyncIterator[Fleet]:
    """None is running at first."""
    secret = await bootstrap_client(
        Settings(**fleet_settings), client_id="login", display_name="login", policy=POLICY
    )
    pair = base64.b64encode(f"login:{secret}".encode()).decode()
    keys = KeySpace(fleet_settings["redis"]["key_prefix"], BUCKETS)
    store = open_async_client(fleet_settings["redis"]["url"])
    running = Fleet(fleet_settings, (("authorization", f"Basic {pair}"),), store, keys)
    yield running
    for channel in running.channels:
        await channel.close()
    for server in running.servers:
        server.kill()
    await running.store.aclose()
