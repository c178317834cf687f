"""A way to a store that can be long, be cut, or lead elsewhere: for what depends on where the store is. Tests use it, too."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

__all__ = ["Way"]


class Way:
    """A TCP proxy to a store. ``delay_seconds`` is how much longer an answer takes; bytes keep their order."""

    def __init__(self, port: int) -> None:
        self.upstream_port = port
        self.delay_seconds = 0.0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """For the service."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def open(self) -> None:
        """Starts to listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def lead_to(self, port: int) -> None:
        """Cuts what is open; what comes next goes there."""
        self.upstream_port = port
        for writer in list(self._writers):
            writer.close()

    async def close(self) -> None:
        """Ends it."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                there, back = await asyncio.open_connection("127.0.0.1", self.upstream_port)
                self._writers.add(back)
                try:
                    # Whichever side ends first ends both.
                    pumps = [
                        asyncio.create_task(self._pump(reader, back, delayed=False)),
                        asyncio.create_task(self._pump(there, writer, delayed=True)),
                    ]
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                    for pump in pumps:
                        pump.cancel()
                    await asyncio.gather(*pumps, return_exceptions=True)
                finally:
                    self._writers.discard(back)
                    back.close()
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delayed: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        waiting: deque[tuple[float, bytes]] = deque()
        arrived = asyncio.Event()

        async def deliver() -> None:
            while True:
                while not waiting:
                    arrived.clear()
                    await arrived.wait()
                due, chunk = waiting.popleft()
                await asyncio.sleep(max(0.0, due - loop.time()))
                writer.write(chunk)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        try:
            while chunk := await reader.read(65536):
                waiting.append((loop.time() + (self.delay_seconds if delayed else 0.0), chunk))
                arrived.set()
        finally:
            delivering.cancel()
