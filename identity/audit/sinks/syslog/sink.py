"""Events to a syslog collector, over TLS, TCP, UDP or a Unix socket.

Syslog has no acknowledgement. Over TLS and TCP an event counts as delivered when the other machine's TCP has acknowledged every byte, so
that a connection that breaks loses nothing but what the collector itself had not read yet; over a Unix socket when the kernel has it;
over UDP when it was sent. This is a mirror for those who look at syslog, and no proof: the proof is a sink that acknowledges.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import ssl
import struct
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from identity.audit.chain import ChainedEvent
from identity.audit.sinks.encoding import encoded_or_refused
from identity.audit.sinks.ports import Delivered, Delivery, Undelivered
from identity.audit.sinks.syslog.address import SyslogAddress, Way
from identity.audit.sinks.syslog.message import NAME, Sender, framed

TIMEOUT_SECONDS = 10.0
_LOOK_SECONDS = 0.002
_WRITE_BYTES = 64 * 1024


class SyslogSink:
    """An ``AuditSink`` for one collector."""

    name = NAME

    def __init__(
        self,
        address: SyslogAddress,
        *,
        ca_file: Path | None = None,
        certificate_file: Path | None = None,
        private_key_file: Path | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self._sender = Sender(socket.gethostname(), os.getpid())
        self._timeout_seconds = timeout_seconds
        self._way: _Datagrams | _Stream = (
            _Datagrams(address)
            if address.in_datagrams
            else _Stream(address, ca_file, certificate_file, private_key_file)
        )

    async def deliver(self, events: Sequence[ChainedEvent]) -> Delivery:
        """See ``AuditSink``."""
        messages, refused = encoded_or_refused(
            events, lambda item: (item.event.event_id, self._sender.message_of(item))
        )
        delivered = False
        try:
            async with asyncio.timeout(self._timeout_seconds):
                refused |= await self._way.send(messages)
            delivered = True
            return Delivered(refused)
        except TimeoutError:
            return Undelivered(f"not taken in {self._timeout_seconds:g} s")
        except ssl.SSLCertVerificationError:
            return Undelivered("its certificate is not trusted; check audit.syslog_ca_file")
        except OSError as error:
            return Undelivered(f"cannot be reached: {error.strerror or type(error).__name__}")
        finally:
            # Half a message may be in a stream that was given up on.
            if not delivered:
                await self._way.close()

    async def close(self) -> None:
        """See ``AuditSink``."""
        await self._way.close()


class _Datagrams:
    """One message each."""

    def __init__(self, address: SyslogAddress) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    async def send(self, messages: Sequence[tuple[str, bytes]]) -> dict[str, str]:
        """Gives back those that are larger than a datagram can be. Raises ``OSError``."""
        loop = asyncio.get_running_loop()
        connected = self._socket = self._socket or await self._opened()
        refused: dict[str, str] = {}
        for event_id, message in messages:
            try:
                await loop.sock_sendall(connected, message)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                refused[event_id] = f"a message of {len(message)} bytes is larger than a datagram can be"
        return refused

    async def close(self) -> None:
        """Another ``send`` opens again."""
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    async def _opened(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        if self._address.way is Way.UNIX:
            family: socket.AddressFamily = socket.AF_UNIX
            target: Any = self._address.place
        else:
            found = await loop.getaddrinfo(self._address.place, self._address.port, type=socket.SOCK_DGRAM)
            family, target = found[0][0], found[0][4]
        opened = socket.socket(family, socket.SOCK_DGRAM)
        try:
            opened.setblocking(False)
            await loop.sock_connect(opened, target)
        except BaseException:
            opened.close()
            raise
        return opened


class _Stream:
    """One after the other, each behind its length."""

    def __init__(
        self, address: SyslogAddress, ca: Path | None, certificate: Path | None, private_key: Path | None
    ) -> None:
        self._address = address
        self._files = (ca, certificate, private_key)
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, messages: Sequence[tuple[str, bytes]]) -> dict[str, str]:
        """Returns when the other side's TCP has everything. Raises ``OSError``."""
        await self._leave_what_was_ended()
        if self._connection is None:
            self._connection = await self._opened()
        reader, writer = self._connection
        content = memoryview(b"".join(framed(message) for _, message in messages))
        for start in range(0, len(content), _WRITE_BYTES):
            writer.write(content[start : start + _WRITE_BYTES])
            await writer.drain()
        while _unacknowledged(writer):
            if reader.at_eof() or reader.exception() is not None or writer.is_closing():
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            await asyncio.sleep(_LOOK_SECONDS)
        return {}

    async def close(self) -> None:
        """Another ``send`` opens again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection[1].transport.abort()
            with contextlib.suppress(OSError):
                await connection[1].wait_closed()

    async def _leave_what_was_ended(self) -> None:
        """A collector that was restarted has closed its side; what is written after that is lost without an error."""
        if self._connection is None:
            return
        await asyncio.sleep(0)
        reader, writer = self._connection
        if reader.at_eof() or reader.exception() is not None or writer.is_closing():
            await self.close()

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tls = await asyncio.to_thread(_tls, *self._files) if self._address.way is Way.TLS else None
        reader, writer = await asyncio.open_connection(self._address.place, self._address.port, ssl=tls)
        # With a bound of 0, TLS waits for ever: 0 bytes are as many.
        writer.transport.set_write_buffer_limits(high=1, low=0)
        return reader, writer


def _tls(ca: Path | None, certificate: Path | None, private_key: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        context.load_cert_chain(certificate, private_key)
    return context


def _unacknowledged(writer: asyncio.StreamWriter) -> bool:
    """Whether bytes wait, here or in the kernel, for the other side's TCP to acknowledge them (``SIOCOUTQ``)."""
    if writer.transport.get_write_buffer_size():
        return True
    opened = writer.get_extra_info("socket")
    try:
        (waiting,) = struct.unpack("i", fcntl.ioctl(opened.fileno(), termios.TIOCOUTQ, bytes(4)))
    except OSError:
        return False
    return bool(waiting)
