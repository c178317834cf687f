"""A Redis or Valkey Cluster: each call goes to the primary that has its slot, and follows it when it moves.

Which primary has which slot is asked of any node that answers, and corrected by what the nodes say to a call:

=======================  =================  =====================================================================
said                     has run            done
=======================  =================  =====================================================================
``MOVED``                no                 sent again, to the node that is named; the map is loaded anew
``ASK``                  no                 sent again, to the node that is named, this once (``ASKING``)
``TRYAGAIN``, and keys   nothing written    sent again after a pause, as long as the call may take: the keys of the
that are not local                          slot are between two nodes, one by one
``CLUSTERDOWN``          no                 refused: ``STORE_UNAVAILABLE``; the map is loaded anew
connection lost          nobody knows       refused: ``STORE_UNAVAILABLE``; the map is loaded anew
=======================  =================  =====================================================================

Scripts read everything that was not named to them before they write anything; that is why a key found not to be local
means that nothing was written. A call is sent on ``MAX_REDIRECTIONS`` times at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeAlias

from redis.asyncio.cluster import ClusterNode, NodesManager
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from identity.errors import IdentityError, store_unavailable
from identity.store.redis.address import StoreAddress
from identity.store.redis.connection import Argument, Call, as_refusal
from identity.store.redis.topology import Bounds, CallSender, Server, connection_options, open_server

MAX_REDIRECTIONS = 5
FIRST_PAUSE_SECONDS = 0.005
LAST_PAUSE_SECONDS = 0.05
# Between one look at the map and the next. While nodes are away, every call would like to have one.
LOOK_PAUSE_SECONDS = 0.2
MAX_LOOK_SECONDS = 1.0
_SAYS_NOT_LOCAL = "attempted to access a non local key"

_Place: TypeAlias = tuple[str, int]
_log = logging.getLogger(__name__)


class ClusterConnection(CallSender):
    """``StoreConnection`` of a cluster."""

    def __init__(self, address: StoreAddress, bounds: Bounds) -> None:
        self._first_places = address.hosts
        self._found_places: Sequence[_Place] = ()
        self._bounds = bounds
        self._options = connection_options(address, timeout_seconds=bounds.timeout_seconds)
        for name in ("host", "port", "db"):
            self._options.pop(name, None)
        self._servers: dict[_Place, Server] = {}
        self._owners: dict[int, Server] = {}
        self._look: asyncio.Task[None] | None = None
        self._looked_at = float("-inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self.changes = 0
        """How often slots were found to be elsewhere."""

    def slot_of(self, key: Argument) -> int:
        """See ``CallSender``."""
        return key_slot(key if isinstance(key, bytes) else str(key).encode())

    def send(self, call: Call) -> None:
        """See ``CallSender``."""
        server = self._owners.get(call.slot)
        if server is None:
            _begin(self._send_when_found(call), self._tasks)
        else:
            server.enqueue(call)

    def together(self, keys: Sequence[str]) -> Sequence[Sequence[str]]:
        """See ``StoreConnection``."""
        by_slot: dict[int, list[str]] = defaultdict(list)
        for key in keys:
            by_slot[self.slot_of(key)].append(key)
        return list(by_slot.values())

    def servers(self) -> Sequence[Server]:
        """See ``StoreConnection``."""
        return list(self._servers.values())

    async def primaries(self) -> Sequence[Server]:
        """See ``StoreConnection``. In the order of their names."""
        if not self._owners:
            await asyncio.shield(self._looking())
        if not self._owners:
            raise RedisConnectionError("no node of the cluster answers")
        return sorted(set(self._owners.values()), key=lambda server: server.name)

    async def close(self) -> None:
        """See ``StoreConnection``."""
        self._is_closing = True
        # Calls that pause, or wait for the map, give up in time.
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])
        await asyncio.gather(*self._ending, *(server.close() for server in self._servers.values()))

    def takes_over(self, call: Call, error: BaseException, host: str) -> bool:
        """See ``Overseer``."""
        if self._is_closing:
            return False
        match error:
            case MovedError():
                # A node that does not know its own address leaves it out.
                server = self._server((error.host or host, error.port))
                if self._owners.get(error.slot_id) is not server:
                    self._owners[error.slot_id] = server
                    self.changes += 1
                self._looking()
                return self._sends_on(call, server, is_asking=False)
            case AskError():
                return self._sends_on(call, self._server((error.host or host, error.port)), is_asking=True)
            case ClusterDownError():
                self._looking()
                return False
            case _ if isinstance(error, TryAgainError) or _SAYS_NOT_LOCAL in str(error).lower():
                self._pauses(call)
                return True
            case _:
                return False

    def on_lost(self) -> None:
        """See ``Overseer``."""
        if not self._is_closing:
            self._looking()

    async def _send_when_found(self, call: Call) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._bounds.timeout_seconds):
                await asyncio.shield(self._looking())
        self._send_to(self._owners.get(call.slot), call)

    def _sends_on(self, call: Call, server: Server, *, is_asking: bool) -> bool:
        call.redirections += 1
        if call.redirections > MAX_REDIRECTIONS:
            return False
        call.is_asking = is_asking
        self._send_to(server, call)
        return True

    def _pauses(self, call: Call) -> None:
        now = asyncio.get_running_loop().time()
        if call.give_up_at is None:
            call.give_up_at = now + self._bounds.timeout_seconds
        if now < call.give_up_at:
            _begin(self._send_after_pause(call), self._tasks)
        else:
            call.future.set_exception(store_unavailable())

    async def _send_after_pause(self, call: Call) -> None:
        call.pauses += 1
        await asyncio.sleep(min(FIRST_PAUSE_SECONDS * 2**call.pauses, LAST_PAUSE_SECONDS))
        # From the start: meanwhile the keys may be together again, on either node.
        call.is_asking, call.redirections = False, 0
        self._send_to(self._owners.get(call.slot), call)

    def _send_to(self, server: Server | None, call: Call) -> None:
        if call.future.done():
            return
        if server is None:
            call.future.set_exception(store_unavailable())
            return
        try:
            server.enqueue(call)
        except IdentityError as error:
            call.future.set_exception(as_refusal(error))

    def _server(self, place: _Place) -> Server:
        server = self._servers.get(place)
        if server is None:
            host, port = place
            redis = open_server(
                self._options | {"host": host, "port": port}, timeout_seconds=self._bounds.timeout_seconds
            )
            name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            server = Server(redis, self._bounds, name=name, host=host, overseer=self)
            self._servers[place] = server
        return server

    def _looking(self) -> asyncio.Task[None]:
        """The one look at the map that is under way, or a new one."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._look_at_map())
        return self._look

    async def _look_at_map(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._looked_at + LOOK_PAUSE_SECONDS - loop.time()))
        # What is known may be away, and what was configured may be gone.
        places = dict.fromkeys((*self._servers, *self._found_places, *self._first_places))
        try:
            found, self._found_places = await slot_map(list(places), self._options)
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            _log.warning("no node of the cluster says where the slots are: %s", type(error).__name__)
        else:
            self._adopt(found)
        finally:
            self._looked_at = loop.time()

    def _adopt(self, found: Mapping[int, _Place]) -> None:
        owners = {slot: self._server(place) for slot, place in found.items()}
        if owners != self._owners:
            self._owners = owners
            self.changes += 1
        in_use = set(owners.values())
        for place, server in list(self._servers.items()):
            if server not in in_use:
                del self._servers[place]
                _begin(server.close(), self._ending)


def _begin(coroutine: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
    task = asyncio.create_task(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def slot_map(
    places: Sequence[_Place], options: Mapping[str, Any]
) -> tuple[Mapping[int, _Place], Sequence[_Place]]:
    """Which primary has each slot, and where all nodes are, as one says that answers.

    Raises ``RedisError``, ``RedisClusterException`` and ``OSError``.
    """
    patience_seconds = min(float(options["socket_timeout"]), MAX_LOOK_SECONDS)
    options = {
        **options,
        "socket_timeout": patience_seconds,
        "socket_connect_timeout": patience_seconds,
    }
    manager = NodesManager(
        [ClusterNode(host, port, **options) for host, port in places],
        require_full_coverage=False,
        connection_kwargs=dict(options),
        dynamic_startup_nodes=False,
    )
    try:
        await manager.initialize()
        owners = {slot: _place(nodes[0]) for slot, nodes in manager.slots_cache.items()}
        return owners, [_place(node) for node in manager.nodes_cache.values()]
    finally:
        await manager.aclose()
        await manager.aclose("startup_nodes")


def _place(node: ClusterNode) -> _Place:
    return node.host, int(node.port)
