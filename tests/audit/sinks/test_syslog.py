"""Messages reach a real syslog receiver: framed, with what RFC 5424 wants before them, and none lost when it is restarted."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from audit.sinks.collectors import HEADER, Receiver, event_of
from audit.sinks.samples import any_event, chain
from certificates import Authority
from hypothesis import given

from identity.audit.chain import GENESIS, chained
from identity.audit.recorded_event import RecordedEvent
from identity.audit.sinks.ports import Delivered, Undelivered
from identity.audit.sinks.syslog.address import SyslogAddress, SyslogAddressError, Way
from identity.audit.sinks.syslog.message import Sender, framed
from identity.audit.sinks.syslog.sink import SyslogSink
from identity.audit.sinks.syslog.stream import Patience, TlsFiles

SENDER = Sender("host.example", 42)
SHORT = Patience(settle=0.05)


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    running = Receiver()
    await running.start()
    yield running
    await running.stop()


def sink_to(receiver: Receiver, patience: Patience = SHORT) -> SyslogSink:
    return SyslogSink(SyslogAddress(Way.TCP, "127.0.0.1", receiver.port), patience=patience)


@given(any_event)
def test_a_message_is_as_the_rfc_has_it_and_tells_the_event(original: RecordedEvent) -> None:
    (item,) = chained(GENESIS, [original])
    assert event_of(SENDER.message_of(item)) == item


@pytest.mark.parametrize(
    ("outcome", "event_type", "priority"),
    [
        ("success", "tokens.issued", 13 * 8 + 6),
        ("refused", "refresh.refused", 13 * 8 + 4),
        ("refused", "refresh.reuse_detected", 13 * 8 + 3),
    ],
)
def test_the_priority_says_log_audit_and_how_severe(outcome: str, event_type: str, priority: int) -> None:
    (item,) = chain(1, outcome=outcome, type=event_type, time_ms=1_790_000_000_120)
    matched = HEADER.fullmatch(SENDER.message_of(item))
    assert matched is not None
    assert matched.groups()[:6] == (
        str(priority).encode(),
        b"2026-09-21T14:13:20.120Z",
        b"host.example",
        b"grpc-identity",
        b"42",
        event_type.encode(),
    )


def test_a_message_is_behind_its_length_in_octets() -> None:
    assert framed("<1>ä".encode()) == "5 <1>ä".encode()


async def test_events_arrive_over_tcp_in_their_order(receiver: Receiver, wait_until: Any) -> None:
    sink, events = sink_to(receiver), chain(500, subject="Ülkü 👩")
    assert await sink.deliver(events[:300]) == Delivered()
    assert await sink.deliver(events[300:]) == Delivered()
    await wait_until(lambda: len(receiver.messages) == 500)
    assert receiver.events == events
    await sink.close()


async def test_a_receiver_that_was_restarted_gets_what_comes_after(
    receiver: Receiver, wait_until: Any
) -> None:
    sink, events = sink_to(receiver), chain(3)
    assert await sink.deliver(events[:1]) == Delivered()
    await wait_until(lambda: receiver.messages)
    await receiver.stop()
    assert isinstance(await sink.deliver(events[1:2]), Undelivered)
    await receiver.start()
    assert await sink.deliver(events[1:]) == Delivered()
    await wait_until(lambda: len(receiver.messages) == 3)
    assert receiver.events == events
    await sink.close()


async def test_one_that_reads_nothing_has_taken_nothing_and_half_a_message_does_not_confuse_it(
    receiver: Receiver, wait_until: Any
) -> None:
    receiver.reads.clear()
    sink = sink_to(receiver, Patience(timeout=0.5))
    events = chain(40, detail="x" * 500_000)
    delivery = await sink.deliver(events)
    assert isinstance(delivery, Undelivered)
    assert "not taken in 0.5 s" in delivery.problem
    receiver.reads.set()
    patient = sink_to(receiver)
    assert await patient.deliver(events) == Delivered()
    await wait_until(lambda: set(range(1, 41)) <= {each.event.sequence for each in receiver.events})
    await patient.close()


async def test_tls_with_an_authority_of_ones_own_and_a_client_certificate(
    tmp_path: Path, wait_until: Any
) -> None:
    ours, theirs = Authority(tmp_path, "ca"), Authority(tmp_path, "other")
    certificate, key = ours.issue("server")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    tls.load_verify_locations(ours.file)
    tls.verify_mode = ssl.CERT_REQUIRED
    receiver = Receiver(tls)
    await receiver.start()
    address = SyslogAddress.parse(f"tls://127.0.0.1:{receiver.port}")
    own_certificate, own_key = ours.issue("relay")
    untrusting = SyslogSink(address, files=TlsFiles(theirs.file, own_certificate, own_key))
    delivery = await untrusting.deliver(chain(1))
    assert isinstance(delivery, Undelivered)
    assert "audit.syslog_ca_file" in delivery.problem
    sink, events = (
        SyslogSink(address, files=TlsFiles(ours.file, own_certificate, own_key), patience=SHORT),
        chain(200),
    )
    assert await sink.deliver(events) == Delivered()
    await wait_until(lambda: len(receiver.messages) == 200)
    assert receiver.events == events
    await sink.close()
    await receiver.stop()


async def test_a_unix_socket_gets_a_message_a_datagram(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(path))
        log.setblocking(False)
        sink, events = SyslogSink(SyslogAddress.parse(f"unix://{path}")), chain(50)
        delivering = asyncio.create_task(sink.deliver(events))
        loop = asyncio.get_running_loop()
        received = [event_of(await asyncio.wait_for(loop.sock_recv(log, 65536), 15)) for _ in events]
        assert await delivering == Delivered()
        assert received == events
        await sink.close()


async def test_udp_gets_a_message_a_datagram_and_what_is_too_large_for_one_is_refused_for_good() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as log:
        log.bind(("127.0.0.1", 0))
        log.setblocking(False)
        port = log.getsockname()[1]
        sink = SyslogSink(SyslogAddress.parse(f"udp://127.0.0.1:{port}"))
        small, large = chain(1), chain(2, detail="x" * 70_000)[1:]
        delivery = await sink.deliver([*small, *large])
        assert isinstance(delivery, Delivered)
        assert delivery.refused.keys() == {large[0].event.event_id}
        received = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(log, 65536), 15)
        assert event_of(received) == small[0]
        await sink.close()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "unix:///none/log", "tls://127.0.0.1:1"])
async def test_where_nobody_listens_nothing_is_delivered(address: str) -> None:
    delivery = await SyslogSink(SyslogAddress.parse(address)).deliver(chain(1))
    assert isinstance(delivery, Undelivered)
    assert "cannot be reached" in delivery.problem


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tls://logs.example", SyslogAddress(Way.TLS, "logs.example", 6514)),
        ("tcp://logs.example:1514", SyslogAddress(Way.TCP, "logs.example", 1514)),
        ("udp://[::1]", SyslogAddress(Way.UDP, "::1", 514)),
        ("unix:///dev/log", SyslogAddress(Way.UNIX, "/dev/log")),
    ],
)
def test_an_address(text: str, address: SyslogAddress) -> None:
    assert SyslogAddress.parse(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "logs.example:514", "http://a", "tcp://", "tcp://a/b", "tcp://a:b", "tcp://a:99999", "unix://a/b"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(SyslogAddressError):
        SyslogAddress.parse(text)
