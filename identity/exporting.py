"""Pushes metrics, and spans of calls, by OTLP, where the standard variables ask for it.

The audit sends to ``OTEL_EXPORTER_OTLP_*`` whatever happens; so an endpoint is no wish for this telemetry. Metrics are pushed with
``OTEL_METRICS_EXPORTER=otlp`` or an endpoint of their own, ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT``; spans with ``OTEL_TRACES_EXPORTER=otlp``, and for
nothing else: their endpoint is the audit's. ``OTEL_SDK_DISABLED=true`` ends both, and nothing of the audit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Tracer

from grpc_identity._version import __version__
from identity.audit.sinks.otlp.settings import OtlpSettingError, Target, target_of
from identity.clock import Clock
from identity.config import ConfigurationError
from identity.errors import FieldViolation
from identity.telemetry.meters import Meters
from identity.telemetry.otlp import metrics_data

SPANS_SCOPE = "grpc-identity.rpc"
DEFAULT_INTERVAL_MS = 60_000
LAST_PUSH_SECONDS = 3.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Exports:
    """What of the telemetry is pushed; ``tracer`` is ``None`` where no spans are."""

    now_ns: Callable[[], int]
    tracer: Tracer | None = None
    _provider: TracerProvider | None = None
    _metrics: MetricExporter | None = None
    _collect: Callable[[], MetricsData] | None = None
    _interval_seconds: float = DEFAULT_INTERVAL_MS / 1000
    _pushing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Pushes metrics every so often until cancelled."""
        while self._metrics is not None:
            await asyncio.sleep(self._interval_seconds)
            await self.push()

    async def push(self) -> None:
        """Pushes metrics now. What does not arrive is lost; the next push has the same counts, and more."""
        if self._metrics is None or self._collect is None:
            return
        async with self._pushing:
            # Looked at here, where the parts live, and sent elsewhere: the SDK's exporters wait for the network.
            data = self._collect()
            try:
                await asyncio.to_thread(self._metrics.export, data)
            except Exception:
                _log.exception("metrics could not be pushed")

    async def close(self) -> None:
        """Pushes what there is, for a few seconds, and ends."""
        try:
            async with asyncio.timeout(LAST_PUSH_SECONDS):
                await self.push()
                if self._provider is not None:
                    flush = partial(self._provider.force_flush, int(LAST_PUSH_SECONDS * 1000))
                    await asyncio.to_thread(flush)
        except TimeoutError:
            _log.warning("the last metrics or spans of calls could not be pushed")
        for part in (self._metrics, self._provider):
            if part is not None:
                await asyncio.to_thread(part.shutdown)


def exports_of(environ: Mapping[str, str], meters: Meters, clock: Clock, instance_id: str) -> Exports:
    """What the variables ask for. Raises ``ConfigurationError``."""

    def now_ns() -> int:
        return int(clock.now().timestamp() * 1e9)

    exports = Exports(now_ns)
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return exports
    resource = Resource.create(
        {SERVICE_NAME: "grpc-identity", SERVICE_VERSION: __version__, "service.instance.id": instance_id}
    )
    try:
        pushes_metrics = _wanted(environ, "OTEL_METRICS_EXPORTER", ("otlp", "prometheus", "none"))
        pushes_spans = _wanted(environ, "OTEL_TRACES_EXPORTER", ("otlp", "none"))
        if pushes_metrics is None:
            pushes_metrics = bool(environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "").strip())
        if pushes_metrics:
            exports._metrics = _metric_exporter(target_of("metrics", environ))  # noqa: SLF001 - made here
            exports._interval_seconds = _interval_ms(environ) / 1000  # noqa: SLF001
            began_ns = now_ns()
            exports._collect = lambda: metrics_data(  # noqa: SLF001
                meters, resource, __version__, began_ns=began_ns, now_ns=now_ns()
            )
        if pushes_spans:
            provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            provider.add_span_processor(BatchSpanProcessor(_span_exporter(target_of("traces", environ))))
            exports._provider = provider  # noqa: SLF001
            exports.tracer = provider.get_tracer(SPANS_SCOPE, __version__)
    except OtlpSettingError as error:
        raise ConfigurationError((FieldViolation("telemetry", str(error)),)) from None
    return exports


def _wanted(environ: Mapping[str, str], variable: str, known: tuple[str, ...]) -> bool | None:
    """Whether ``otlp`` is among the exporters that a variable names; ``None`` where it names none."""
    names = [name.strip() for name in environ.get(variable, "").split(",") if name.strip()]
    if not names:
        return None
    if unknown := set(names) - set(known):
        raise OtlpSettingError(f"{variable}: use {' or '.join(known)}, not {', '.join(sorted(unknown))}")
    return "otlp" in names


def _interval_ms(environ: Mapping[str, str]) -> int:
    variable = "OTEL_METRIC_EXPORT_INTERVAL"
    text = environ.get(variable, "").strip() or str(DEFAULT_INTERVAL_MS)
    if not (text.isascii() and text.isdecimal() and 100 <= int(text) <= 3_600_000):
        raise OtlpSettingError(f"{variable}: must be a number of milliseconds from 100 to 3600000")
    return int(text)


def _metric_exporter(target: Target) -> MetricExporter:
    if target.protocol == "grpc":
        return grpc_metrics.OTLPMetricExporter(**_grpc_arguments(target))
    return http_metrics.OTLPMetricExporter(**_http_arguments(target))


def _span_exporter(target: Target) -> SpanExporter:
    if target.protocol == "grpc":
        return grpc_traces.OTLPSpanExporter(**_grpc_arguments(target))
    return http_traces.OTLPSpanExporter(**_http_arguments(target))


def _grpc_arguments(target: Target) -> dict[str, Any]:
    return {
        "endpoint": target.endpoint,
        "insecure": not target.encrypted,
        "credentials": _credentials(target),
        "headers": target.headers or None,
        "timeout": target.timeout_seconds,
        "compression": grpc.Compression.Gzip if target.compressed else grpc.Compression.NoCompression,
    }


def _http_arguments(target: Target) -> dict[str, Any]:
    return {
        "endpoint": target.endpoint,
        "certificate_file": _text(target.ca_file),
        "client_key_file": _text(target.key_file),
        "client_certificate_file": _text(target.certificate_file),
        "headers": dict(target.headers),
        "timeout": target.timeout_seconds,
        "compression": Compression.Gzip if target.compressed else Compression.NoCompression,
    }


def _credentials(target: Target) -> grpc.ChannelCredentials | None:
    if not target.encrypted:
        return None
    roots, key, chain = (
        None if file is None else file.read_bytes()
        for file in (target.ca_file, target.key_file, target.certificate_file)
    )
    return grpc.ssl_channel_credentials(roots, key, chain)


def _text(file: object) -> str | None:
    return None if file is None else str(file)
