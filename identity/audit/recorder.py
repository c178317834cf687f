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
from dataclasses import dataclass
from typing import TypeAlias

from identity.audit.event import Circumstances, Event, EventType, Outcome
from identity.audit.event_types import CHANGES_NOTHING
from identity.audit.ports import EventOutbox
from identity.errors import IdentityError, audit_unavailable

MAX_QUEUED_EVENTS = 2_000
MAX_CAUSES = 500
FOLD_BEYOND = 20
FOLD_WINDOW_SECONDS = 10.0
_BATCH = 100
_RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)

Cause: TypeAlias = tuple[EventType, str, str, str]
_OTHER: Cause = (EventType.REQUEST_REFUSED, "OTHER", "", "")


@dataclass(slots=True)
class _Window:
    began: float
    seen: int = 0
    folded: int = 0


class RefusalRecorder:
    """An ``EventRecorder`` over the outbox. ``monotonic`` in seconds."""

    def __init__(self, outbox: EventOutbox, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._outbox = outbox
        self._monotonic = monotonic
        self._queued: deque[Event] = deque()
        self._windows: dict[Cause, _Window] = {}
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()

    def record(self, event: Event) -> None:
        """See ``EventRecorder``."""
        is_full = len(self._queued) >= MAX_QUEUED_EVENTS
        if is_full or event.type in CHANGES_NOTHING:
            window = self._window(event)
            window.seen += 1
            if is_full or window.seen > FOLD_BEYOND:
                window.folded += 1
                return
        self._queued.append(event)
        self._wake.set()

    async def run(self) -> None:
        """Writes what is queued, and what was counted when its window is over, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLD_WINDOW_SECONDS if self._windows else None):
                    await self._wake.wait()
            self._wake.clear()
            self._unfold(everything=False)
            while self._queued:
                if not await self._written_some():
                    await asyncio.sleep(_RETRY_SECONDS)

    async def flush(self) -> None:
        """Writes all that is queued or counted, once; for an orderly end. Raises ``IdentityError`` if it cannot."""
        self._unfold(everything=True)
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

    def _window(self, event: Event) -> _Window:
        cause = (event.type, event.reason, event.circumstances.client_id, event.circumstances.method)
        if cause not in self._windows and len(self._windows) >= MAX_CAUSES:
            cause = _OTHER
        now = self._monotonic()
        window = self._windows.get(cause)
        if window is None or now >= window.began + FOLD_WINDOW_SECONDS:
            self._tell(cause, window)
            window = self._windows[cause] = _Window(now)
        return window

    def _unfold(self, *, everything: bool) -> None:
        now = self._monotonic()
        for cause, window in list(self._windows.items()):
            if everything or now >= window.began + FOLD_WINDOW_SECONDS:
                del self._windows[cause]
                self._tell(cause, window)

    def _tell(self, cause: Cause, window: _Window | None) -> None:
        if window is None or not window.folded:
            return
        event_type, reason, client_id, method = cause
        beyond = f"beyond the first {FOLD_BEYOND} of {FOLD_WINDOW_SECONDS:.0f} s"
        circumstances = Circumstances(client_id, method, detail=beyond, count=window.folded)
        self._queued.append(Event(event_type, Outcome.REFUSED, circumstances, reason))
