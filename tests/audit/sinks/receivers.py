"""Real receivers of OTLP, over HTTP and over gRPC, that keep what they take and answer as a test wants them to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from aiohttp import web
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

MESSAGES = {
    "traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
    "logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse),
    "metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
}


@dataclass
class Request:
    """What has arrived."""

    signal: str
    headers: Mapping[str, str]
    size: int
    message: Any

    @property
    def records(self) -> Sequence[Any]:
        """Its spans, log records or metrics."""
        if self.signal == "metrics":
            return [
                metric
                for resource in self.message.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
            ]
        if self.signal == "traces":
            return [
                span
                for resource in self.message.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
        return [
            record
            for resource in self.message.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    @property
    def ids(self) -> Sequence[str]:
        """The ids of its events."""
        return [attributes(record)["identity.event.id"] for record in self.records]


def attributes(record: Any) -> dict[str, Any]:
    """Name to value."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in record.attributes}


@dataclass
class Says:
    """An answer other than success; ``rejected`` of a partial success; ``hangs``: none."""

    status: int | grpc.StatusCode = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_type: str | None = "application/x-protobuf"
    rejected: int = 0
    text: str = ""
    hangs: bool = False


@dataclass
class Backend:
    """What a receiver has taken, and how it answers. ``answer`` gets a request; None means that it is taken."""

    answer: Callable[[Request], Says | None] = lambda _: None
    requests: list[Request] = field(default_factory=list)
    taken: list[Request] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def records(self, signal: str) -> list[Any]:
        """Of all that was taken, in its order."""
        return [record for request in self.taken if request.signal == signal for record in request.records]

    def ids(self, signal: str = "traces") -> list[str]:
        """The same, of events."""
        return [attributes(record)["identity.event.id"] for record in self.records(signal)]

    def decide(self, request: Request) -> Says | None:
        """Notes the request."""
        self.requests.append(request)
        self.asked.set()
        if (says := self.answer(request)) is None:
            self.taken.append(request)
        return says


def rejecting(bad: set[str], says: Says) -> Callable[[Request], Says | None]:
    """Says this of each request with one of the bad events, and takes every other."""
    return lambda request: says if bad & set(request.ids) else None


class _Typed(web.Response):
    """With this ``Content-Type``, or without any."""

    def __init__(self, content_type: str | None, **rest: Any) -> None:
        super().__init__(**rest)
        self._type = content_type

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall("Content-Type", None)
        if self._type is not None:
            self.headers["Content-Type"] = self._type


class HttpReceiver:
    """OTLP over HTTP."""

    def __init__(self, backend: Backend, tls: ssl.SSLContext | None = None) -> None:
        self.backend = backend
        self._tls = tls
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/{signal}", self._receive)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def __aenter__(self) -> Backend:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        scheme = "https" if self._tls else "http"
        self.backend.url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}"
        return self.backend

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _receive(self, http: web.Request) -> web.Response:
        signal = http.match_info["signal"]
        of_request, of_response = MESSAGES[signal]
        assert http.content_type == "application/x-protobuf"
        # aiohttp has undone the compression by the header.
        body = await http.read()
        says = self.backend.decide(Request(signal, http.headers, len(body), of_request.FromString(body)))
        if says is None:
            return web.Response(body=of_response().SerializeToString(), content_type="application/x-protobuf")
        if says.hangs:
            await asyncio.Event().wait()
        body = says.body
        if says.rejected:
            body = _partial(signal, says).SerializeToString()
        return _Typed(says.content_type, status=int(says.status), headers=says.headers, body=body)


class GrpcReceiver:
    """OTLP over gRPC."""

    def __init__(self, backend: Backend, credentials: grpc.ServerCredentials | None = None) -> None:
        self.backend = backend
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        for signal, service in (
            ("traces", "opentelemetry.proto.collector.trace.v1.TraceService"),
            ("logs", "opentelemetry.proto.collector.logs.v1.LogsService"),
            ("metrics", "opentelemetry.proto.collector.metrics.v1.MetricsService"),
        ):
            of_request, of_response = MESSAGES[signal]
            handler = grpc.unary_unary_rpc_method_handler(
                self._handler(signal), of_request.FromString, of_response.SerializeToString
            )
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
            )
        self._credentials = credentials

    async def __aenter__(self) -> Backend:
        if self._credentials:
            port = self._server.add_secure_port("127.0.0.1:0", self._credentials)
        else:
            port = self._server.add_insecure_port("127.0.0.1:0")
        self.backend.url = f"{'https' if self._credentials else 'http'}://127.0.0.1:{port}"
        await self._server.start()
        return self.backend

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    def _handler(self, signal: str) -> Callable[..., Any]:
        async def export(message: Any, context: Any) -> Any:
            metadata = dict(context.invocation_metadata())
            says = self.backend.decide(Request(signal, metadata, message.ByteSize(), message))
            if says is None:
                return MESSAGES[signal][1]()
            if says.hangs:
                await asyncio.Event().wait()
            if says.rejected:
                return _partial(signal, says)
            trailing = [("grpc-status-details-bin", says.body)] if says.body else []
            return await context.abort(says.status, says.text, tuple(trailing))

        return export


def _partial(signal: str, says: Says) -> Any:
    response = MESSAGES[signal][1]()
    name = "rejected_spans" if signal == "traces" else "rejected_log_records"
    setattr(response.partial_success, name, says.rejected)
    response.partial_success.error_message = says.text
    return response
