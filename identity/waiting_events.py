"""The events that wait in the outbox: without a running service, straight from its store, and leaving them as they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from identity.audit.ports import OutboxView, Waiting
from identity.audit.recorded_event import RecordedEvent
from identity.config import Settings
from identity.parts import StoreParts

AT_ONCE = 500
LOOK_SECONDS = 0.025
"""Sinks take events quickly, and what all have is gone."""


async def waiting_events(settings: Settings) -> AsyncIterator[RecordedEvent]:
    """Those that are there, by bucket pages; each once. Raises ``IdentityError``."""
    async with aclosing(_pages(settings, is_endless=False)) as pages:
        async for item, _ in pages:
            yield item.event


async def new_events(
    settings: Settings, on_missed: Callable[[int, int], None]
) -> AsyncIterator[RecordedEvent]:
    """Those that are there, and then those that come, without end.

    ``on_missed`` is told of a bucket how many went by between two looks. Raises ``IdentityError``.
    """
    async with aclosing(_pages(settings, is_endless=True)) as pages:
        async for item, missed in pages:
            if missed:
                on_missed(item.event.bucket, missed)
            yield item.event


async def _pages(settings: Settings, *, is_endless: bool) -> AsyncIterator[tuple[Waiting, int]]:
    parts = StoreParts(settings)
    try:
        view: OutboxView = parts.outbox_view
        places: dict[int, str] = {}
        sequences: dict[int, int] = {}
        while True:
            found = await view.after(places, at_most=AT_ONCE)
            for item in found:
                bucket, sequence = item.event.bucket, item.event.sequence
                missed = sequence - sequences[bucket] - 1 if bucket in sequences else 0
                # By place: a bucket's events are in the order of their places.
                places[bucket], sequences[bucket] = item.place, sequence
                yield item, max(missed, 0)
            if not found:
                if not is_endless:
                    return
                await asyncio.sleep(LOOK_SECONDS)
    finally:
        await parts.close()
