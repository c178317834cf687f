"""uvicorn inside the service's own event loop, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

KEEP_ALIVE_SECONDS = 15
SHUTDOWN_SECONDS = 3
MAX_HEADER_BYTES = 16 * 1024
MAX_CONNECTIONS = 1000


class HttpServer:
    """Serves one application. Signals are the business of who runs the loop."""

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self._host = host.strip("[]")
        self._port = port
        self._server = _QuietServer(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,
                lifespan="off",
                loop="none",
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
                limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listens, and returns the port. Raises ``OSError`` when the address is in use."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.create_server((self._host, self._port), family=family, backlog=128)
        port: int = listener.getsockname()[1]
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("the HTTP server ended at once")
            await asyncio.sleep(0.005)
        return port

    async def stop(self) -> None:
        """Lets requests under way finish, for a few seconds."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


class _QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
