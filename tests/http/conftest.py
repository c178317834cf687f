"""The HTTP application by itself: keys, readiness and routes as a test gives them, over a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest_asyncio
from prometheus_client import CollectorRegistry
from starlette.routing import BaseRoute

from identity.http.app import create_app
from identity.http.server import HttpServer
from identity.keys.service import PublishedKeys
from identity.readiness import Problem


@dataclass
class Parts:
    """What the application is made of; a test changes it while it runs."""

    keys: PublishedKeys = field(
        default_factory=lambda: PublishedKeys(({"kid": "a", "kty": "EC"},), "v1", 1800)
    )
    problems: Sequence[Problem] = ()
    fault: Exception | None = None

    def published(self) -> PublishedKeys:
        return self.keys

    async def readiness(self) -> Sequence[Problem]:
        if self.fault is not None:
            raise self.fault
        return self.problems


@asynccontextmanager
async def running(
    parts: Parts, routes: Sequence[BaseRoute], host: str, **limits: Any
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(
        keys=parts,
        issuer="https://id.example",
        readiness=parts.readiness,
        metrics=CollectorRegistry(),
        extra_routes=routes,
    )
    server = HttpServer(app, host, 0, **limits)
    port = await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
            yield client
    finally:
        await server.stop()


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[httpx.AsyncClient]]]:
    """Starts an application and answers with a client of it; both end with the test."""
    async with AsyncExitStack() as stack:

        async def start(
            parts: Parts | None = None,
            routes: Sequence[BaseRoute] = (),
            host: str = "127.0.0.1",
            **limits: Any,
        ) -> httpx.AsyncClient:
            return await stack.enter_async_context(running(parts or Parts(), routes, host, **limits))

        yield start


@pytest_asyncio.fixture
async def parts() -> Parts:
    return Parts()
