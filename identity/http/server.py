"""uvicorn inside the service's own event loop, on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Iterator
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

KEEP_ALIVE_SECONDS = 15
REQUEST_SECONDS = 10.0
SHUTDOWN_SECONDS = 3
MAX_HEADER_BYTES = 16 * 1024
MAX_CONNECTIONS = 1000


class HttpServer:
    """Serves one application. Signals are the business of who runs the loop."""

    def __init__(
        self, app: ASGIApp, host: str, port: int, *, request_seconds: float = REQUEST_SECONDS
    ) -> None:
        self._host = host.strip("[]")
        self._port = port
        self._server = _QuietServer(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                server_header=False,
                # One parser wherever it runs, not the fastest that is installed: the limits below are this one's.
                http=functools.partial(_BoundedConnection, request_seconds),  # type: ignore[arg-type]
                ws="none",
                # The peer's address decides who may see spans, so no header changes it.
                proxy_headers=False,
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


class _BoundedConnection(H11Protocol):
    """Closes a connection whose next request does not arrive whole in time.

    uvicorn bounds the pause between requests only: a few connections that say little or nothing would otherwise
    hold all places for good.
    """

    def __init__(self, request_seconds: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._request_seconds = request_seconds
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._wait()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        # The time runs on from the first byte: who drips bytes wins nothing.
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._request_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
