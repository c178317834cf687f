"""``OutboxView`` on Redis or Valkey: reads the streams as they are, leases nothing and moves no cursor."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from heapq import merge
from typing import Any

from identity.audit.ports import Waiting
from identity.store.redis.keys import BucketKeys
from identity.store.redis.outbox_entries import recorded_event
from identity.store.redis.partial import where_it_is_there
from identity.store.redis.scripted import ScriptedStore


class RedisOutboxView(ScriptedStore):
    """The outbox of every bucket, for those who only look."""

    async def after(self, places: Mapping[int, str], *, at_most: int) -> Sequence[Waiting]:
        """See ``OutboxView``."""
        answers = await asyncio.gather(
            *(self._range(bucket, places.get(bucket.index, ""), at_most) for bucket in self._keys.buckets),
            return_exceptions=True,
        )
        # By time, but no bucket out of its order, should the store's clock have gone back.
        return list(merge(*where_it_is_there(answers), key=lambda item: item.event.time_ms))

    async def _range(self, bucket: BucketKeys, place: str, at_most: int) -> Sequence[Waiting]:
        since = f"({place}" if place else "-"
        command = ("XRANGE", bucket.outbox, since, "+", "COUNT", at_most)
        entries: Any = await self._connection.command(*command, key=bucket.outbox, background=True)
        return [
            Waiting(entry.decode(), recorded_event(bucket.index, fields)) for entry, fields in entries or ()
        ]
