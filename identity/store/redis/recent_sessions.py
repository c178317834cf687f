"""``SessionTally`` on Redis or Valkey: HyperLogLogs of 12 KB each, about 30 of them at a time, all in the first bucket."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice

from identity.clock import Clock
from identity.store.redis.keys import KeySpace
from identity.store.redis.topology import StoreConnection

AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class _Window:
    """Sessions of the last so many steps, and of the one that has begun."""

    name: str
    step_seconds: int
    steps: int


WINDOWS = (_Window("15m", 900, 1), _Window("24h", 3600, 24))


class RedisSessionTally:
    """The tally of all servers."""

    def __init__(self, connection: StoreConnection, keys: KeySpace, clock: Clock) -> None:
        self._connection = connection
        self._keys = keys
        self._clock = clock

    async def add(self, sessions: Collection[str]) -> None:
        """See ``SessionTally``. Some at a time: the store does nothing else meanwhile."""
        rest = iter(sessions)
        steps = [(window, self._step(window)) for window in WINDOWS]
        while chunk := tuple(islice(rest, AT_ONCE)):
            for window, step in steps:
                key = self._keys.recent_sessions(window.name, step)
                await self._connection.command("PFADD", key, *chunk, background=True)
        for window, step in steps:
            key = self._keys.recent_sessions(window.name, step)
            kept_seconds = window.step_seconds * (window.steps + 2)
            await self._connection.command("EXPIRE", key, kept_seconds, background=True)

    async def count(self) -> Mapping[str, int]:
        """See ``SessionTally``."""
        counts = await asyncio.gather(*(self._count(window) for window in WINDOWS))
        return {window.name: count for window, count in zip(WINDOWS, counts, strict=True)}

    async def _count(self, window: _Window) -> int:
        now = self._step(window)
        keys = [self._keys.recent_sessions(window.name, step) for step in range(now - window.steps, now + 1)]
        return int(await self._connection.command("PFCOUNT", *keys, background=True))

    def _step(self, window: _Window) -> int:
        return int(self._clock.now().timestamp()) // window.step_seconds
