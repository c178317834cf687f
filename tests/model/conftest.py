"""A service in a thread of its own, for tests that drive it step by step and look into its store between the steps."""

from __future__ import annotations

import asyncio
import base64
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from stores import open_client

from grpc_identity.v1 import clients_pb2, identity_service_pb2_grpc
from identity.app import IdentityServer
from identity.bootstrap import bootstrap_client
from identity.config import Settings
from identity.store.redis import sessions as store_sessions
from identity.store.redis.keys import KeySpace
from identity.tokens.family import Rules

pytest.register_assert_rewrite("model.histories")

BUCKETS = 4
# On a busy machine, too, the store is slow and not away: that would be an answer that the rules do not know.
STORE_TIMEOUT_MS = 30_000
CLIENTS = ("web", "other")
# Sessions of one client end by idleness first; those of the other can reach their absolute end.
IDLE_DAYS = {"web": 2, "other": 30}
# What is found out about this client's sessions is only reported.
REPORTING = frozenset({"other"})
POLICY = clients_pb2.ClientPolicy(
    grants=["GRANT_ISSUE", "GRANT_REFRESH", "GRANT_REVOKE", "GRANT_ADMIN"],
    subjects=["*"],
    audiences=["*"],
    scopes=["*"],
    roles=["*"],
    may_forward_client_context=True,
    calls_per_second=1_000_000,
    concurrent_calls=10_000,
)
# Budgets small enough to be met, and whose shares of a minute are whole milliseconds.
RULES = Rules(per_family=3, address_successes=2, address_failures=2, max_steps=3)


@dataclass
class Stepwise:
    """The service, its store, and callers that wait for each answer."""

    server: IdentityServer
    store: Any
    keys: KeySpace
    channel: grpc.Channel
    metadata: dict[str, tuple[tuple[str, str], ...]]
    rules: Rules = RULES
    reporting: frozenset[str] = REPORTING
    idle_days: dict[str, int] = field(default_factory=lambda: IDLE_DAYS)
    stub: Any = field(init=False)

    def __post_init__(self) -> None:
        self.stub = identity_service_pb2_grpc.IdentityServiceStub(self.channel)  # type: ignore[no-untyped-call]

    def stop_the_clock_at(self, now_ms: int) -> None:
        """From here on the store decides as if it was that time."""
        self.server.store.clock.frozen_at_ms = now_ms

    @contextmanager
    def full_outbox(self) -> Iterator[None]:
        """Meanwhile no event can be recorded but those that end something."""
        sessions = self.server.store.sessions
        before, sessions._outbox_bound = sessions._outbox_bound, "0"
        yield
        sessions._outbox_bound = before


def _policy(client: str) -> clients_pb2.ClientPolicy:
    policy = clients_pb2.ClientPolicy()
    policy.CopyFrom(POLICY)
    policy.session_idle_ttl.FromTimedelta(timedelta(days=IDLE_DAYS[client]))
    if client in REPORTING:
        policy.reuse_policy = clients_pb2.REUSE_POLICY_REPORT
    return policy


@pytest.fixture(scope="module")
def stepwise(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stepwise]:
    """Started once: what examples leave behind concerns nobody else."""
    folder: Path = tmp_path_factory.mktemp("model")
    prefix = f"m{secrets.token_hex(6)}"
    settings = Settings(
        issuer="https://id.example",
        environment="development",
        grpc={"listen": "127.0.0.1:0"},
        http={"enabled": False},
        redis={"url": valkey, "key_prefix": prefix, "buckets": BUCKETS, "timeout_ms": STORE_TIMEOUT_MS},
        keys={
            "store": "file",
            "file": folder / "keyring.json",
            "kek": base64.b64encode(secrets.token_bytes(32)).decode(),
        },
        audit={"relay": False, "outbox_max_events": 10_000_000},
        limits={
            "refreshes_per_family_per_minute": RULES.per_family,
            "address_successes_per_minute": RULES.address_successes,
            "address_failures_per_minute": RULES.address_failures,
        },
    )
    patch = pytest.MonkeyPatch()
    patch.setattr(store_sessions, "MAX_STEPS", RULES.max_steps)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)

    async def start() -> tuple[IdentityServer, str, dict[str, str]]:
        client_secrets = {
            name: await bootstrap_client(settings, client_id=name, display_name=name, policy=_policy(name))
            for name in CLIENTS
        }
        server = IdentityServer(settings)
        addresses = await server.start()
        return server, addresses.grpc_target, client_secrets

    server, target, client_secrets = run(start())
    metadata = {
        name: (("authorization", f"Basic {base64.b64encode(f'{name}:{secret}'.encode()).decode()}"),)
        for name, secret in client_secrets.items()
    }
    with grpc.insecure_channel(target) as channel:
        yield Stepwise(server, open_client(valkey), KeySpace(prefix, BUCKETS), channel, metadata)
    run(server.stop(0))
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    patch.undo()
