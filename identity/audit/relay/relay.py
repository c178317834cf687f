"""Moves events from the outbox to the backend, at least once, off the path of any request.

Read, deliver, remove: an event leaves the outbox only after the sink has acknowledged it. While the backend
is away, the relay keeps what it holds and tries again, ever more slowly. What a relay that died has left
lying is taken over by the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from identity.audit.event import RecordedEvent
from identity.audit.ports import AuditOutbox
from identity.audit.sinks.ports import AuditSink
from identity.errors import IdentityError

TAKE_OVER_IDLE_MS = 30_000
TAKE_OVER_EVERY_SECONDS = 30.0
FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0

_log = logging.getLogger(__name__)


class AuditRelay:
    """One relay; ``consumer`` names it among others."""

    def __init__(
        self, outbox: AuditOutbox, sink: AuditSink, *, consumer: str, batch: int, poll_ms: int
    ) -> None:
        self._outbox = outbox
        self._sink = sink
        self._consumer = consumer
        self._batch = batch
        self._poll_ms = poll_ms
        self.delivered = 0
        self.failing = False

    async def run(self) -> None:
        """Relays until cancelled."""
        retry_seconds = FIRST_RETRY_SECONDS
        next_take_over = 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                if loop.time() >= next_take_over:
                    await self._outbox.prepare()
                    await self._relay(
                        await self._outbox.take_over(
                            self._consumer, batch=self._batch, idle_ms=TAKE_OVER_IDLE_MS
                        )
                    )
                    next_take_over = loop.time() + TAKE_OVER_EVERY_SECONDS
                await self._relay(
                    await self._outbox.read(self._consumer, batch=self._batch, wait_ms=self._poll_ms)
                )
                retry_seconds = FIRST_RETRY_SECONDS
            except IdentityError as error:
                _log.warning("the audit relay cannot reach the outbox: %s", error.reason)
                await asyncio.sleep(retry_seconds)
                retry_seconds = min(retry_seconds * 2, LAST_RETRY_SECONDS)

    async def drain(self) -> None:
        """Relays what is there now and returns; for an orderly end. Leaves what the backend will not take."""
        while events := await self._outbox.read(self._consumer, batch=self._batch, wait_ms=0):
            if not await self._sink.deliver(events):
                return
            await self._outbox.remove(events)

    async def _relay(self, events: Sequence[RecordedEvent]) -> None:
        if not events:
            return
        retry_seconds = FIRST_RETRY_SECONDS
        while not await self._sink.deliver(events):
            self.failing = True
            _log.warning(
                "the audit backend took no events; %d wait, next try in %.1f s", len(events), retry_seconds
            )
            await asyncio.sleep(retry_seconds)
            retry_seconds = min(retry_seconds * 2, LAST_RETRY_SECONDS)
        self.failing = False
        await self._outbox.remove(events)
        self.delivered += len(events)
