"""Over real sockets: what a backend says of events is heard, and none is lost or refused without it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from audit.sinks.receivers import Backend, GrpcReceiver, HttpReceiver, Says, attributes, rejecting
from audit.sinks.samples import chain
from certificates import Authority
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from identity.audit.sinks.otlp.sink import OtlpSink, otlp_sink
from identity.audit.sinks.otlp.spans import from_span
from identity.audit.sinks.ports import Delivered, Delivery, Undelivered

OTLP = "OTEL_EXPORTER_OTLP_"
HTTP, GRPC = "http/protobuf", "grpc"


def sink_to(url: str, protocol: str, *, with_logs: bool = True, **variables: str) -> OtlpSink:
    environ = {f"{OTLP}ENDPOINT": url, f"{OTLP}PROTOCOL": protocol}
    environ |= {OTLP + name: value for name, value in variables.items()}
    return otlp_sink(service_version="1.2.3", instance_id="abcd", with_logs=with_logs, environ=environ)


class To:
    """A backend of one protocol, and a sink for it."""

    def __init__(self, protocol: str, backend: Backend) -> None:
        self.protocol = protocol
        self.backend = backend
        self.sinks: list[OtlpSink] = []

    def sink(self, **options: Any) -> OtlpSink:
        self.sinks.append(sink_to(self.backend.url, self.protocol, **options))
        return self.sinks[-1]


@pytest_asyncio.fixture(params=[HTTP, GRPC])
async def to(request: Any) -> AsyncIterator[To]:
    """Each protocol in turn."""
    receiver = (HttpReceiver if request.param == HTTP else GrpcReceiver)(Backend())
    async with receiver as backend:
        both = To(request.param, backend)
        yield both
        for sink in both.sinks:
            await sink.close()


@pytest_asyncio.fixture
async def to_http() -> AsyncIterator[To]:
    async with HttpReceiver(Backend()) as backend:
        both = To(HTTP, backend)
        yield both
        for sink in both.sinks:
            await sink.close()


def undelivered(delivery: Delivery) -> Undelivered:
    assert isinstance(delivery, Undelivered)
    return delivery


async def test_events_arrive_as_spans_and_log_records_in_their_order(to: To) -> None:
    events = chain(1500)
    assert await to.sink().deliver(events) == Delivered()
    for signal in ("traces", "logs"):
        assert [from_span(record) for record in to.backend.records(signal)] == events
    of_traces = next(request for request in to.backend.taken if request.signal == "traces")
    told = attributes(of_traces.message.resource_spans[0].resource)
    expected = {
        "service.name": "grpc-identity",
        "service.version": "1.2.3",
        "service.instance.id": "abcd",
        "identity.audit.sink": "otlp",
    }
    assert {name: told[name] for name in expected} == expected


async def test_log_records_are_left_out_if_so_asked(to: To) -> None:
    assert await to.sink(with_logs=False).deliver(chain(2)) == Delivered()
    assert [request.signal for request in to.backend.requests] == ["traces"]


async def test_what_switches_tracing_off_does_not_switch_audit_off(to: To, monkeypatch: Any) -> None:
    for name, value in {
        "OTEL_SDK_DISABLED": "true",
        "OTEL_TRACES_SAMPLER": "always_off",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_BSP_MAX_QUEUE_SIZE": "1",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    events = chain(100)
    assert await to.sink().deliver(events) == Delivered()
    assert [from_span(record) for record in to.backend.records("traces")] == events


async def test_a_request_stays_in_its_bounds_however_large_the_events(to: To) -> None:
    events = chain(40, detail="x" * 250_000)
    assert await to.sink(with_logs=False).deliver(events) == Delivered()
    assert max(request.size for request in to.backend.requests) < 4_000_000
    assert to.backend.ids() == [item.event.event_id for item in events]


async def test_headers_and_compression_are_as_the_variables_say(to: To) -> None:
    sink = to.sink(HEADERS="authorization=Bearer%20abc,X-Tenant=t1", COMPRESSION="gzip")
    assert await sink.deliver(chain(50)) == Delivered()
    headers = to.backend.taken[0].headers
    assert headers["authorization"] == "Bearer abc"
    assert headers["x-tenant"] == "t1"
    assert len(to.backend.ids()) == 50
    if to.protocol == HTTP:
        assert headers["content-encoding"] == "gzip"
        assert headers["user-agent"].startswith("grpc-identity/")


def retry_info(seconds: int) -> bytes:
    status = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds)))
    return status.SerializeToString()


NOT_NOW = [
    (HTTP, Says(429, headers={"Retry-After": "7"}), "429", 7.0),
    (
        HTTP,
        Says(
            503,
            headers={
                "Retry-After": "Fri, 01 Jan 2027 00:01:00 GMT",
                "Date": "Fri, 01 Jan 2027 00:00:00 GMT",
            },
        ),
        "503",
        60.0,
    ),
    (HTTP, Says(503, headers={"Retry-After": "99999999999"}), "503", 300.0),
    (HTTP, Says(503, headers={"Retry-After": "soon"}), "503", None),
    (HTTP, Says(502, body=b"<html>", content_type="text/html"), "502", None),
    (HTTP, Says(504), "504", None),
    (HTTP, Says(500), "500", None),
    (HTTP, Says(401), "OTEL_EXPORTER_OTLP_HEADERS", None),
    (HTTP, Says(403), "OTEL_EXPORTER_OTLP_HEADERS", None),
    (HTTP, Says(404), "OTEL_EXPORTER_OTLP_ENDPOINT", None),
    (HTTP, Says(307, headers={"Location": "http://192.0.2.1/"}), "redirects", None),
    (HTTP, Says(200, body=b"<html>log in</html>", content_type="text/html"), "not OTLP", None),
    (HTTP, Says(200, body=b"\xff\xff", content_type="application/x-protobuf"), "not OTLP", None),
    (GRPC, Says(grpc.StatusCode.UNAVAILABLE, text="busy", body=retry_info(5)), "busy", 5.0),
    (GRPC, Says(grpc.StatusCode.RESOURCE_EXHAUSTED, body=retry_info(9)), "RESOURCE_EXHAUSTED", 9.0),
    (GRPC, Says(grpc.StatusCode.RESOURCE_EXHAUSTED, text="quota"), "quota", None),
    (GRPC, Says(grpc.StatusCode.UNAVAILABLE, body=b"\xff\xff"), "UNAVAILABLE", None),
    (GRPC, Says(grpc.StatusCode.CANCELLED), "CANCELLED", None),
    (GRPC, Says(grpc.StatusCode.DEADLINE_EXCEEDED), "OTEL_EXPORTER_OTLP_TIMEOUT", None),
    (GRPC, Says(grpc.StatusCode.ABORTED), "ABORTED", None),
    (GRPC, Says(grpc.StatusCode.OUT_OF_RANGE), "OUT_OF_RANGE", None),
    (GRPC, Says(grpc.StatusCode.DATA_LOSS), "DATA_LOSS", None),
    (GRPC, Says(grpc.StatusCode.INTERNAL), "INTERNAL", None),
    (GRPC, Says(grpc.StatusCode.UNKNOWN), "UNKNOWN", None),
    (GRPC, Says(grpc.StatusCode.UNAUTHENTICATED), "OTEL_EXPORTER_OTLP_HEADERS", None),
    (GRPC, Says(grpc.StatusCode.PERMISSION_DENIED), "OTEL_EXPORTER_OTLP_HEADERS", None),
    (GRPC, Says(grpc.StatusCode.UNIMPLEMENTED), "audit.otlp_logs", None),
]


@pytest.mark.parametrize(("to", "says", "problem", "seconds"), NOT_NOW, indirect=["to"])
async def test_what_does_not_speak_of_the_events_refuses_none(
    to: To, says: Says, problem: str, seconds: float | None
) -> None:
    sink, events = to.sink(), chain(5)
    to.backend.answer = lambda _: says
    delivery = undelivered(await sink.deliver(events))
    assert problem in delivery.problem
    assert delivery.retry_after_seconds == seconds
    assert not to.backend.taken
    to.backend.answer = lambda _: None
    assert await sink.deliver(events) == Delivered()
    assert to.backend.ids() == [item.event.event_id for item in events]


@pytest.mark.parametrize(
    ("to", "says"),
    [
        (HTTP, Says(400, body=status_pb2.Status(message="bad\nattribute").SerializeToString())),
        (HTTP, Says(413)),
        (HTTP, Says(422)),
        (HTTP, Says(rejected=1, text="bad attribute")),
        (GRPC, Says(grpc.StatusCode.INVALID_ARGUMENT, text="bad attribute")),
        (GRPC, Says(rejected=1, text="bad attribute")),
    ],
    indirect=["to"],
)
async def test_only_the_events_that_are_bad_are_refused_and_the_others_arrive(to: To, says: Says) -> None:
    events = chain(37)
    bad = {events[0].event.event_id, events[17].event.event_id, events[36].event.event_id}
    to.backend.answer = rejecting(bad, says)
    delivery = await to.sink().deliver(events)
    assert isinstance(delivery, Delivered)
    assert delivery.refused.keys() == bad
    assert all("\n" not in problem for problem in delivery.refused.values())
    for signal in ("traces", "logs"):
        assert set(to.backend.ids(signal)) == {item.event.event_id for item in events} - bad
        assert to.backend.ids(signal) == sorted(to.backend.ids(signal))


async def test_what_refuses_even_an_empty_request_refuses_no_event(to: To) -> None:
    bad = Says(400 if to.protocol == HTTP else grpc.StatusCode.INVALID_ARGUMENT)
    to.backend.answer = lambda _: bad
    delivery = undelivered(await to.sink(with_logs=False).deliver(chain(50)))
    assert "even an empty request is refused" in delivery.problem
    assert len(to.backend.requests) == 2


async def test_an_event_that_only_the_logs_refuse_is_told_as_refused_by_the_logs(to: To) -> None:
    events = chain(3)
    says = Says(rejected=1)
    to.backend.answer = lambda request: (
        says if request.signal == "logs" and events[1].event.event_id in request.ids else None
    )
    delivery = await to.sink().deliver(events)
    assert isinstance(delivery, Delivered)
    ((event_id, problem),) = delivery.refused.items()
    assert event_id == events[1].event.event_id
    assert problem.startswith("logs: ")
    assert event_id in to.backend.ids("traces")


async def test_a_search_that_was_interrupted_goes_on_where_it_was(to: To) -> None:
    """Else a backend that is slow to refuse would be asked the same for ever."""
    sink, events = to.sink(with_logs=False), chain(16)
    bad = {item.event.event_id for item in events}
    away = Says(503 if to.protocol == HTTP else grpc.StatusCode.UNAVAILABLE)

    def only_so_often(request: Any) -> Says | None:
        if len(to.backend.requests) > 12:
            return away
        return Says(rejected=len(request.records)) if request.records else None

    to.backend.answer = only_so_often
    asked = []
    while isinstance(delivery := await sink.deliver(events), Undelivered):
        asked.append(len(to.backend.requests))
        to.backend.requests.clear()
        assert len(asked) < 10
    assert asked
    assert delivery.refused.keys() == bad


async def test_a_backend_that_takes_only_so_much_at_once_gets_it_in_parts(to: To) -> None:
    too_much = Says(413 if to.protocol == HTTP else grpc.StatusCode.RESOURCE_EXHAUSTED)
    to.backend.answer = lambda request: too_much if len(request.records) > 100 else None
    sink, events = to.sink(with_logs=False), chain(1000)
    assert await sink.deliver(events) == Delivered()
    assert to.backend.ids() == [item.event.event_id for item in events]
    refused = len(to.backend.requests) - len(to.backend.taken)
    assert refused < 5  # it is learnt, not found out each time


async def test_a_backend_that_hangs_is_given_up_on_after_the_timeout_and_asked_again(to: To) -> None:
    to.backend.answer = lambda _: Says(hangs=True)
    sink = to.sink(TIMEOUT="100")
    delivery = undelivered(await sink.deliver(chain(2)))
    assert "no answer in 0.1 s" in delivery.problem
    to.backend.answer = lambda _: None
    patient = to.sink()
    assert await patient.deliver(chain(2)) == Delivered()


async def test_whoever_gives_up_on_a_delivery_can_ask_again(to: To) -> None:
    to.backend.answer = lambda _: Says(hangs=True)
    sink = to.sink()
    delivering = asyncio.create_task(sink.deliver(chain(2)))
    await asyncio.wait_for(to.backend.asked.wait(), 15)
    delivering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivering
    to.backend.answer = lambda _: None
    assert await sink.deliver(chain(2)) == Delivered()


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
async def test_a_backend_that_is_away_takes_nothing_and_is_found_again(protocol: str) -> None:
    async with HttpReceiver(Backend()) as gone:
        url = gone.url
    sink = sink_to(url, protocol)
    assert undelivered(await sink.deliver(chain(1))).problem
    await sink.close()


async def test_what_a_backend_says_is_told_without_what_only_we_and_it_may_know(to: To) -> None:
    text = "no such key s3cr3t-value\x1b[31m" + "!" * 1000
    body = status_pb2.Status(message=text).SerializeToString()
    to.backend.answer = lambda _: Says(
        401 if to.protocol == HTTP else grpc.StatusCode.UNAUTHENTICATED,
        body=body if to.protocol == HTTP else b"",
        text=text,
    )
    sink = to.sink(HEADERS="api-key=s3cr3t-value,x-empty=")
    problem = undelivered(await sink.deliver(chain(1))).problem
    assert "no such key …" in problem
    assert "s3cr3t" not in problem + repr(vars(sink)) + repr(sink._channels[0]._transport.target)
    assert problem.isprintable()
    assert len(problem) < 300


async def test_an_answer_without_end_is_not_read_to_its_end(to_http: To) -> None:
    to_http.backend.answer = lambda _: Says(503, body=b"x" * 10_000_000)
    assert "503" in undelivered(await to_http.sink().deliver(chain(1))).problem


def server_tls(authority: Authority) -> tuple[ssl.SSLContext, grpc.ServerCredentials]:
    certificate, key = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    pair = [(key.read_bytes(), certificate.read_bytes())]
    return context, grpc.ssl_server_credentials(pair, authority.file.read_bytes(), require_client_auth=True)


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
async def test_tls_with_an_authority_of_ones_own_and_a_client_certificate(
    protocol: str, tmp_path: Path
) -> None:
    ours, theirs = Authority(tmp_path, "ca"), Authority(tmp_path, "other")
    context, credentials = server_tls(ours)
    certificate, key = ours.issue("relay")
    backend = Backend()
    receiver = HttpReceiver(backend, context) if protocol == HTTP else GrpcReceiver(backend, credentials)
    files = {"CLIENT_CERTIFICATE": str(certificate), "CLIENT_KEY": str(key)}
    async with receiver:

        async def deliver(variables: Mapping[str, str]) -> Delivery:
            sink = sink_to(backend.url, protocol, **variables)
            try:
                return await sink.deliver(chain(1))
            finally:
                await sink.close()

        untrusted = undelivered(await deliver(files | {"CERTIFICATE": str(theirs.file)}))
        assert untrusted.problem
        assert not backend.requests
        assert undelivered(await deliver({"CERTIFICATE": str(ours.file)})).problem
        assert not backend.requests
        assert await deliver(files | {"CERTIFICATE": str(ours.file)}) == Delivered()


@pytest.mark.parametrize("protocol", [HTTP, GRPC])
async def test_certificates_that_were_replaced_on_disk_are_read_anew_after_a_failure(
    protocol: str, tmp_path: Path
) -> None:
    ours, theirs = Authority(tmp_path, "ca"), Authority(tmp_path, "other")
    context, credentials = server_tls(ours)
    certificate, key = ours.issue("relay")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(theirs.file.read_bytes())
    backend = Backend()
    receiver = HttpReceiver(backend, context) if protocol == HTTP else GrpcReceiver(backend, credentials)
    async with receiver:
        sink = sink_to(
            backend.url,
            protocol,
            CERTIFICATE=str(trusted),
            CLIENT_CERTIFICATE=str(certificate),
            CLIENT_KEY=str(key),
        )
        assert undelivered(await sink.deliver(chain(1)))
        trusted.write_bytes(ours.file.read_bytes())
        assert await sink.deliver(chain(1)) == Delivered()
        await sink.close()
