"""What is pushed by OTLP is what is scraped; and nothing is pushed that nobody has asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from audit.sinks.receivers import Backend, GrpcReceiver, Says, attributes
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from grpc_identity.v1 import identity_service_pb2 as pb
from identity.clock import SystemClock
from identity.config import ConfigurationError
from identity.exporting import exports_of
from identity.relay_process import RelayProcess
from identity.telemetry.instruments import INSTRUMENTS, Kind
from identity.telemetry.meters import Meters

METHOD = "grpc_identity.v1.IdentityService/Refresh"
PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def exports(environ: dict[str, str]) -> Any:
    return exports_of(environ, Meters(), SystemClock(), "one")


async def refused_refresh(service: Any, **fields: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await service.identity.Refresh(pb.RefreshRequest(refresh_token="gidr_forged"), **fields)


async def test_metrics_are_pushed_with_the_numbers_that_are_scraped(
    make_settings: Any,
    start_service: Any,
    monkeypatch: pytest.MonkeyPatch,
    backend: Backend,
    scrape: Any,
    wait_until: Any,
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.url)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    service = await start_service(make_settings())
    for _ in range(3):
        await refused_refresh(service, metadata=service.login)

    def latest() -> dict[str, Any]:
        taken = [request for request in backend.taken if request.signal == "metrics"]
        return {metric.name: metric for metric in taken[-1].records} if taken else {}

    def has_all() -> bool:
        refreshes = latest().get("identity.refreshes")
        return refreshes is not None and sum(point.as_double for point in refreshes.sum.data_points) == 3

    await wait_until(has_all)
    seen, pushed = await scrape(service.addresses.http_url), latest()
    by_name = {each.name: each for each in INSTRUMENTS}
    assert {by_name[name].prometheus_name for name in pushed} <= seen.names
    assert len(pushed) > 30
    for name, metric in pushed.items():
        kind = by_name[name].kind
        assert metric.unit == by_name[name].unit
        assert metric.WhichOneof("data") == {Kind.HISTOGRAM: "histogram", Kind.GAUGE: "gauge"}.get(
            kind, "sum"
        )
        if metric.HasField("sum"):
            assert metric.sum.is_monotonic is (kind is Kind.COUNTER)
            assert metric.sum.aggregation_temporality == 2  # cumulative
    (point,) = [
        point
        for point in pushed["rpc.server.call.duration"].histogram.data_points
        if attributes(point).get("error.type") == "REFRESH_TOKEN_INVALID"
    ]
    assert attributes(point) == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.response.status_code": "UNAUTHENTICATED",
        "error.type": "REFRESH_TOKEN_INVALID",
    }
    assert point.count == sum(point.bucket_counts) == 3
    assert list(point.explicit_bounds) == list(by_name["rpc.server.call.duration"].buckets)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert point.start_time_unix_nano < point.time_unix_nano
    assert point.sum > 0


async def test_a_relay_pushes_its_metrics_too(
    make_settings: Any, monkeypatch: pytest.MonkeyPatch, backend: Backend, wait_until: Any, tmp_path: Any
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{backend.url}/v1/metrics")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    settings = make_settings(
        audit={"sinks": ("file",), "file_path": tmp_path / "audit.jsonl", "relay_listen": ""}
    )
    relay = RelayProcess(settings)
    await relay.start()
    try:
        await wait_until(
            lambda: any(
                metric.name == "identity.audit.sink.up"
                for request in backend.taken
                for metric in request.records
            )
        )
    finally:
        await relay.stop()
    assert {request.signal for request in backend.taken} == {"metrics"}


async def test_metrics_and_spans_are_pushed_over_grpc(
    make_settings: Any, start_service: Any, monkeypatch: pytest.MonkeyPatch, wait_until: Any
) -> None:
    async with GrpcReceiver(Backend()) as backend:
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.url)
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        service = await start_service(make_settings())
        await refused_refresh(service)
        await wait_until(lambda: {request.signal for request in backend.taken} >= {"metrics", "traces"})


async def test_an_endpoint_for_the_audit_is_no_wish_for_this(
    make_settings: Any, start_service: Any, monkeypatch: pytest.MonkeyPatch, backend: Backend, wait_until: Any
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{backend.url}/v1/traces")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    service = await start_service(make_settings(audit={"relay": True, "relay_poll_ms": 10}))
    await refused_refresh(service, metadata=service.login)
    await wait_until(lambda: any(span.name == "refresh.refused" for span in backend.records("traces")))
    await service.server.stop(0)
    assert {request.signal for request in backend.requests} == {"traces", "logs"}
    assert Span.SPAN_KIND_SERVER not in {span.kind for span in backend.records("traces")}
    for name, environ in {
        "the exporter is none": {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
        "scraping is enough": {"OTEL_METRICS_EXPORTER": "prometheus"},
        "the SDK is disabled": {
            "OTEL_SDK_DISABLED": "true",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
        },
    }.items():
        made = exports({"OTEL_EXPORTER_OTLP_ENDPOINT": backend.url} | environ)
        assert (made.tracer, made._metrics) == (None, None), name


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_METRICS_EXPORTER": "console"}, "OTEL_METRICS_EXPORTER"),
        (
            {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "5s"},
            "OTEL_METRIC_EXPORT_INTERVAL",
        ),
        (
            {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "collector:4318"},
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        ),
    ],
)
def test_a_variable_that_cannot_be_used_ends_the_start_with_its_name(
    environ: dict[str, str], names: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        exports(environ)
    assert names in str(caught.value)


async def test_a_backend_that_hangs_holds_up_neither_calls_nor_the_end(
    make_settings: Any, start_service: Any, monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    backend.answer = lambda _: Says(hangs=True)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "500")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    service = await start_service(make_settings())
    async with asyncio.timeout(20):
        await backend.asked.wait()
        await service.identity.GetJWKS(pb.GetJWKSRequest())
        await service.server.stop(0)


async def test_a_call_is_a_span_in_the_trace_of_a_client_that_is_known(
    make_settings: Any, start_service: Any, monkeypatch: pytest.MonkeyPatch, backend: Backend, wait_until: Any
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    service = await start_service(make_settings())
    trace, parent = PARENT
    sampled, unsampled = (("traceparent", f"00-{trace}-{parent}-{flags}") for flags in ("01", "00"))
    await refused_refresh(service, metadata=(*service.login, sampled))
    await refused_refresh(service, metadata=(*service.login, unsampled))
    await refused_refresh(service, metadata=(sampled,))
    await service.identity.GetJWKS(pb.GetJWKSRequest())

    def spans() -> list[Any]:
        return backend.records("traces")

    await wait_until(lambda: len(spans()) >= 3)
    known, stranger, keys = spans()
    assert (known.trace_id.hex(), known.parent_span_id.hex()) == PARENT
    assert (known.name, known.kind) == (METHOD, Span.SPAN_KIND_SERVER)
    assert attributes(known) == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.response.status_code": "UNAUTHENTICATED",
        "error.type": "REFRESH_TOKEN_INVALID",
        "identity.client.id": "login",
    }
    # The server did well to refuse; and who cannot say who it is has no say in whose trace it is in.
    assert known.status.code == 0
    assert stranger.trace_id.hex() != trace
    assert not stranger.parent_span_id
    assert attributes(stranger)["error.type"] == "CLIENT_UNAUTHENTICATED"
    assert keys.name.endswith("GetJWKS")
    assert known.start_time_unix_nano < known.end_time_unix_nano <= stranger.end_time_unix_nano
    scopes = {
        scope.scope.name
        for request in backend.taken
        for resource in request.message.resource_spans
        for scope in resource.scope_spans
    }
    assert scopes == {"grpc-identity.rpc"}


async def test_a_sampler_takes_spans_away_and_no_audit(
    make_settings: Any, start_service: Any, monkeypatch: pytest.MonkeyPatch, backend: Backend, wait_until: Any
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    service = await start_service(make_settings(audit={"relay": True, "relay_poll_ms": 10}))
    await refused_refresh(service, metadata=service.login)
    await wait_until(lambda: any(span.name == "refresh.refused" for span in backend.records("traces")))
    await service.server.stop(0)
    assert METHOD not in {span.name for span in backend.records("traces")}


async def test_a_failure_of_the_server_is_an_error_of_the_span(
    make_settings: Any,
    start_service: Any,
    new_valkey: Any,
    monkeypatch: pytest.MonkeyPatch,
    backend: Backend,
    wait_until: Any,
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", backend.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    server = new_valkey({"maxmemory-policy": "noeviction", "save": ""})
    service = await start_service(make_settings(redis={"url": server.connection_url}))
    server.stop()
    with pytest.raises(grpc.aio.AioRpcError):
        await service.identity.IssueTokens(
            pb.IssueTokensRequest(subject="alice", audience=["orders"]), metadata=service.login
        )
    await wait_until(lambda: backend.records("traces"))
    (span,) = backend.records("traces")
    assert (span.status.code, span.status.message) == (2, "STORE_UNAVAILABLE")
    assert "alice" not in str(span)
