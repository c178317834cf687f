"""A small OTLP/HTTP trace receiver for development, so that the audit's spans arrive somewhere one can look.

Answers callers on loopback only, keeps the last spans in memory, and forgets them at the end.
"""

from __future__ import annotations

import gzip
import ipaddress
import zlib
from collections import deque
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

MAX_SPANS = 1000
MAX_BODY_BYTES = 4 * 1024 * 1024
TRACES_PATH = "/v1/traces"
SPANS_PATH = "/dev/spans"


class DevelopmentCollector:
    """Receives at ``/v1/traces`` and shows at ``/dev/spans?session_id=…&limit=…``."""

    def __init__(self) -> None:
        self._spans: deque[dict[str, Any]] = deque(maxlen=MAX_SPANS)

    def routes(self) -> Sequence[BaseRoute]:
        """To be added to the HTTP application."""
        return (
            Route(TRACES_PATH, self._receive, methods=["POST"]),
            Route(SPANS_PATH, self._show, methods=["GET"]),
        )

    async def _receive(self, request: Request) -> Response:
        if not _is_loopback(request):
            return JSONResponse({"error": "loopback_only"}, status_code=403)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return JSONResponse({"error": "too_large"}, status_code=413)
        try:
            raw = _decompressed(body, request.headers.get("Content-Encoding", ""))
            message = ExportTraceServiceRequest.FromString(raw)
        except (DecodeError, OSError, EOFError, ValueError, zlib.error):
            return JSONResponse({"error": "not_otlp"}, status_code=400)
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                self._spans.extend(_span(span) for span in scope.spans)
        return Response(ExportTraceServiceResponse().SerializeToString(), media_type="application/x-protobuf")

    async def _show(self, request: Request) -> Response:
        if not _is_loopback(request):
            return JSONResponse({"error": "loopback_only"}, status_code=403)
        session_id = request.query_params.get("session_id")
        limit = request.query_params.get("limit", "100")
        if not limit.isascii() or not limit.isdigit():
            return JSONResponse({"error": "limit_is_no_number"}, status_code=400)
        chosen = [
            span
            for span in self._spans
            if session_id is None or span["attributes"].get("session.id") == session_id
        ]
        return JSONResponse({"spans": chosen[-int(limit) :] if int(limit) else []})


def _is_loopback(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _decompressed(body: bytes, encoding: str) -> bytes:
    if encoding != "gzip":
        return body
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    raw = unpacker.decompress(body, MAX_BODY_BYTES)
    if unpacker.unconsumed_tail:
        raise gzip.BadGzipFile("too large")
    return raw


def _span(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex(),
        "start_time_unix_nano": span.start_time_unix_nano,
        "attributes": {
            item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value")
            for item in span.attributes
        },
    }
