"""What a backend says of a request, in the four ways that matter; after the OTLP specification 1.x, "OTLP Response".

| said | HTTP | gRPC | what it means here |
| --- | --- | --- | --- |
| success | 2xx | OK | ``Taken`` |
| partial success, rejecting some | 200 | OK | ``Rejected`` |
| bad data | 400, 422 | INVALID_ARGUMENT | ``Rejected`` |
| too much at once | 413 | RESOURCE_EXHAUSTED without RetryInfo | ``TooMuch`` |
| anything else | 429, 5xx, 401, 403, 404, … | UNAVAILABLE, UNAUTHENTICATED, UNIMPLEMENTED, … | ``NotNow`` |

The specification has a client drop what is refused with any other status than a retryable one. An event is not dropped because a
token has expired or a path is misspelt: only what says that the data itself is bad refuses an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from identity.audit.sinks.otlp.settings import Target
from identity.audit.sinks.ports import MAX_REFUSAL_CHARS

MAX_RETRY_AFTER_SECONDS = 300.0
"""A backend may not silence the audit for longer."""


@dataclass(frozen=True, slots=True)
class Taken:
    """The backend has all of it."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """At least one event is refused for good. ``wholly``: the request as such was, and nothing of it was taken."""

    problem: str
    wholly: bool


@dataclass(frozen=True, slots=True)
class TooMuch:
    """Less may be taken. ``by_size``: one event that is too much by itself is refused for good; otherwise it was a quota."""

    problem: str
    by_size: bool


@dataclass(frozen=True, slots=True)
class NotNow:
    """The same request may be taken later, or after somebody has done something about it."""

    problem: str
    retry_after_seconds: float | None = None


M = TypeVar("M", bound=Message)
Answer = Taken | Rejected | TooMuch | NotNow

_BAD_DATA = frozenset({400, 422})
_TOO_LARGE = 413
_HINTS: Mapping[int | StatusCode, str] = {
    401: "check OTEL_EXPORTER_OTLP_HEADERS",
    403: "check OTEL_EXPORTER_OTLP_HEADERS",
    404: "check OTEL_EXPORTER_OTLP_ENDPOINT, or set audit.otlp_logs = false for a backend without logs",
    405: "check OTEL_EXPORTER_OTLP_ENDPOINT",
    415: "check OTEL_EXPORTER_OTLP_PROTOCOL and OTEL_EXPORTER_OTLP_COMPRESSION",
    StatusCode.UNAUTHENTICATED: "check OTEL_EXPORTER_OTLP_HEADERS",
    StatusCode.PERMISSION_DENIED: "check OTEL_EXPORTER_OTLP_HEADERS",
    StatusCode.UNIMPLEMENTED: "check OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_PROTOCOL, or set audit.otlp_logs = false for a backend without logs",
}
_REDIRECT = range(300, 400)


def of_http(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
    """What an HTTP response means."""
    if 200 <= status < 300:
        return _of_success(target, body, as_json="json" in headers.get("Content-Type", ""))
    said = _quoted(target, _message_of(headers, body))
    if status in _BAD_DATA:
        return Rejected(f"HTTP {status}{said}", wholly=True)
    if status == _TOO_LARGE:
        return TooMuch(f"HTTP {status}{said}", by_size=True)
    if status in _REDIRECT:
        return NotNow(f"HTTP {status}: redirects are not followed; check OTEL_EXPORTER_OTLP_ENDPOINT")
    hint = f"; {_HINTS[status]}" if status in _HINTS else ""
    return NotNow(f"HTTP {status}{said}{hint}", _retry_after(headers))


def of_grpc_success(target: Target, body: bytes) -> Answer:
    """What the message of a successful call means."""
    return _of_success(target, body)


def of_grpc_status(target: Target, code: StatusCode, said: str, status: bytes | None) -> Answer:
    """What another status than OK means; ``status``: the trailing ``grpc-status-details-bin``."""
    problem = f"{code.name}{_quoted(target, said)}"
    if code is StatusCode.INVALID_ARGUMENT:
        return Rejected(problem, wholly=True)
    retry_after = _retry_info(status)
    if code is StatusCode.RESOURCE_EXHAUSTED and retry_after is None:
        return TooMuch(problem, by_size=False)
    hint = f"; {_HINTS[code]}" if code in _HINTS else ""
    return NotNow(problem + hint, retry_after)


def _of_success(target: Target, body: bytes, *, as_json: bool = False) -> Answer:
    try:
        if target.signal == "traces":
            of_traces = _parsed(ExportTraceServiceResponse(), body, as_json=as_json).partial_success
            rejected, said = of_traces.rejected_spans, of_traces.error_message
        else:
            of_logs = _parsed(ExportLogsServiceResponse(), body, as_json=as_json).partial_success
            rejected, said = of_logs.rejected_log_records, of_logs.error_message
    except (DecodeError, ParseError):
        # The page of some gateway that lets nobody through: nothing has been taken.
        return NotNow("the answer is not OTLP; check OTEL_EXPORTER_OTLP_ENDPOINT")
    # With nothing rejected, a message is a warning about something that was taken.
    return Rejected(f"partial success{_quoted(target, said)}", wholly=False) if rejected else Taken()


def _parsed(message: M, body: bytes, *, as_json: bool) -> M:
    if as_json:
        Parse(body or b"{}", message, ignore_unknown_fields=True)
    else:
        message.ParseFromString(body)
    return message


def _message_of(headers: Mapping[str, str], body: bytes) -> str:
    if "protobuf" not in headers.get("Content-Type", ""):
        return ""  # pages for people, of whatever stands in between
    try:
        return str(status_pb2.Status.FromString(body).message)
    except DecodeError:
        return ""


def _quoted(target: Target, said: str) -> str:
    """What the backend said, in bounds, in one line, and without what only we and it may know."""
    for _, value in target.headers:
        said = said.replace(value, "…")
    line = "".join(char if char.isprintable() else " " for char in said[:MAX_REFUSAL_CHARS])
    return f": {line[: MAX_REFUSAL_CHARS // 2]}" if line.strip() else ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """RFC 9110, section 10.2.3: seconds, or a date, which is measured by the backend's own clock."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:9]), MAX_RETRY_AFTER_SECONDS)
    until, now = _date(text), _date(headers.get("Date", ""))
    if until is None or now is None:
        return None
    return min(max((until - now).total_seconds(), 0.0), MAX_RETRY_AFTER_SECONDS)


def _date(text: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(text)
    except (ValueError, IndexError):
        return None
    return parsed if parsed.tzinfo else None


def _retry_info(status: bytes | None) -> float | None:
    if status is None:
        return None
    try:
        details = status_pb2.Status.FromString(status).details
        for detail in details:
            info = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                seconds = float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
                return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
    except DecodeError:
        pass
    return None
