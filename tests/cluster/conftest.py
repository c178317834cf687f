"""A cluster of three primaries and their replicas in place of the one server of other tests, and people who never stop refreshing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from cluster.traffic import Traffic

# The same fixtures as where there is one server; only what they stand on differs.
from concurrency.conftest import fleet, fleet_settings
from model.conftest import stepwise
from store_cluster import Cluster
from verifiers.conftest import new_verifier, orders_client, second_service
from watched_servers import WatchedServers

__all__ = ["fleet", "fleet_settings", "new_verifier", "orders_client", "second_service", "stepwise"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Whole, whenever a test gets it and however it leaves it."""
    started = Cluster()
    yield started
    started.end()


@pytest.fixture(scope="session")
def valkey(cluster: Cluster) -> str:
    """What other tests call their store."""
    return cluster.url


@pytest.fixture(scope="session")
def watched_servers() -> Iterator[WatchedServers]:
    """A primary and its replicas, watched by sentinels."""
    started = WatchedServers()
    yield started
    started.end()


@pytest_asyncio.fixture
async def start_traffic() -> AsyncIterator[Callable[..., Any]]:
    """Starts people who refresh all the time."""
    started: list[Traffic] = []

    async def start(fleet: Any, *, people: int, servers: int = 2, **pace: float) -> Traffic:
        stubs = [fleet.add_server() for _ in range(servers)]
        traffic = Traffic(fleet, stubs, **pace)
        started.append(traffic)
        await traffic.begin(people)
        return traffic

    yield start
    for traffic in started:
        await traffic.end()
