"""A claims source on a real socket, and services that ask it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
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


@pytest_asyncio.fixture
async def service(make_settings: Any, start_service: Any, source: Source, request: Any) -> Any:
    """A service that asks the source; its parameter, if it has one, is settings of the section."""
    # Generous, so that a busy machine is not taken for an outage; tests of hanging say less.
    section = {"target": source.target, "timeout_ms": 10_000, "allowed_claims": ["tenant", "plan"]}
    return await start_service(make_settings(claims_source=section | getattr(request, "param", {})))


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


@pytest.fixture
def until_answered(wait_until: Any) -> Callable[..., Any]:
    """Calls until there is an answer: the source may be thought away for a while, or be late on a busy machine."""

    async def call_until(call: Callable[[], Any]) -> Any:
        answers: list[Any] = []

        async def is_answered() -> bool:
            with contextlib.suppress(grpc.aio.AioRpcError):
                answers.append(await call())
            return bool(answers)

        await wait_until(is_answered)
        return answers[0]

    return call_until
