"""The events that wait in the outbox: without a running service, straight from its store, and leaving them as they are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from identity.audit.ports import OutboxView
from identity.audit.recorded_event import RecordedEvent
from identity.config import Settings
from identity.parts import StoreParts

AT_ONCE = 500
LOOK_SECONDS = 0.025
"""Sinks take events quickly, and what all have is gone."""


async def waiting_events(settings: Settings) -> AsyncGenerator[RecordedEvent, None]:
    """Those that are there, each once. Raises ``IdentityError``."""
    async with aclosing(events_as_they_come(settings)) as events:
        async for event in events:
            if event is None:
                return
            yield event


async def events_as_they_come(
    settings: Settings, on_missed: Callable[[int, int], None] | None = None
) -> AsyncGenerator[RecordedEvent | None, None]:
    """Those that are there, and then those that come, without end; ``None`` whenever there are no more at the moment.

    ``on_missed`` is told of a bucket how many went by between two looks. Raises ``IdentityError``.
    """
    parts = StoreParts(settings)
    try:
        view: OutboxView = parts.outbox_view
        places: dict[int, str] = {}
        sequences: dict[int, int] = {}
        while True:
            found = await view.after(places, at_most=AT_ONCE)
            for item in found:
                bucket, sequence = item.event.bucket, item.event.sequence
                if on_missed is not None and sequence > sequences.get(bucket, sequence) + 1:
                    on_missed(bucket, sequence - sequences[bucket] - 1)
                places[bucket], sequences[bucket] = item.place, sequence
                yield item.event
            # Where no page was full, what has come meanwhile is for the next look.
            if max(Counter(item.event.bucket for item in found).values(), default=0) < AT_ONCE:
                yield None
                await asyncio.sleep(LOOK_SECONDS)
    finally:
        await parts.close()
