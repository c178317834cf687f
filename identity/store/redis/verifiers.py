"""``InstanceBoard`` on Redis or Valkey: beside the registry of clients, in the first bucket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from identity.store.redis.keys import KeySpace
from identity.store.redis.topology import StoreConnection

QUESTIONS_KEPT = 1000
ANSWERS_KEPT_MS = 120_000
INSTANCE_DEAD_AFTER_MS = 10_000


class RedisInstanceBoard:
    """A hash of heartbeats, a stream of questions, a hash of answers for each."""

    def __init__(self, connection: StoreConnection, keys: KeySpace) -> None:
        self._connection = connection
        self._keys = keys

    async def beat(self, instance_id: str) -> None:
        """See ``InstanceBoard``."""
        await self._connection.command("HSET", self._keys.instances, instance_id, await self._now_ms())

    async def leave(self, instance_id: str) -> None:
        """See ``InstanceBoard``."""
        await self._connection.command("HDEL", self._keys.instances, instance_id)

    async def instances(self) -> frozenset[str]:
        """See ``InstanceBoard``. Those that have been silent for long are taken off."""
        beats, now_ms = await asyncio.gather(
            self._connection.command("HGETALL", self._keys.instances), self._now_ms()
        )
        pairs = beats.items() if isinstance(beats, dict) else zip(beats[::2], beats[1::2], strict=True)
        alive, dead, ahead = set[str](), list[bytes](), list[bytes]()
        for name, beat in pairs:
            if now_ms - int(beat) < INSTANCE_DEAD_AFTER_MS:
                alive.add(name.decode())
            else:
                dead.append(name)
            if int(beat) > now_ms:
                ahead.append(name)
        if dead:
            await self._connection.command("HDEL", self._keys.instances, *dead)
        for name in ahead:
            # Before the store's clock went back. It may be of one that lives, or of one that died and would be waited for until the
            # clock is there again.
            await self._connection.command("HSET", self._keys.instances, name, now_ms)
        return frozenset(alive)

    async def ask(self, wait_ms: int) -> str:
        """See ``InstanceBoard``."""
        entry_id = await self._connection.command(
            "XADD", self._keys.questions, "MAXLEN", "~", QUESTIONS_KEPT, "*", "wait_ms", wait_ms
        )
        question_id: str = entry_id.decode()
        return question_id

    async def answer(self, question_id: str, instance_id: str, answer: bytes) -> None:
        """See ``InstanceBoard``."""
        key = self._keys.answers(question_id)
        await asyncio.gather(
            self._connection.command("HSET", key, instance_id, answer),
            self._connection.command("PEXPIRE", key, ANSWERS_KEPT_MS),
        )

    async def answers(self, question_id: str) -> Mapping[str, bytes]:
        """See ``InstanceBoard``."""
        found = await self._connection.command("HGETALL", self._keys.answers(question_id))
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        return {name.decode(): answer for name, answer in pairs}

    async def _now_ms(self) -> int:
        seconds, microseconds = await self._connection.command("TIME", key=self._keys.instances)
        return int(seconds) * 1000 + int(microseconds) // 1000
