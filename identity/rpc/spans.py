"""Spans of the service's own calls, by OpenTelemetry's SDK: apart from the audit, sampled, and lost without regret.

A span is made when its call has been answered, so that nothing is done before, and nothing at all where the sampler does not
want it. Its parent is what a client that has proved itself says (``traceparent``); of anybody else it is the root of a trace of
its own. Names follow the semantic conventions for RPC; no address, subject, session or token is among the attributes.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from identity.rpc.metrics import RPC_SYSTEM, Answered
from identity.sessions.caller import Caller

# Of a server these are failures of its own; with all others the caller is refused, and the server did well.
_FAILURES = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
_NOBODYS = Context()


class CallSpans:
    """Makes a span of each answered call. ``now_ns``: the time, in nanoseconds since 1970."""

    def __init__(self, tracer: Tracer, now_ns: Callable[[], int]) -> None:
        self._tracer = tracer
        self._now_ns = now_ns

    def beside(self, method: str, answered: Answered) -> Answered:
        """``answered``, and a span."""
        name = method.removeprefix("/")

        def with_span(caller: Caller | None, code: str, reason: str, began: float) -> None:
            answered(caller, code, reason, began)
            ended_ns = self._now_ns()
            attributes = {
                "rpc.system.name": RPC_SYSTEM,
                "rpc.method": name,
                "rpc.response.status_code": code,
            }
            if reason:
                attributes["error.type"] = reason
            if caller is not None:
                attributes["identity.client.id"] = caller.client_id
            span = self._tracer.start_span(
                name,
                _parent(caller),
                SpanKind.SERVER,
                attributes,
                start_time=ended_ns - int((perf_counter() - began) * 1e9),
            )
            if code in _FAILURES:
                span.set_status(Status(StatusCode.ERROR, reason))
            span.end(ended_ns)

        return with_span


def _parent(caller: Caller | None) -> Context:
    if caller is None or not caller.traceparent:
        return _NOBODYS
    _, trace_id, span_id, flags = caller.traceparent.split("-")
    parent = SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
    return set_span_in_context(NonRecordingSpan(parent), _NOBODYS) if parent.is_valid else _NOBODYS
