"""Whatever is killed and whatever the backend answers: what callers were told is in the backend, complete, in order, unaltered.

``AUDIT_STORM_SECONDS`` makes them longer (``make storms``).
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from audit.order import assert_chained_in_order, by_bucket
from audit.sinks.receivers import Backend, HttpReceiver, Says
from audit.storm import Storm, moody

from grpc_identity.v1 import clients_pb2
from identity.bootstrap import bootstrap_client
from identity.config import Settings

SECONDS = float(os.environ.get("AUDIT_STORM_SECONDS", "8"))
POLICY = clients_pb2.ClientPolicy(
    grants=["GRANT_ISSUE", "GRANT_REFRESH", "GRANT_REVOKE"],
    subjects=["*"],
    audiences=["*"],
    calls_per_second=1_000_000,
    concurrent_calls=100_000,
)


@pytest_asyncio.fixture
async def backend() -> AsyncIterator[Backend]:
    async with HttpReceiver(Backend()) as running:
        yield running


@pytest_asyncio.fixture
async def storm(new_valkey: Callable[..., Any], tmp_path: Path, backend: Backend) -> AsyncIterator[Storm]:
    """Two servers, two relays, a store that writes all it is told to disk."""
    config = {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "save": ""}
    store = new_valkey(config, data_dir=tmp_path / "store")
    settings: dict[str, Any] = {
        "issuer": "https://id.example",
        "environment": "development",
        "grpc": {"listen": "127.0.0.1:0"},
        "http": {"enabled": False},
        "redis": {"url": f"redis://127.0.0.1:{store.port}", "key_prefix": "storm", "buckets": 8},
        "keys": {"kek": base64.b64encode(secrets.token_bytes(32)).decode()},
        "audit": {"relay": False},
        "limits": {"refreshes_per_family_per_minute": 1_000_000, "address_failures_per_minute": 1_000_000},
    }
    secret = await bootstrap_client(
        Settings(**settings), client_id="login", display_name="login", policy=POLICY
    )
    pair = base64.b64encode(f"login:{secret}".encode()).decode()
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    running = Storm(settings, (("authorization", f"Basic {pair}"),), store, backend, random.Random(seed))
    await running.begin()
    yield running
    running.end()
    store.stop()


async def settled(storm: Storm, wait_until: Any) -> None:
    """The backend takes everything again, and gets it."""
    storm.backend.answer = lambda _: None

    async def is_empty() -> bool:
        return await storm.waiting() == 0

    await wait_until(is_empty, seconds=60)


async def assert_nothing_is_lost(storm: Storm) -> str:
    exported = storm.exported()
    count = assert_chained_in_order(exported)
    ends = {bucket: events[-1].event.sequence for bucket, events in by_bucket(exported).items()}
    assert ends == await storm.recorded()
    tokens = {each.event.token_id for each in exported}
    ended = {each.event.session_id for each in exported if each.event.type == "session.revoked"}
    lost = [
        (what, which) for what, which in storm.told if which not in (tokens if what == "token" else ended)
    ]
    assert not lost
    return (
        f"{count} events, {len(exported) - count} of them twice, {len(storm.told)} told to callers, 0 lost; "
        f"killed: {dict(storm.killed)}; {len(storm.backend.requests) - len(storm.backend.taken)} requests refused"
    )


@pytest.mark.timeout(SECONDS + 120)
async def test_a_flood_while_the_backend_is_away_arrives_when_it_is_back(
    storm: Storm, wait_until: Any
) -> None:
    storm.backend.answer = lambda _: Says(status=503)
    await storm.calls(SECONDS)
    assert await storm.waiting() > 50
    assert not storm.backend.taken
    await settled(storm, wait_until)
    print(await assert_nothing_is_lost(storm))


@pytest.mark.timeout(SECONDS + 300)
async def test_servers_relays_and_the_store_are_killed_and_the_backend_has_moods(
    storm: Storm, wait_until: Any
) -> None:
    storm.backend.answer = lambda request: moody(request, storm.chance)
    await asyncio.gather(storm.calls(SECONDS), storm.kills(SECONDS))
    await settled(storm, wait_until)
    print(await assert_nothing_is_lost(storm))
