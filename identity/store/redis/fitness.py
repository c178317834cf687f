"""Whether a Redis or Valkey is fit to keep sessions; the service is not ready on one that is not.

Of a cluster, every primary is looked at and each problem names the one it was found on. One that is away does not make the
service unready as long as the cluster goes on without it: the sessions of the others must not suffer for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from identity.errors import IdentityError
from identity.readiness import Problem
from identity.store.redis.durability import Durability
from identity.store.redis.keys import KeySpace
from identity.store.redis.topology import Server, StoreConnection

MIN_VERSION = (7, 0)
SLOTS = 16_384
_AWAY = Problem(
    "store_unreachable", "The session store does not answer; check redis.url and that the server runs."
)


async def claim_buckets(connection: StoreConnection, keys: KeySpace) -> None:
    """Records the number of buckets in a store that is used for the first time."""
    await connection.command("HSETNX", keys.settings, "buckets", len(keys.buckets))


async def store_problems(
    connection: StoreConnection, keys: KeySpace, durability: Durability
) -> Sequence[Problem]:
    """What is wrong with the store; empty when it is fit. Never raises."""
    try:
        looked_at = await look_at(connection)
    except (RedisError, OSError, TimeoutError):
        return [_AWAY]
    reached = [(server, info) for server, info in looked_at if info is not None]
    if not reached:
        return [_AWAY]
    problems = [
        Problem("store_node_unreachable", f"{server.name} does not answer; its sessions wait.", blocks=False)
        for server, info in looked_at
        if info is None
    ]
    problems += [problem for server, info in reached for problem in _problems_of(server, info)]
    problems += _not_durable(reached, durability)
    problems += _incomplete(reached)
    try:
        recorded = await connection.command("HGET", keys.settings, "buckets")
        if recorded is None:
            await claim_buckets(connection, keys)
    except IdentityError:
        return problems or [_AWAY]
    if recorded is not None and int(recorded) != len(keys.buckets):
        problems.append(
            Problem(
                "store_buckets_differ",
                f"This store was laid out with {int(recorded)} buckets, redis.buckets is {len(keys.buckets)}: set it "
                f"to {int(recorded)}, or use an empty store.",
            )
        )
    return problems


async def look_at(
    connection: StoreConnection,
) -> Sequence[tuple[Server, Mapping[str, Any] | None]]:
    """What every primary says of itself, ``None`` where it does not answer. Raises ``RedisError`` where none is known."""
    servers = await connection.primaries()
    infos = await asyncio.gather(*(_info(server) for server in servers))
    return list(zip(servers, infos, strict=True))


async def _info(server: Server) -> Mapping[str, Any] | None:
    try:
        info: Mapping[str, Any] = await server.redis.info("everything")
        if int(info.get("cluster_enabled", 0)):
            info = {**info, **await server.redis.execute_command("CLUSTER INFO")}
    except (RedisError, OSError, TimeoutError):
        return None
    return info


def _incomplete(reached: Sequence[tuple[Server, Mapping[str, Any]]]) -> Sequence[Problem]:
    """Slots without a primary. It blocks where the cluster does not serve at all, as most of its primaries see it."""
    broken = [server.name for server, info in reached if info.get("cluster_state", "ok") != "ok"]
    served = min(int(info.get("cluster_slots_ok", SLOTS)) for _, info in reached)
    if not broken and served == SLOTS:
        return []
    blocks = len(broken) * 2 > len(reached)
    what = "The cluster does not serve" if blocks else "A part of the cluster does not serve"
    return [
        Problem(
            "store_cluster_incomplete",
            f"{what}: {served} of {SLOTS} slots have a primary that is there. Bring it back or let a replica take over; "
            "look at: CLUSTER NODES",
            blocks=blocks,
        )
    ]


def _problems_of(server: Server, info: Mapping[str, Any]) -> Sequence[Problem]:
    place = f"{server.name}: " if server.name else ""
    problems = []
    version = str(info.get("redis_version", "0.0"))
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
        problems.append(
            Problem(
                "store_too_old", f"{place}Redis {version} is too old; run Redis 7.0 or Valkey 7.2 or newer."
            )
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        problems.append(
            Problem(
                "store_evicts",
                f"{place}maxmemory-policy is {policy}: the store would forget sessions and revocations when memory runs "
                "short. Set it: CONFIG SET maxmemory-policy noeviction",
            )
        )
    if int(info.get("cluster_enabled", 0)) and not server.name:
        problems.append(
            Problem("store_is_a_cluster", "redis.url names one node of a cluster; write redis+cluster://")
        )
    if info.get("role") == "slave":
        problems.append(Problem("store_read_only", f"{place}redis.url names a replica; name the primary."))
    return problems


def _not_durable(
    reached: Sequence[tuple[Server, Mapping[str, Any]]], durability: Durability
) -> Sequence[Problem]:
    """Primaries that cannot keep what they acknowledge as they have to. It blocks where that is all of them."""
    match durability:
        case Durability.NONE:
            return []
        case Durability.REPLICA:
            field, name = "connected_slaves", "store_not_replicated"
            what = "asks for a replica and none is connected: nothing can be acknowledged. Connect one, or set it to none."
        case Durability.DISK:
            field, name = "aof_enabled", "store_not_on_disk"
            what = "asks for the disk and appendonly is off: nothing can be acknowledged. Set it: CONFIG SET appendonly yes"
    lacking = [server.name for server, info in reached if not int(info.get(field, 0))]
    return [
        Problem(
            name,
            f"{place}: redis.*_durability {what}" if place else f"redis.*_durability {what}",
            blocks=len(lacking) == len(reached),
        )
        for place in lacking
    ]
