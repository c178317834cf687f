"""What a backend says of a request, in the four ways that matter; after the OTLP specification 1.x, "OTLP Response".

| said | HTTP | gRPC | what it means here |
| --- | --- | --- | --- |
| success | 2xx with an answer to this request | OK | ``Taken`` |
| partial success, rejecting some | 200 | OK | ``Rejected`` |
| bad data | 400, 422 | INVALID_ARGUMENT | ``Rejected`` |
| too much at once | 413 | RESOURCE_EXHAUSTED without RetryInfo | ``TooMuch`` |
| anything else | 429, 5xx, 401, 403, 404, … | UNAVAILABLE, UNAUTHENTICATED, UNIMPLEMENTED, … | ``NotNow`` |

The specification has a client drop what is refused with any other status than a retryable one. An event is not dropped because a
token has expired or a path is misspelt: only what says that the data itself is bad refuses an event.

Over HTTP the status alone says nothing: sign-in pages and gateways answer 200 as well. It counts with the response message of the
signal that was asked (its body MUST be that), in protobuf, or in JSON where that is what it says it is. Serialised, an empty message
has no bytes, so an empty body counts as one where it is called protobuf, or nothing (204 has no type). In JSON it has two, ``{}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from identity.audit.sinks.otlp.settings import Target
from identity.audit.sinks.otlp.unreachable import NOT_CONNECTED, hint_over_grpc
from identity.audit.sinks.ports import MAX_REFUSAL_CHARS

MAX_RETRY_AFTER_SECONDS = 300.0
"""A backend may not silence the audit for longer."""
MAX_QUOTED_CHARS = MAX_REFUSAL_CHARS // 2


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


Response = ExportTraceServiceResponse | ExportLogsServiceResponse
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
_PROTOBUF_TYPES = frozenset({"application/x-protobuf", "application/protobuf"})
_JSON_TYPE = "application/json"
# The page of some gateway that lets nobody through: nothing has been taken.
_NOT_OTLP = NotNow("the answer is not OTLP; check OTEL_EXPORTER_OTLP_ENDPOINT")


def of_http(target: Target, status: int, headers: Mapping[str, str], body: bytes | None) -> Answer:
    """What an HTTP response means; its body is ``None`` where it was too long to be read."""
    if 200 <= status < 300:
        return _of_http_success(target, _media_type(headers), body)
    said = _quoted(target, _message_of(headers, body or b""))
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
    try:
        return _of_response(target, _response_to(target).FromString(body))
    except DecodeError:
        return _NOT_OTLP


def of_grpc_status(target: Target, code: StatusCode, said: str, status: bytes | None) -> Answer:
    """What another status than OK means; ``status``: the trailing ``grpc-status-details-bin``."""
    if code is StatusCode.UNAVAILABLE and said.startswith(NOT_CONNECTED):
        hint = hint_over_grpc(target, said)
        # Its reason is the end of it.
        return NotNow(f"cannot be reached{_quoted(target, said, to_its_end=True)}{hint and f'; {hint}'}")
    problem = f"{code.name}{_quoted(target, said)}"
    if code is StatusCode.INVALID_ARGUMENT:
        return Rejected(problem, wholly=True)
    retry_after = _retry_info(status)
    if code is StatusCode.RESOURCE_EXHAUSTED and retry_after is None:
        return TooMuch(problem, by_size=False)
    hint = f"; {_HINTS[code]}" if code in _HINTS else ""
    return NotNow(problem + hint, retry_after)


def _of_http_success(target: Target, media_type: str, body: bytes | None) -> Answer:
    if body is None or not (
        media_type in _PROTOBUF_TYPES or media_type == _JSON_TYPE or not (media_type or body)
    ):
        return _NOT_OTLP
    response = _response_to(target)()
    try:
        if media_type == _JSON_TYPE:
            # What is no member of the response is a message of something else: {"error": …} has none either.
            ParseDict(_object(json.loads(body)), response)
        else:
            response.ParseFromString(body)
    except (DecodeError, ParseError, ValueError, RecursionError):
        return _NOT_OTLP
    # Nearly anything is protobuf of unknown fields, an error's ``google.rpc.Status`` for one.
    return _of_response(target, response) if _is_known(response) else _NOT_OTLP


def _of_response(target: Target, response: Response) -> Answer:
    if isinstance(response, ExportTraceServiceResponse):
        rejected = response.partial_success.rejected_spans
    else:
        rejected = response.partial_success.rejected_log_records
    if not rejected:
        # A message is a warning then, about something that was taken.
        return Taken()
    return Rejected(f"partial success{_quoted(target, response.partial_success.error_message)}", wholly=False)


def _response_to(target: Target) -> type[Response]:
    return ExportTraceServiceResponse if target.signal == "traces" else ExportLogsServiceResponse


def _is_known(response: Response) -> bool:
    return not (len(UnknownFieldSet(response)) or len(UnknownFieldSet(response.partial_success)))


def _object(found: Any) -> dict[str, Any]:
    """The parser takes an empty list or text for an empty message."""
    if not isinstance(found, dict) or any(not isinstance(value, dict | None) for value in found.values()):
        raise ParseError
    return found


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _message_of(headers: Mapping[str, str], body: bytes) -> str:
    if _media_type(headers) not in _PROTOBUF_TYPES:
        return ""  # pages for people, of whatever stands in between
    try:
        return str(status_pb2.Status.FromString(body).message)
    except DecodeError:
        return ""


def _quoted(target: Target, said: str, *, to_its_end: bool = False) -> str:
    """What the backend said, in bounds, in one line, and without what only we and it may know."""
    for _, value in target.headers:
        if value:
            said = said.replace(value, "…")
    if len(said) > MAX_QUOTED_CHARS:
        said = f"…{said[-MAX_QUOTED_CHARS:]}" if to_its_end else said[:MAX_QUOTED_CHARS]
    line = "".join(char if char.isprintable() else " " for char in said)
    return f": {line}" if line.strip() else ""


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
