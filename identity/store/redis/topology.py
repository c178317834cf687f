"""The store as its adapters see it: something that runs scripts and commands, wherever their keys are.

``ServerConnection`` is for a store that has one primary, whether its name always leads there or sentinels name it;
``identity.store.redis.cluster`` is for several. Either keeps two lanes to a server, so that reading the outbox and the
feeds never stands in front of a decision.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from identity.store.redis.address import StoreAddress, StoreKind
from identity.store.redis.connection import (
    MAX_ROUND_TRIPS,
    Argument,
    BatchingConnection,
    Call,
    LaneWatch,
    Overseer,
    unwatched,
)
from identity.store.redis.durability import Durability
from identity.store.redis.scripts import Script

MAX_CONNECTIONS = 16
BACKGROUND_ROUND_TRIPS = 2


class StoreConnection(Protocol):
    """What awaits an answer gets the result, once what was written is as durable as it has to be, or an ``IdentityError``: the
    store is away, or too many calls wait."""

    def run(
        self,
        script: Script,
        keys: Sequence[str | bytes],
        arguments: Sequence[Argument],
        durability: Durability = Durability.NONE,
        background: bool = False,
    ) -> Awaitable[Any]:
        """The result of a script, whose keys are all in one slot. ``background``: nobody waits for it."""
        ...

    def command(
        self,
        *command: Argument,
        key: str | bytes | None = None,
        durability: Durability = Durability.NONE,
        background: bool = False,
    ) -> Awaitable[Any]:
        """The result of a plain command, where its first argument is, or ``key`` for one that begins otherwise.
        ``background``: it may be long, and nobody waits for it."""
        ...

    def together(self, keys: Sequence[str]) -> Sequence[Sequence[str]]:
        """These keys in groups, each of which one command may name."""
        ...

    def servers(self) -> Sequence[Server]:
        """The servers that there is a connection to now."""
        ...

    async def primaries(self) -> Sequence[Server]:
        """The servers that hold the store, at least one. Raises ``RedisError`` where they cannot be found out."""
        ...

    async def close(self) -> None:
        """Waits for what is on its way, then disconnects."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of a connection to the store, and who counts what goes over its two lanes: that of calls, and that in the background."""

    timeout_seconds: float
    max_batch: int
    watch_calls: LaneWatch = unwatched
    watch_background: LaneWatch = unwatched


class Server:
    """One server and the lanes to it. ``name`` is ``host:port``, empty for the only one."""

    def __init__(
        self,
        redis: Redis,
        bounds: Bounds,
        *,
        name: str = "",
        host: str = "",
        overseer: Overseer | None = None,
        sentinel: Sentinel | None = None,
    ) -> None:
        self.name = name
        self.redis = redis
        self._sentinel = sentinel
        self.calls, self.background = (
            BatchingConnection(
                redis,
                max_batch=bounds.max_batch,
                timeout_seconds=bounds.timeout_seconds,
                max_round_trips=round_trips,
                overseer=overseer,
                host=host,
                watch=watch,
            )
            for round_trips, watch in (
                (MAX_ROUND_TRIPS, bounds.watch_calls),
                (BACKGROUND_ROUND_TRIPS, bounds.watch_background),
            )
        )

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections are idle, and how many in use."""
        (idle, _), (used, _) = self.redis.connection_pool.get_connection_count()
        return idle, used

    def enqueue(self, call: Call) -> None:
        """See ``BatchingConnection``."""
        (self.background if call.is_background else self.calls).enqueue(call)

    def command(self, *command: Argument) -> asyncio.Future[Any]:
        """The answer of this very server to a command that concerns no key, or an ``IdentityError``."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.background.enqueue(Call(None, command, Durability.NONE, future))
        return future

    async def close(self) -> None:
        """Waits for what is on its way, then disconnects."""
        await self.calls.drained()
        await self.background.drained()
        await self.redis.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()


class CallSender(ABC):
    """Makes calls of scripts and commands; where they are sent is for the topology to say."""

    def run(
        self,
        script: Script,
        keys: Sequence[str | bytes],
        arguments: Sequence[Argument],
        durability: Durability = Durability.NONE,
        background: bool = False,
    ) -> Awaitable[Any]:
        """See ``StoreConnection``."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        slot = self.slot_of(keys[0])
        self.send(Call(script, (len(keys), *keys, *arguments), durability, future, slot, background))
        return future

    def command(
        self,
        *command: Argument,
        key: str | bytes | None = None,
        durability: Durability = Durability.NONE,
        background: bool = False,
    ) -> Awaitable[Any]:
        """See ``StoreConnection``."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        slot = self.slot_of(command[1] if key is None else key)
        self.send(Call(None, command, durability, future, slot, background))
        return future

    @abstractmethod
    def slot_of(self, key: Argument) -> int:
        """Where the key is, as a number by which ``send`` finds the server."""

    @abstractmethod
    def send(self, call: Call) -> None:
        """Sends it on its way; its future gets the answer. Raises ``IdentityError`` when too many calls wait."""


class ServerConnection(CallSender):
    """``StoreConnection`` of a store with one primary."""

    def __init__(self, address: StoreAddress, bounds: Bounds) -> None:
        redis, sentinel = open_primary(address, timeout_seconds=bounds.timeout_seconds)
        self._server = Server(redis, bounds, sentinel=sentinel)

    @property
    def redis(self) -> Redis:
        """The client of the one server, for those who look inside."""
        return self._server.redis

    def slot_of(self, key: Argument) -> int:
        """See ``CallSender``. There is but one place."""
        del key
        return 0

    def send(self, call: Call) -> None:
        """See ``CallSender``."""
        self._server.enqueue(call)

    def together(self, keys: Sequence[str]) -> Sequence[Sequence[str]]:
        """See ``StoreConnection``."""
        return [keys]

    def servers(self) -> Sequence[Server]:
        """See ``StoreConnection``."""
        return [self._server]

    async def primaries(self) -> Sequence[Server]:
        """See ``StoreConnection``."""
        return [self._server]

    async def close(self) -> None:
        """See ``StoreConnection``."""
        await self._server.close()


def open_primary(
    address: StoreAddress, *, timeout_seconds: float, max_connections: int = MAX_CONNECTIONS
) -> tuple[Redis, Sentinel | None]:
    """A client of the one primary, and the sentinels that name it; connects when first used."""
    options = connection_options(address, timeout_seconds=timeout_seconds)
    if address.kind is not StoreKind.SENTINEL:
        return open_server(options, timeout_seconds=timeout_seconds, max_connections=max_connections), None
    is_tls = options.pop("connection_class", None) is not None
    # Asked one after the other, within the time that a call has: a silent one must leave some to the others.
    patience_seconds = timeout_seconds / (2 * len(address.hosts))
    asking = {name: value for name, value in options.items() if name.startswith("ssl_")} | {
        "ssl": is_tls,
        "username": address.sentinel_username,
        "password": address.sentinel_password,
        "socket_timeout": patience_seconds,
        "socket_connect_timeout": patience_seconds,
        "retry": options["retry"],
    }
    sentinel = Sentinel(address.hosts, sentinel_kwargs=asking)
    for name in ("host", "port"):
        options.pop(name, None)
    # Unlike that of one server, its pool does not make anybody wait; so it may have some more than are ever needed.
    pool = SentinelConnectionPool(
        address.service_name, sentinel, ssl=is_tls, max_connections=2 * max_connections, **options
    )
    return Redis.from_pool(pool), sentinel


def open_server(
    options: dict[str, Any], *, timeout_seconds: float, max_connections: int = MAX_CONNECTIONS
) -> Redis:
    """A client of one server; connects when first used."""
    pool = BlockingConnectionPool(max_connections=max_connections, timeout=timeout_seconds, **options)
    return Redis.from_pool(pool)


def connection_options(address: StoreAddress, *, timeout_seconds: float) -> dict[str, Any]:
    """What every connection to a server of the store is made with."""
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 3,
        "client_name": "grpc-identity",
    }
    return options | dict(parse_url(address.server_url))
