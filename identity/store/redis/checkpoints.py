"""``CheckpointTurns`` on Redis or Valkey: beside the registry of clients, in the first bucket.

A turn is a key that expires with its period. The period is counted by the store, so that servers need not agree on the time.
"""

from __future__ import annotations

from dataclasses import replace

from identity.audit.checkpoint_turns import LastCheckpoint, Turn
from identity.store.redis import scripts
from identity.store.redis.scripted import ScriptContext, ScriptedStore, recording


class RedisCheckpointTurns(ScriptedStore):
    """Two strings: whose turn it is, and what the last one has left."""

    def __init__(self, context: ScriptContext, *, instance_id: str) -> None:
        super().__init__(context)
        self._instance_id = instance_id

    async def take(self, period_ms: int) -> Turn:
        """See ``CheckpointTurns``."""
        taken, last, now_ms = await self._connection.run(
            scripts.TAKE_TURN,
            (*recording(self._keys.buckets[0]), self._keys.checkpoint_turn, self._keys.last_checkpoint),
            (*self._no_event(), self._instance_id, period_ms),
        )
        return Turn(bool(taken), LastCheckpoint.parse(last), int(now_ms))

    async def done(self, last: LastCheckpoint) -> None:
        """See ``CheckpointTurns``."""
        noted = replace(last, at_ms=await self._now_ms(self._keys.buckets[0]))
        await self._connection.command("SET", self._keys.last_checkpoint, noted.serialised())
