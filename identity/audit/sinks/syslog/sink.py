"""Events to a syslog collector, over TLS, TCP, UDP or a Unix socket.

Syslog has no acknowledgement. Over TLS and TCP an event counts as delivered when the other machine's TCP has acknowledged every byte on a
connection that stays open; what a collector had not read when it ended is lost. Over a Unix socket it counts when the kernel has it,
over UDP when it was sent. This is a mirror for those who look at syslog, and no proof: the proof is a sink that acknowledges.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from identity.audit.chain import ChainedEvent
from identity.audit.sinks.certificates import why_refused
from identity.audit.sinks.encoding import encoded_or_refused
from identity.audit.sinks.ports import Delivered, Delivery, Undelivered
from identity.audit.sinks.syslog.address import SyslogAddress, Way
from identity.audit.sinks.syslog.message import NAME, Sender
from identity.audit.sinks.syslog.stream import EndedError, Patience, Stream, TlsFiles

_SYSTEMS = TlsFiles()
_USUAL = Patience()


class SyslogSink:
    """An ``AuditSink`` for one collector."""

    name = NAME

    def __init__(
        self, address: SyslogAddress, *, files: TlsFiles = _SYSTEMS, patience: Patience = _USUAL
    ) -> None:
        self._address = address
        self._sender = Sender(socket.gethostname(), os.getpid())
        self._patience = patience
        self._way: _Datagrams | Stream = (
            _Datagrams(address, patience) if address.in_datagrams else Stream(address, files, patience)
        )

    async def deliver(self, events: Sequence[ChainedEvent]) -> Delivery:
        """See ``AuditSink``."""
        messages, refused = encoded_or_refused(
            events, lambda item: (item.event.event_id, self._sender.message_of(item))
        )
        delivered = False
        try:
            refused |= await self._way.send(messages)
            delivered = True
            return Delivered(refused)
        except TimeoutError:
            return Undelivered(f"not taken in {self._patience.timeout:g} s")
        except (EndedError, OSError) as error:
            return Undelivered(_problem(error, self._address))
        finally:
            # Half a message may be in a stream that was given up on.
            if not delivered:
                await self._way.close()

    async def close(self) -> None:
        """See ``AuditSink``."""
        await self._way.close()


class _Datagrams:
    """One message each."""

    def __init__(self, address: SyslogAddress, patience: Patience) -> None:
        self._address = address
        self._patience = patience
        self._socket: socket.socket | None = None

    async def send(self, messages: Sequence[tuple[str, bytes]]) -> dict[str, str]:
        """Gives back those that are larger than a datagram can be. Raises ``OSError`` and ``TimeoutError``."""
        loop = asyncio.get_running_loop()
        refused: dict[str, str] = {}
        async with asyncio.timeout(self._patience.timeout):
            connected = self._socket = self._socket or await self._opened()
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


def _problem(error: EndedError | OSError, address: SyslogAddress) -> str:
    with_tls = address.way is Way.TLS
    match error:
        case EndedError(at_once=True):
            return f"{error}; check {'audit.syslog_certificate_file' if with_tls else 'audit.syslog_address'}"
        case EndedError():
            return str(error)
        case ssl.SSLCertVerificationError():
            return why_refused(
                error, address_setting="audit.syslog_address", ca_setting="audit.syslog_ca_file"
            )
        case ssl.SSLError(reason=str(reason)):
            return f"TLS fails ({reason}); check that audit.syslog_address speaks TLS"
        case _:
            return f"cannot be reached: {error.strerror or type(error).__name__}"
