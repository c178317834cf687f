"""``DeadLetterBox`` on Redis or Valkey: one stream a bucket, filled by relays (``identity.store.redis.relay_outbox``)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from identity.audit.line import from_line_members
from identity.audit.ports import DeadLetter, KeptLetter
from identity.store.redis.keys import BucketKeys
from identity.store.redis.scripted import ScriptedStore


class RedisDeadLetterBox(ScriptedStore):
    """The dead letters of every bucket."""

    async def letters(self) -> Sequence[KeptLetter]:
        """See ``DeadLetterBox``."""
        found = await asyncio.gather(*(self._letters(bucket) for bucket in self._keys.buckets))
        return [letter for letters in found for letter in letters]

    async def remove(self, letters: Sequence[KeptLetter]) -> None:
        """See ``DeadLetterBox``."""
        for letter in letters:
            await self._connection.command(
                "XDEL", self._keys.buckets[letter.bucket].dead_letters, letter.entry
            )

    async def _letters(self, bucket: BucketKeys) -> Sequence[KeptLetter]:
        entries = await self._connection.command("XRANGE", bucket.dead_letters, "-", "+", background=True)
        return [_kept(bucket.index, entry.decode(), fields) for entry, fields in entries]


def _kept(bucket: int, entry: str, fields: Sequence[bytes]) -> KeptLetter:
    values = dict(zip(fields[::2], fields[1::2], strict=True))
    line = from_line_members(json.loads(values[b"line"]))
    return KeptLetter(line.sink, bucket, entry, DeadLetter(line.event, values[b"problem"].decode()))
