"""``OutboxView`` on Redis or Valkey: reads the streams as they are, leases nothing and moves no cursor."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
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
        found = [item for answer in where_it_is_there(answers) for item in answer]
        return sorted(found, key=lambda item: (item.event.time_ms, item.event.bucket, item.event.sequence))

    async def _range(self, bucket: BucketKeys, place: str, at_most: int) -> Sequence[Waiting]:
        since = f"({place}" if place else "-"
        command = ("XRANGE", bucket.outbox, since, "+", "COUNT", at_most)
        entries: Any = await self._connection.command(*command, key=bucket.outbox, background=True)
        return [
            Waiting(entry.decode(), recorded_event(bucket.index, fields)) for entry, fields in entries or ()
        ]
