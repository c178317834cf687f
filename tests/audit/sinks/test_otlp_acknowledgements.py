"""Which 2xx of HTTP acknowledge events: those that answer the request, and nothing that stands before the backend."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from audit.sinks.receivers import Backend, HttpReceiver, Says, rejecting
from audit.sinks.samples import chain
from audit.sinks.test_otlp import HTTP, To, undelivered
from google.rpc import status_pb2

from identity.audit.sinks.ports import Delivered

PROTOBUF, JSON, HTML = "application/x-protobuf", "application/json", "text/html"
WARNING = b"\x0a\x07\x12\x05slow!"  # partial_success { error_message }
NO_ANSWERS = [
    (b"<html>log in</html>" * 5000, HTML),
    (b"\x0a\x00" * 40_000, PROTOBUF),
    (b"{}" + b" " * 70_000, JSON),
    (b'{"error":"unauthorized","code":401}', JSON),
    (b'{"partialSuccess":{"rejectedSpans":"0","code":401}}', JSON),
    (b'{"partialSuccess":{"rejectedDataPoints":"1"}}', JSON),
    (b"[]", JSON),
    (b'{"partialSuccess":[]}', JSON),
    (b'{"partialSuccess":""}', JSON),
    (b"[" * 60_000, JSON),
    (b"\xff", JSON),
    (b"null", JSON),
    (b'"ok"', JSON),
    (b"", JSON),
    (b"", HTML),
    (b"", "text/plain; charset=utf-8"),
    (b"", "application/octet-stream"),
    (b"{}", PROTOBUF),
    (b"{}", "text/plain"),
    (b"{}", None),
    (b"OK", None),
    (WARNING, None),
    (WARNING, "text/protobuf"),
    (status_pb2.Status(code=16, message="unauthenticated").SerializeToString(), PROTOBUF),
    (b"\x0a\x04\x1a\x02no", PROTOBUF),  # partial_success { 3: "no" }
]
ANSWERS = [
    (200, b"", PROTOBUF),
    (200, b"", "application/x-protobuf; charset=utf-8"),
    (200, b"", "application/protobuf"),
    (200, b"", None),
    (202, b"", None),
    (204, b"", None),
    (200, b"\x0a\x00", PROTOBUF),
    (200, WARNING, PROTOBUF),
    (200, b"{}", JSON),
    (200, b" {} ", "Application/JSON; charset=utf-8"),
    (200, b'{"partialSuccess":{}}', JSON),
    (200, b'{"partialSuccess":null}', JSON),
    (200, b'{"partialSuccess":{"errorMessage":"slow!"}}', JSON),
    (200, b'{"partial_success":{"error_message":"slow!"}}', JSON),
]


@pytest_asyncio.fixture
async def to_http() -> AsyncIterator[To]:
    async with HttpReceiver(Backend()) as backend:
        over_http = To(HTTP, backend)
        yield over_http
        for sink in over_http.sinks:
            await sink.close()


@pytest.mark.parametrize(("body", "content_type"), NO_ANSWERS)
async def test_a_2xx_that_is_no_answer_to_what_was_asked_takes_nothing(
    to_http: To, body: bytes, content_type: str | None
) -> None:
    sink, events = to_http.sink(), chain(5)
    to_http.backend.answer = lambda _: Says(200, body=body, content_type=content_type)
    assert "not OTLP" in undelivered(await sink.deliver(events)).problem
    to_http.backend.answer = lambda _: None
    assert await sink.deliver(events) == Delivered()


@pytest.mark.parametrize(("status", "body", "content_type"), ANSWERS)
async def test_a_2xx_that_is_an_answer_takes_everything(
    to_http: To, status: int, body: bytes, content_type: str | None
) -> None:
    to_http.backend.answer = lambda _: Says(status, body=body, content_type=content_type)
    assert await to_http.sink().deliver(chain(5)) == Delivered()
    assert len(to_http.backend.requests) == 2


async def test_the_answer_for_spans_is_none_for_log_records(to_http: To) -> None:
    """Where one URL answers for both, it is not known what became of the other."""
    body = b'{"partialSuccess":{"rejectedSpans":"1"}}'
    to_http.backend.answer = lambda request: (
        Says(body=body, content_type=JSON) if request.signal == "logs" else None
    )
    assert "logs: the answer is not OTLP" in undelivered(await to_http.sink().deliver(chain(3))).problem


async def test_a_partial_success_in_json_refuses_what_it_rejects(to_http: To) -> None:
    events = chain(9)
    bad = {events[4].event.event_id}
    body = b'{"partialSuccess":{"rejectedSpans":"1","errorMessage":"bad attribute"}}'
    to_http.backend.answer = rejecting(bad, Says(body=body, content_type=JSON))
    delivery = await to_http.sink(with_logs=False).deliver(events)
    assert isinstance(delivery, Delivered)
    assert delivery.refused == {events[4].event.event_id: "traces: partial success: bad attribute"}
