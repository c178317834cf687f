"""What a collector may never have read does not count as delivered without a word: those that hang up, at once or later."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from audit.sinks.collectors import Receiver, reset
from audit.sinks.samples import chain
from certificates import Authority

from identity.audit.sinks.ports import Delivered, Undelivered
from identity.audit.sinks.syslog.address import SyslogAddress, Way
from identity.audit.sinks.syslog.sink import SyslogSink
from identity.audit.sinks.syslog.stream import Patience, TlsFiles

# The relay runs on uvloop, whose transports forget their sockets; one inside the service runs on either.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

LONG = Patience(timeout=60.0, settle=30.0)
"""Longer than any collector here needs to hang up."""
SHORT = Patience(settle=0.05)


def sink_to(port: int, patience: Patience) -> SyslogSink:
    return SyslogSink(SyslogAddress(Way.TCP, "127.0.0.1", port), patience=patience)


class Refusing:
    """A collector over TLS that wants a client certificate of its own authority."""

    def __init__(self, folder: Path, version: ssl.TLSVersion) -> None:
        self.ours, self.theirs = Authority(folder, "ca"), Authority(folder, "other")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*self.ours.issue("server"))
        tls.load_verify_locations(self.ours.file)
        tls.verify_mode = ssl.CERT_REQUIRED
        tls.maximum_version = version
        self.receiver = Receiver(tls)

    def sink(self, certificate: Path | None, key: Path | None, patience: Patience) -> SyslogSink:
        address = SyslogAddress(Way.TLS, "127.0.0.1", self.receiver.port)
        return SyslogSink(address, files=TlsFiles(self.ours.file, certificate, key), patience=patience)


@pytest_asyncio.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def refusing(request: Any, tmp_path: Path) -> AsyncIterator[Refusing]:
    collector = Refusing(tmp_path, request.param)
    await collector.receiver.start()
    yield collector
    await collector.receiver.stop()


@pytest.mark.parametrize("of_another", [False, True])
async def test_a_collector_that_refuses_the_client_certificate_has_taken_nothing(
    refusing: Refusing, of_another: bool
) -> None:
    certificate, key = refusing.theirs.issue("relay") if of_another else (None, None)
    sink, events = refusing.sink(certificate, key, LONG), chain(20)
    for event in events:
        delivery = await sink.deliver([event])
        assert isinstance(delivery, Undelivered)
        assert "check audit.syslog_certificate_file" in delivery.problem
    assert not refusing.receiver.messages
    trusted = refusing.sink(*refusing.ours.issue("relay"), SHORT)
    assert await trusted.deliver(events) == Delivered()
    await trusted.close()


async def test_a_collector_that_accepts_and_resets_has_taken_nothing() -> None:
    """A balancer without a backend does."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)

        async def hang_up() -> None:
            while True:
                connection, _ = await loop.sock_accept(listening)
                reset(connection)

        hanging_up = asyncio.create_task(hang_up())
        sink = sink_to(listening.getsockname()[1], LONG)
        for event in chain(40):
            delivery = await sink.deliver([event])
            assert isinstance(delivery, Undelivered)
        assert isinstance(await sink.deliver(chain(500, detail="x" * 20_000)), Undelivered)
        hanging_up.cancel()


async def test_a_connection_that_ends_within_a_moment_has_taken_nothing(wait_until: Any) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        sink = sink_to(listening.getsockname()[1], LONG)
        delivering = asyncio.create_task(sink.deliver(chain(1)))
        connection, _ = await loop.sock_accept(listening)
        while not (await loop.sock_recv(connection, 65536)).endswith(b"}"):
            pass
        # All of it was read, so this end is an orderly one.
        connection.close()
        delivery = await delivering
        assert isinstance(delivery, Undelivered)
        assert "ends the connection" in delivery.problem
        assert "audit.syslog_address" in delivery.problem


@pytest.mark.parametrize("with_reset", [False, True])
async def test_a_connection_that_ends_soon_after_it_took_events_is_told_of_once(with_reset: bool) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        sink = sink_to(listening.getsockname()[1], Patience(settle=0.05, doubt=60.0))
        delivering = asyncio.create_task(sink.deliver(chain(1)))
        connection, _ = await loop.sock_accept(listening)
        assert await delivering == Delivered()
        # The loop learns of it no sooner than the sink looks.
        if with_reset:
            reset(connection)
        else:
            connection.close()
        delivery = await sink.deliver(chain(1))
        assert isinstance(delivery, Undelivered)
        assert "after it took events, which it may not have read" in delivery.problem
        assert await sink.deliver(chain(1)) == Delivered()
        await sink.close()


async def test_a_quiet_connection_that_ends_is_replaced_without_a_word(wait_until: Any) -> None:
    receiver = Receiver()
    await receiver.start()
    sink = sink_to(receiver.port, Patience(settle=0.05, doubt=0.0))
    assert await sink.deliver(chain(1)) == Delivered()
    await wait_until(lambda: len(receiver.messages) == 1)
    await receiver.stop()
    await receiver.start()
    assert await sink.deliver(chain(1)) == Delivered()
    await wait_until(lambda: len(receiver.messages) == 2)
    await sink.close()
    await receiver.stop()


async def test_what_waits_on_a_connection_that_is_cut_is_not_taken(wait_until: Any) -> None:
    """Nothing waits any more in a connection that was reset: that is no acknowledgement."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.setblocking(False)
        sink = sink_to(listening.getsockname()[1], SHORT)
        delivering = asyncio.create_task(sink.deliver(chain(1)))
        connection, _ = await loop.sock_accept(listening)
        assert await delivering == Delivered()
        delivering = asyncio.create_task(sink.deliver(chain(200, detail="x" * 50_000)))
        await loop.sock_recv(connection, 1)
        reset(connection)
        assert isinstance(await delivering, Undelivered)
        await sink.close()
