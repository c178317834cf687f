"""Refusals that change nothing, on their way to the outbox.

A caller that is refused does not wait for the store, and a refusal never fails because the store is away: the
event is queued and written in the background. The queue is bounded, and so is a flood: of the refusals with the same type,
reason, client and method the first few of a window are told one by one, the others counted, and told as one event when the window
is over. What finds the queue full is counted too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from identity.audit.event import Circumstances, Event, EventType, Outcome
from identity.audit.event_types import CHANGES_NOTHING
from identity.audit.folding import BEYOND, FOLD_WINDOW_SECONDS, Folding
from identity.audit.ports import EventOutbox
from identity.errors import IdentityError, audit_unavailable

MAX_QUEUED_EVENTS = 2_000
_BATCH = 100
_RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)

Cause: TypeAlias = tuple[EventType, str, str, str]
_OTHER: Cause = (EventType.REQUEST_REFUSED, "OTHER", "", "")


class RefusalRecorder:
    """An ``EventRecorder`` over the outbox. ``monotonic`` in seconds."""

    def __init__(self, outbox: EventOutbox, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._outbox = outbox
        self._queued: deque[Event] = deque()
        self._folding = Folding(_OTHER, self._tell, monotonic)
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()

    @property
    def queued(self) -> int:
        """How many wait to be written."""
        return len(self._queued)

    @property
    def folded(self) -> int:
        """How many were counted since the start, and not told one by one."""
        return self._folding.folded

    def record(self, event: Event) -> None:
        """See ``EventRecorder``."""
        is_full = len(self._queued) >= MAX_QUEUED_EVENTS
        if is_full or event.type in CHANGES_NOTHING:
            circumstances = event.circumstances
            cause = (event.type, event.reason, circumstances.client_id, circumstances.method)
            if self._folding.folds(cause, always=is_full):
                return
        self._queued.append(event)
        self._wake.set()

    async def run(self) -> None:
        """Writes what is queued, and what was counted when its window is over, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLD_WINDOW_SECONDS if self._folding.is_open else None):
                    await self._wake.wait()
            self._wake.clear()
            self._folding.unfold()
            while self._queued:
                if not await self._written_some():
                    await asyncio.sleep(_RETRY_SECONDS)

    async def flush(self) -> None:
        """Writes all that is queued or counted, once; for an orderly end. Raises ``IdentityError`` if it cannot."""
        self._folding.unfold(everything=True)
        while self._queued:
            await self._write_some()

    async def _written_some(self) -> bool:
        try:
            await self._write_some()
        except IdentityError as error:
            _log.warning("refusals wait to be recorded: %s (%d queued)", error.reason, len(self._queued))
            return False
        return True

    async def _write_some(self) -> None:
        # One batch at a time, whoever asks: what was written is taken off the front.
        async with self._writing:
            batch = [self._queued[place] for place in range(min(_BATCH, len(self._queued)))]
            left = await self._outbox.append(batch)
            for _ in batch:
                self._queued.popleft()
            self._queued.extendleft(reversed(left))
            if left:
                raise audit_unavailable()

    def _tell(self, cause: Cause, count: int) -> None:
        event_type, reason, client_id, method = cause
        circumstances = Circumstances(client_id, method, detail=BEYOND, count=count)
        self._queued.append(Event(event_type, Outcome.REFUSED, circumstances, reason))
