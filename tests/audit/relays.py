"""Relays at work for as long as a block lasts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any


@contextlib.asynccontextmanager
async def running(*relays: Any) -> AsyncIterator[Sequence[asyncio.Task[None]]]:
    """Their tasks."""
    tasks = [asyncio.create_task(relay.run()) for relay in relays]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
