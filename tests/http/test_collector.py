"""The receiver of spans for development: what it keeps, what it shows, and to whom."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from identity.http.collector import MAX_BODY_BYTES, MAX_SPAN_BYTES, MAX_SPANS, DevelopmentCollector

Request = trace_service_pb2.ExportTraceServiceRequest
GZIP = {"Content-Encoding": "gzip"}


@pytest_asyncio.fixture
async def http(serve: Callable[..., Awaitable[httpx.AsyncClient]]) -> httpx.AsyncClient:
    return await serve(routes=DevelopmentCollector().routes())


def a_request(name: str = "tokens.issued", *, session_id: str = "s1", spans: int = 1) -> Any:
    request = Request()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(spans):
        span = scope.spans.add(name=name, trace_id=bytes(15) + b"\1", span_id=bytes(7) + b"\2")
        span.start_time_unix_nano = number
        span.attributes.add(key="session.id").value.string_value = session_id
    return request


async def spans(http: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    answer = await http.get(f"/dev/spans{query}")
    assert answer.status_code == 200
    shown: list[dict[str, Any]] = answer.json()["spans"]
    return shown


async def test_spans_are_kept_and_found_by_session(http: httpx.AsyncClient) -> None:
    body = a_request().SerializeToString()
    assert (await http.post("/v1/traces", content=body)).status_code == 200
    zipped = await http.post("/v1/traces", content=gzip.compress(body), headers=GZIP)
    assert (zipped.status_code, zipped.headers["content-type"]) == (200, "application/x-protobuf")
    await http.post("/v1/traces", content=a_request(session_id="s2").SerializeToString())
    assert [span["attributes"]["session.id"] for span in await spans(http)] == ["s1", "s1", "s2"]
    assert await spans(http, "?session_id=other") == []
    (span,) = await spans(http, "?session_id=s2")
    assert span == {
        "name": "tokens.issued",
        "trace_id": "0" * 31 + "1",
        "span_id": "0" * 15 + "2",
        "parent_span_id": "",
        "start_time_unix_nano": 0,
        "attributes": {"session.id": "s2"},
    }


async def test_the_last_are_shown_and_no_more_than_asked_for(http: httpx.AsyncClient) -> None:
    await http.post("/v1/traces", content=a_request(spans=MAX_SPANS + 5).SerializeToString())
    shown = await spans(http, f"?limit={MAX_SPANS}")
    assert [shown[0]["start_time_unix_nano"], shown[-1]["start_time_unix_nano"]] == [5, MAX_SPANS + 4]
    assert len(shown) == MAX_SPANS
    assert len(await spans(http)) == 100
    assert await spans(http, "?limit=0") == []
    for limit in ("x", "-1", "", "9" * 5000, "²"):
        assert (await http.get("/dev/spans", params={"limit": limit})).status_code == 400


async def test_every_kind_of_attribute_can_be_shown(http: httpx.AsyncClient) -> None:
    request = a_request()
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="list").value.array_value.values.add().int_value = 1
    member = span.attributes.add(key="map").value.kvlist_value.values.add(key="inner")
    member.value.bool_value = True
    span.attributes.add(key="bytes").value.bytes_value = b"\xff"
    span.attributes.add(key="number").value.double_value = 0.5
    span.attributes.add(key="no number").value.double_value = float("nan")
    span.attributes.add(key="nothing")
    await http.post("/v1/traces", content=request.SerializeToString())
    (shown,) = await spans(http)
    assert shown["attributes"] == {
        "session.id": "s1",
        "list": [1],
        "map": {"inner": True},
        "bytes": "ff",
        "number": 0.5,
        "no number": "nan",
        "nothing": None,
    }


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xff", {}, 400),
        (b"not gzip", GZIP, 400),
        (gzip.compress(bytes(MAX_BODY_BYTES + 1)), GZIP, 400),
        (gzip.compress(b"\n\0" * 100)[:-9], GZIP, 400),
        (b"", {"Content-Encoding": "br"}, 400),
        (bytes(MAX_BODY_BYTES + 1), {}, 413),
    ],
    ids=["not-protobuf", "not-gzip", "bomb", "cut-off", "brotli", "too-large"],
)
async def test_what_is_not_understood_is_refused_and_not_kept(
    http: httpx.AsyncClient, body: bytes, headers: dict[str, str], status: int
) -> None:
    assert (await http.post("/v1/traces", content=body, headers=headers)).status_code == status
    assert await spans(http) == []


async def test_a_span_that_is_too_large_is_left_out_and_the_sender_is_told(http: httpx.AsyncClient) -> None:
    request = a_request(spans=2)
    request.resource_spans[0].scope_spans[0].spans[0].name = "x" * MAX_SPAN_BYTES
    answer = await http.post("/v1/traces", content=request.SerializeToString())
    told = trace_service_pb2.ExportTraceServiceResponse.FromString(answer.content)
    assert told.partial_success.rejected_spans == 1
    assert [span["name"] for span in await spans(http)] == ["tokens.issued"]


@pytest.mark.parametrize("host", ["evil.example", "10.0.0.1", "localhost.evil.example", "[", ""])
async def test_a_web_page_that_resolves_its_own_name_to_here_sees_nothing(
    http: httpx.AsyncClient, host: str
) -> None:
    assert (await http.get("/dev/spans", headers={"Host": host})).status_code == 403
    body = a_request().SerializeToString()
    assert (await http.post("/v1/traces", content=body, headers={"Host": host})).status_code == 403


async def test_a_header_does_not_make_a_caller_local_or_foreign(
    serve: Callable[..., Awaitable[httpx.AsyncClient]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Set for some other program, as it may be on a machine.
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    collector = DevelopmentCollector()
    http = await serve(routes=collector.routes())
    assert (await http.get("/dev/spans", headers={"X-Forwarded-For": "10.9.9.9"})).status_code == 200
