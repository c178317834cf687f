"""Refusals that change nothing, on their way to the outbox.

A caller that is refused does not wait for the store, and a refusal never fails because the store is away: the
event is queued and written in the background. The queue is bounded. Under a flood, events of the same client,
method and reason that find it full are counted and written as one event that says how many they were.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque

from identity.audit.event import Circumstances, Event, EventType, Outcome
from identity.audit.ports import AuditOutbox
from identity.errors import IdentityError

MAX_QUEUED_EVENTS = 2_000
MAX_FOLDED_KINDS = 500
_BATCH = 100
_RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)


class RefusalRecorder:
    """An ``EventRecorder`` over the outbox."""

    def __init__(self, outbox: AuditOutbox) -> None:
        self._outbox = outbox
        self._queued: deque[Event] = deque()
        self._folded: Counter[tuple[EventType, str, str, str]] = Counter()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self.dropped = 0

    def record(self, event: Event) -> None:
        """See ``EventRecorder``."""
        if len(self._queued) < MAX_QUEUED_EVENTS:
            self._queued.append(event)
        else:
            kind = (event.type, event.reason, event.circumstances.client_id, event.circumstances.method)
            if kind in self._folded or len(self._folded) < MAX_FOLDED_KINDS:
                self._folded[kind] += 1
            else:
                self.dropped += 1
        self._wake.set()

    async def run(self) -> None:
        """Writes what is queued until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queued or self._folded:
                try:
                    await self._write_some()
                except IdentityError as error:
                    _log.warning(
                        "refusals wait to be recorded: %s (%d queued)", error.reason, len(self._queued)
                    )
                    await asyncio.sleep(_RETRY_SECONDS)

    async def flush(self) -> None:
        """Writes all that is queued, once; for an orderly end. Raises ``IdentityError`` if it cannot."""
        while self._queued or self._folded:
            await self._write_some()

    async def _write_some(self) -> None:
        # One batch at a time, whoever asks: what was written is taken off the front.
        async with self._writing:
            if not self._queued:
                for event in self._unfold():
                    self._queued.append(event)
            batch = [self._queued[place] for place in range(min(_BATCH, len(self._queued)))]
            await self._outbox.append(batch)
            for _ in batch:
                self._queued.popleft()

    def _unfold(self) -> list[Event]:
        folded, self._folded = self._folded, Counter()
        return [
            Event(
                event_type,
                Outcome.REFUSED,
                Circumstances(client_id, method, detail=f"stands for {count} events"),
                reason,
            )
            for (event_type, reason, client_id, method), count in folded.items()
        ]
