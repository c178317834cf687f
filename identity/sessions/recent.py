"""How many sessions were lately started or refreshed, over all servers: an estimate that costs a call one addition to a set.

What this server has seen goes to the store every few seconds, into HyperLogLogs of a quarter of an hour and of an hour. Their union counts each
session once, whichever servers it was at. What a crash loses is counted again with the next refresh of those sessions. A session
that ends stays in the count until its window is over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from typing import Protocol

from identity.errors import IdentityError

TELL_SECONDS = 10.0
MAX_SEEN = 50_000
"""Between two tellings; what comes beyond is not counted, and is when it refreshes again."""


class SessionTally(Protocol):
    """Counts distinct sessions, about."""

    async def add(self, sessions: Collection[str]) -> None:
        """These were seen now. Raises ``STORE_UNAVAILABLE``."""
        ...

    async def count(self) -> Mapping[str, int]:
        """How many were seen, by how long ago: ``15m``, ``24h``. Raises ``STORE_UNAVAILABLE``."""
        ...


class RecentSessions:
    """``latest`` is what was counted last; empty at first, and while the store is away."""

    def __init__(self, tally: SessionTally) -> None:
        self._tally = tally
        self._seen: set[str] = set()
        self.latest: Mapping[str, int] = {}

    def saw(self, session_id: str) -> None:
        """A session was started or refreshed."""
        if len(self._seen) < MAX_SEEN:
            self._seen.add(session_id)

    async def run(self) -> None:
        """Tells and counts until cancelled."""
        while True:
            with contextlib.suppress(IdentityError):
                await self.tell()
            await asyncio.sleep(TELL_SECONDS)

    async def tell(self) -> None:
        """Tells the store what was seen, and counts. Raises ``STORE_UNAVAILABLE``; what was seen is told later then."""
        seen, self._seen = self._seen, set()
        self.latest = {}
        try:
            if seen:
                await self._tally.add(seen)
        except IdentityError:
            self._seen |= seen
            raise
        self.latest = await self._tally.count()
