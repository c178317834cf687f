"""Real collectors of syslog messages: one that takes them, and some that hang up."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Sequence

from identity.audit.chain import ChainedEvent
from identity.audit.sinks.file.reader import parse_any_line

HEADER = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z) ([!-~]{1,255}) (grpc-identity) (\d{1,128}) "
    rb"([!-~]{1,32}) - (.*)",
    re.DOTALL,
)


def event_of(message: bytes) -> ChainedEvent:
    """What a message tells."""
    matched = HEADER.fullmatch(message)
    assert matched is not None
    return parse_any_line(matched[7]).event


class Receiver:
    """Counts octets, as RFC 6587 says."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.messages: list[bytes] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._receive, "127.0.0.1", self.port, ssl=self._tls, limit=4096
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)
        self._writers.clear()

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while True:
                await self.reads.wait()
                size = int(await reader.readuntil(b" "))
                self.messages.append(await reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @property
    def events(self) -> Sequence[ChainedEvent]:
        return [event_of(message) for message in self.messages]


def reset(connection: socket.socket) -> None:
    """Ends it with a reset, whatever it has not read."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
