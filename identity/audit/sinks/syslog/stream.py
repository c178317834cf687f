"""Messages over TLS or TCP: one after the other, each behind its length, on a connection that stays open.

Only two things can be known of what was sent: that the other machine's TCP has every byte, and that the connection has not ended. Neither
says that a collector has read anything. A balancer without a backend accepts and hangs up; with TLS 1.3 a collector judges the certificate
of whoever connects when that has long begun to send. So a connection has to outlast its first messages by a moment before they count, and
one that ends soon after it has taken some is told of, since nobody can say what became of those.
"""

from __future__ import annotations

import asyncio
import fcntl
import select
import ssl
import struct
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from identity.audit.sinks.syslog.address import SyslogAddress, Way
from identity.audit.sinks.syslog.message import framed

TIMEOUT_SECONDS = 10.0
SETTLE_SECONDS = 1.0
DOUBT_SECONDS = 10.0
_LOOK_SECONDS = 0.002
_WRITE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds: for sending; how long a connection outlasts its first messages before they count; how long after messages
    its end casts doubt on them."""

    timeout: float = TIMEOUT_SECONDS
    settle: float = SETTLE_SECONDS
    doubt: float = DOUBT_SECONDS


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM. Without a CA, the system's."""

    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Reads them. Raises ``OSError``."""
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.private_key)
        return context


class EndedError(Exception):
    """The collector has ended the connection. ``at_once``: before anything counted as taken."""

    def __init__(self, text: str, *, at_once: bool) -> None:
        super().__init__(text)
        self.at_once = at_once


class Stream:
    """To one collector."""

    def __init__(self, address: SyslogAddress, files: TlsFiles, patience: Patience) -> None:
        self._address = address
        self._files = files
        self._patience = patience
        self._connection: _Connection | None = None

    async def send(self, messages: Sequence[tuple[str, bytes]]) -> dict[str, str]:
        """Returns when the other side's TCP has everything, and the connection is open still. Raises ``EndedError``, ``OSError``
        and ``TimeoutError``; the connection is to be closed then: half a message may be in it."""
        await self._leave_what_was_ended()
        async with asyncio.timeout(self._patience.timeout):
            if self._connection is None:
                self._connection = await self._opened()
            connection = self._connection
            await connection.send(b"".join(framed(message) for _, message in messages))
        if connection.taken_at is None:
            await connection.outlast(self._patience.settle)
        connection.taken_at = time.monotonic()
        return {}

    async def close(self) -> None:
        """Another ``send`` opens again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _leave_what_was_ended(self) -> None:
        """Collectors are restarted and quiet connections are closed, and what is written after that is lost without an error."""
        if (connection := self._connection) is None or (ended_at := connection.ended_at()) is None:
            return
        await self.close()
        after = ended_at - (connection.taken_at or ended_at)
        if after < self._patience.doubt:
            raise EndedError(
                f"the collector ended the connection {after:.1f} s after it took events, which it may not have read",
                at_once=False,
            )

    async def _opened(self) -> _Connection:
        tls = await asyncio.to_thread(self._files.context) if self._address.way is Way.TLS else None
        return await _connected(self._address, tls)


class _Connection(asyncio.Protocol):
    """Knows when the other side has ended it."""

    def __init__(self) -> None:
        self.taken_at: float | None = None
        """When the other side's TCP was last found to have everything, of a connection that has outlasted it."""
        self._ended_at: float | None = None
        self._why: Exception | None = None
        self._lost = asyncio.Event()
        self._raw: asyncio.Transport
        self._transport: asyncio.Transport

    def uses(self, raw: asyncio.Transport, transport: asyncio.Transport) -> None:
        """What is written to, and what that writes to: with TLS another, with a buffer of its own."""
        self._raw, self._transport = raw, transport

    def eof_received(self) -> None:
        """See ``asyncio.Protocol``: whoever has ended its side is not sent anything more."""
        self._note_end()

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._note_end()
        self._why = exc
        self._lost.set()

    async def send(self, content: bytes) -> None:
        """Returns when the other side's TCP has all of it. Raises ``EndedError``."""
        rest = memoryview(content)
        while rest:
            self._require_open()
            self._transport.write(rest[:_WRITE_BYTES])
            rest = rest[_WRITE_BYTES:]
            await asyncio.sleep(0)
            await _until(lambda: not self._buffered())
        await _until(lambda: not (self._buffered() or self._unacknowledged()))

    async def outlast(self, seconds: float) -> None:
        """Returns when it has been open for so long. Raises ``EndedError``."""
        try:
            async with asyncio.timeout(seconds):
                await self._lost.wait()
        except TimeoutError:
            pass
        self._require_open()

    def ended_at(self) -> float | None:
        """When this was noticed, of a connection that has ended."""
        if self._ended_at is None and (self._raw.is_closing() or _has_ended(self._raw)):
            self._note_end()
        return self._ended_at

    async def close(self) -> None:
        """Returns when it is closed."""
        self._transport.abort()
        await self._lost.wait()

    def _note_end(self) -> None:
        if self._ended_at is None:
            self._ended_at = time.monotonic()

    def _require_open(self) -> None:
        if self.ended_at() is None:
            return
        raise _ended(self._why, at_once=self.taken_at is None)

    def _buffered(self) -> bool:
        """Whether bytes wait here. Raises ``EndedError``."""
        self._require_open()
        return bool(self._transport.get_write_buffer_size() or self._raw.get_write_buffer_size())

    def _unacknowledged(self) -> bool:
        """Whether bytes wait in the kernel for the other side's TCP to acknowledge them (``SIOCOUTQ``). Raises ``EndedError``."""
        waiting = _in_the_kernel(self._raw)
        # After it: none wait in a connection that was reset, either.
        self._require_open()
        return bool(waiting)


async def _connected(address: SyslogAddress, tls: ssl.SSLContext | None) -> _Connection:
    loop = asyncio.get_running_loop()
    raw, connection = await loop.create_connection(_Connection, address.place, address.port)
    connection.uses(raw, raw)
    if tls is not None:
        try:
            transport = await loop.start_tls(raw, connection, tls, server_hostname=address.place)
        except BaseException as error:
            raw.abort()
            if isinstance(error, ConnectionError) or _is_alert(error):
                raise _ended(error, at_once=True) from None
            raise
        if transport is None:
            raise _ended(None, at_once=True)
        connection.uses(raw, transport)
    return connection


def _ended(why: BaseException | None, *, at_once: bool) -> EndedError:
    # A certificate that is refused is told in an alert, unless the reset that follows is faster.
    told = f" ({why.reason})" if isinstance(why, ssl.SSLError) and _is_alert(why) else ""
    return EndedError(f"the collector ends the connection{told}", at_once=at_once)


def _is_alert(error: BaseException) -> bool:
    return isinstance(error, ssl.SSLError) and "_ALERT_" in (error.reason or "")


async def _until(condition: Callable[[], bool]) -> None:
    """Nobody tells when bytes are acknowledged."""
    while True:
        if condition():
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _in_the_kernel(raw: asyncio.Transport) -> int:
    (waiting,) = struct.unpack("i", fcntl.ioctl(_descriptor(raw), termios.TIOCOUTQ, bytes(4)))
    return int(waiting)


def _has_ended(raw: asyncio.Transport) -> bool:
    """As the kernel knows it, before the loop does."""
    poll = select.poll()
    poll.register(_descriptor(raw), select.POLLRDHUP)
    return bool(poll.poll(0))


def _descriptor(raw: asyncio.Transport) -> int:
    descriptor: int = raw.get_extra_info("socket").fileno()
    return descriptor
