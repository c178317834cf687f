"""An event that a sink cannot say is refused by that sink, with a reason; the others of its delivery go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit.sinks.receivers import Backend, HttpReceiver
from audit.sinks.samples import LAST_TIME_MS, any_event_at_all, chain, event
from audit.sinks.test_otlp import HTTP, sink_to
from hypothesis import given

from identity.audit.chain import GENESIS, ChainedEvent, chained
from identity.audit.line import line_of
from identity.audit.recorded_event import RecordedEvent
from identity.audit.sinks.encoding import encoded_or_refused
from identity.audit.sinks.file.ocsf import ocsf_line_of
from identity.audit.sinks.file.reader import read_events
from identity.audit.sinks.file.sink import FileSink
from identity.audit.sinks.otlp.spans import encoded
from identity.audit.sinks.ports import Delivered
from identity.audit.sinks.syslog.message import Sender

ENCODERS: dict[str, Callable[[ChainedEvent], Any]] = {
    "otlp": lambda item: encoded(item, trusted=lambda _: True, with_log=True),
    "otlp, traces only": lambda item: encoded(item, trusted=lambda _: False, with_log=False),
    "file": lambda item: line_of(item, "file"),
    "ocsf": lambda item: ocsf_line_of(item, "file"),
    "syslog": Sender("host", 7).message_of,
}


@pytest.mark.parametrize("encoder", ENCODERS)
@given(strange=any_event_at_all)
def test_every_event_is_said_or_refused_and_never_stops_the_others(
    encoder: str, strange: RecordedEvent
) -> None:
    events = list(chained(GENESIS, [event(1), strange, event(3)]))
    items, refused = encoded_or_refused(events, ENCODERS[encoder])
    assert len(items) + len(refused) == 3
    assert set(refused) <= {strange.event_id}
    assert all("cannot be encoded" in problem for problem in refused.values())


def test_a_time_that_is_no_fixed64_is_one_of_those() -> None:
    """Else the property above might hold because nothing is strange."""
    (item,) = chained(GENESIS, [event(1, occurred_at_ms=LAST_TIME_MS)])
    refusals = {name: bool(encoded_or_refused([item], encode)[1]) for name, encode in ENCODERS.items()}
    assert refusals == {
        "otlp": True,
        "otlp, traces only": True,
        "file": False,
        "ocsf": False,
        "syslog": False,
    }


def test_a_defect_that_hits_every_event_refuses_none() -> None:
    def broken(_: ChainedEvent) -> bytes:
        raise KeyError

    with pytest.raises(KeyError):
        encoded_or_refused(chain(3), broken)


def test_that_there_is_no_memory_refuses_none() -> None:
    def tired(item: ChainedEvent) -> bytes:
        if item.event.sequence == 2:
            raise MemoryError
        return b""

    with pytest.raises(MemoryError):
        encoded_or_refused(chain(3), tired)


async def test_a_backend_gets_the_others_of_a_delivery_and_what_it_cannot_be_told_is_refused() -> None:
    far = [event(1), event(2, occurred_at_ms=LAST_TIME_MS), event(3)]
    events = list(chained(GENESIS, far))
    async with HttpReceiver(Backend()) as backend:
        sink = sink_to(backend.url, HTTP)
        delivery = await sink.deliver(events)
        await sink.close()
        assert delivery == Delivered({events[1].event.event_id: "it cannot be encoded: ValueError"})
        for signal in ("traces", "logs"):
            assert backend.ids(signal) == [events[0].event.event_id, events[2].event.event_id]


async def test_a_file_gets_the_others_of_a_delivery(tmp_path: Path) -> None:
    strange = event(2, outcome="unheard of")
    events = list(chained(GENESIS, [event(1), strange, event(3)]))
    sink = FileSink(tmp_path / "audit.jsonl", form="ocsf")
    delivery = await sink.deliver(events)
    alone = await sink.deliver(events[1:2])
    await sink.close()
    read = [item.event.sequence for item in read_events(tmp_path / "audit.jsonl")]
    assert delivery == alone == Delivered({strange.event_id: "it cannot be encoded: ValueError"})
    assert read == [1, 3]
