"""``CheckpointTurns`` on Redis or Valkey: beside the registry of clients, in the first bucket.

A turn is a key that expires with its period. The period is counted by the store, so that servers need not agree on the time.
"""

from __future__ import annotations

from identity.audit.checkpoint_turns import LastCheckpoint
from identity.store.redis.keys import KeySpace
from identity.store.redis.topology import StoreConnection


class RedisCheckpointTurns:
    """Two strings: whose turn it is, and what the last one has left."""

    def __init__(self, connection: StoreConnection, keys: KeySpace, *, instance_id: str) -> None:
        self._connection = connection
        self._keys = keys
        self._instance_id = instance_id

    async def take(self, period_ms: int) -> LastCheckpoint | None:
        """See ``CheckpointTurns``."""
        turn = ("SET", self._keys.checkpoint_turn, self._instance_id, "NX", "PX", period_ms)
        if await self._connection.command(*turn) is None:
            return None
        last = await self._connection.command("GET", self._keys.last_checkpoint)
        return LastCheckpoint() if last is None else LastCheckpoint.parse(last)

    async def done(self, last: LastCheckpoint) -> None:
        """See ``CheckpointTurns``."""
        await self._connection.command("SET", self._keys.last_checkpoint, last.serialised())
