"""A real cluster for tests: three primaries with their replicas, whose slots move and whose nodes fall silent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis
from redis.crc import key_slot
from stores import NODE_TIMEOUT_MS, PORTS, STORE, Node, become, is_free, start_nodes

PRIMARIES = 3
SLOTS = 16_384


class Cluster:
    """Three primaries, each with a replica."""

    def __init__(self) -> None:
        buses = [next(port for port in PORTS if is_free(port)) for _ in range(2 * PRIMARIES)]
        self.nodes = start_nodes(
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

        def begin() -> None:
            source.client.execute_command(
                "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self.id_of(target)
            )

        def is_done() -> bool:
            (latest, *_) = source.client.execute_command("CLUSTER", "GETSLOTMIGRATIONS")
            state = {name.decode(): value for name, value in latest.items()}["state"]
            if state in (b"failed", b"canceled"):
                # As when one of the two does not answer for a moment; an operator tries again.
                begin()
            return bool(state == b"success")

        begin()
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


def slot_of(key: str) -> int:
    """Where a key is in a cluster."""
    return int(key_slot(key.encode()))
