"""Refusals on their way to the outbox of a real store."""

from __future__ import annotations

import asyncio
from typing import Any

from identity.audit.event import Circumstances, Event, EventType, Outcome
from identity.audit.recorder import RefusalRecorder

EVENTS = 250


async def test_what_two_write_at_once_is_written_once(service: Any) -> None:
    """The background and an orderly end take from one queue."""
    outbox = service.server.store.outbox
    recorder = RefusalRecorder(outbox)
    before = await outbox.depth()
    for number in range(EVENTS):
        circumstances = Circumstances("web", "Refresh", detail=str(number))
        recorder.record(Event(EventType.REQUEST_REFUSED, Outcome.REFUSED, circumstances, "FIELD_INVALID"))
    await asyncio.gather(*(recorder.flush() for _ in range(3)))
    assert await outbox.depth() - before == EVENTS
