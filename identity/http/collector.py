"""A small OTLP/HTTP trace receiver for development, so that the audit's spans arrive somewhere one can look.

Answers callers on loopback only, by a loopback name (so no web page reaches it by a name of its own that resolves
here). Keeps the last spans in memory, of bounded size each, and forgets them at the end.
"""

from __future__ import annotations

import gzip
import ipaddress
import math
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

MAX_SPANS = 1000
MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_SPAN_BYTES = 64 * 1024
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
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return JSONResponse({"error": "too_large"}, status_code=413)
        except ClientDisconnect:
            return JSONResponse({"error": "incomplete"}, status_code=400)
        try:
            raw = _decompressed(body, request.headers.get("Content-Encoding", ""))
            message = ExportTraceServiceRequest.FromString(raw)
        except (DecodeError, OSError, EOFError, ValueError, zlib.error):
            return JSONResponse({"error": "not_otlp"}, status_code=400)
        received = [
            span
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        kept = [_span(span) for span in received if span.ByteSize() <= MAX_SPAN_BYTES]
        self._spans.extend(kept)
        answer = ExportTraceServiceResponse()
        if len(kept) < len(received):
            answer.partial_success.rejected_spans = len(received) - len(kept)
            answer.partial_success.error_message = f"a span may have {MAX_SPAN_BYTES} bytes"
        return Response(answer.SerializeToString(), media_type="application/x-protobuf")

    async def _show(self, request: Request) -> Response:
        if not _is_loopback(request):
            return JSONResponse({"error": "loopback_only"}, status_code=403)
        session_id = request.query_params.get("session_id")
        limit = request.query_params.get("limit", "100")
        if not limit.isascii() or not limit.isdigit() or len(limit) > len(str(MAX_SPANS)):
            return JSONResponse({"error": "limit_is_no_number"}, status_code=400)
        chosen = [
            span
            for span in self._spans
            if session_id is None or span["attributes"].get("session.id") == session_id
        ]
        return JSONResponse({"spans": chosen[-int(limit) :] if int(limit) else []})


def _is_loopback(request: Request) -> bool:
    try:
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        return (
            request.client is not None
            and ipaddress.ip_address(request.client.host).is_loopback
            and (host == "localhost" or ipaddress.ip_address(host).is_loopback)
        )
    except ValueError:
        return False


def _decompressed(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise ValueError("only gzip is known")
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    raw = unpacker.decompress(body, MAX_BODY_BYTES)
    if not unpacker.eof:
        raise gzip.BadGzipFile("too large, or cut off")
    return raw


def _span(span: Any) -> dict[str, Any]:
    return {
        "name": span.name,
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex(),
        "start_time_unix_nano": span.start_time_unix_nano,
        "attributes": _members(span.attributes),
    }


def _members(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key: _value(item.value) for item in items}


def _value(value: Any) -> Any:
    """An OTLP ``AnyValue`` as JSON has it; what JSON lacks becomes text."""
    kind = value.WhichOneof("value")
    match kind:
        case "array_value":
            return [_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return _members(value.kvlist_value.values)
        case "bytes_value":
            return value.bytes_value.hex()
        case "double_value" if not math.isfinite(value.double_value):
            return str(value.double_value)
        case _:
            return getattr(value, kind) if kind else None
