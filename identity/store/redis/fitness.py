"""Whether a Redis or Valkey is fit to keep sessions; the service is not ready on one that is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from identity.readiness import Problem
from identity.store.redis.connection import BatchingConnection
from identity.store.redis.durability import Durability
from identity.store.redis.keys import KeySpace

MIN_VERSION = (7, 0)
_AWAY = Problem(
    "store_unreachable", "The session store does not answer; check redis.url and that the server runs."
)


async def claim_buckets(connection: BatchingConnection, keys: KeySpace) -> None:
    """Records the number of buckets in a store that is used for the first time."""
    await connection.command("HSETNX", keys.settings, "buckets", len(keys.buckets))


async def store_problems(
    connection: BatchingConnection, keys: KeySpace, durability: Durability
) -> Sequence[Problem]:
    """What is wrong with the store; empty when it is fit. Never raises."""
    try:
        info: Mapping[str, Any] = await connection.redis.info("everything")
        recorded = await connection.redis.hget(keys.settings, "buckets")
        if recorded is None:
            await claim_buckets(connection, keys)
    except (RedisError, OSError, TimeoutError):
        return [_AWAY]
    problems = []
    version = str(info.get("redis_version", "0.0"))
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
        problems.append(
            Problem("store_too_old", f"Redis {version} is too old; run Redis 7.0 or Valkey 7.2 or newer.")
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        problems.append(
            Problem(
                "store_evicts",
                f"maxmemory-policy is {policy}: the store would forget sessions and revocations when memory runs "
                "short. Set it: CONFIG SET maxmemory-policy noeviction",
            )
        )
    if info.get("role") == "slave":
        problems.append(Problem("store_read_only", "redis.url names a replica; name the primary."))
    if durability is Durability.REPLICA and not int(info.get("connected_slaves", 0)):
        problems.append(
            Problem(
                "store_not_replicated",
                "redis.*_durability asks for a replica and none is connected: nothing can be acknowledged. Connect one, "
                "or set it to none.",
            )
        )
    if durability is Durability.DISK and not int(info.get("aof_enabled", 0)):
        problems.append(
            Problem(
                "store_not_on_disk",
                "redis.*_durability asks for the disk and appendonly is off: nothing can be acknowledged. Set it: "
                "CONFIG SET appendonly yes",
            )
        )
    if recorded is not None and int(recorded) != len(keys.buckets):
        problems.append(
            Problem(
                "store_buckets_differ",
                f"This store was laid out with {int(recorded)} buckets, redis.buckets is {len(keys.buckets)}: set it "
                f"to {int(recorded)}, or use an empty store.",
            )
        )
    return problems
