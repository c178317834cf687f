"""A claims source on a real socket, and services that ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from claims_source.source import Source


@pytest_asyncio.fixture
async def source() -> AsyncIterator[Source]:
    """A source for one test."""
    running = Source()
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
def start_asking(make_settings: Any, start_service: Any, source: Source) -> Callable[..., Any]:
    """Starts a service that asks the source; keywords are settings of the section."""

    async def start(**chosen: Any) -> Any:
        # Generous, so that a busy machine is not taken for an outage; tests of hanging say less.
        section = {"target": source.target, "timeout_ms": 10_000, "allowed_claims": ["tenant", "plan"]}
        return await start_service(make_settings(claims_source=section | chosen))

    return start


@pytest_asyncio.fixture
async def service(start_asking: Any) -> Any:
    """One with the default policies, in place of the one that asks nobody."""
    return await start_asking()


@pytest.fixture
def events_of(wait_until: Any) -> Callable[..., Any]:
    """What was recorded about a subject, oldest first; what was queued included."""

    async def read(service: Any, subject: str = "alice") -> list[dict[str, str]]:
        await wait_until(lambda: not service.server._recorder._queued)
        redis, keys = service.server.store.connection.redis, service.server.store.keys
        events = [
            {name.decode(): value.decode() for name, value in fields.items()}
            for bucket in keys.buckets
            for _, fields in await redis.xrange(bucket.outbox)
        ]
        return [event for event in events if event["subject"] == subject]

    return read
