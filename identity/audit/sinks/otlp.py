"""Events as OpenTelemetry spans, sent by OTLP.

The exporter is the SDK's own and obeys the standard ``OTEL_EXPORTER_OTLP_*`` settings, but nothing in front of
it may lose an event: no sampler, no span processor, no bounded queue, and ``OTEL_SDK_DISABLED`` or an unsampled
``traceparent`` does not matter. Each event becomes one finished span in the trace of the call that caused it,
with ids that follow from the event: sent twice, it is the same span twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from re import compile as compile_pattern

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from identity.audit.chain import ChainedEvent
from identity.audit.event_types import Outcome
from identity.audit.recorded_event import RecordedEvent
from identity.audit.sinks.ports import Delivered, Delivery, Undelivered

_TRACEPARENT = compile_pattern(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def otlp_exporter(environ: Mapping[str, str] = os.environ) -> SpanExporter:
    """The exporter that the standard environment asks for: OTLP over HTTP, or over gRPC."""
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    match protocol:
        case None | "" | "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
                OTLPSpanExporter as HttpSpanExporter,
            )

            return HttpSpanExporter()
        case "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
                OTLPSpanExporter as GrpcSpanExporter,
            )

            return GrpcSpanExporter()
        case other:
            raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL={other!r}: use 'http/protobuf' or 'grpc'")


class OtlpSpanSink:
    """An ``AuditSink`` over an exporter, which blocks and so runs in a thread."""

    def __init__(self, exporter: SpanExporter, *, service_version: str, instance_id: str) -> None:
        self._exporter = exporter
        self._resource = Resource.create(
            {
                SERVICE_NAME: "grpc-identity",
                SERVICE_VERSION: service_version,
                "service.instance.id": instance_id,
            }
        )
        self._scope = InstrumentationScope("grpc-identity.audit", service_version)

    name = "otlp"

    async def deliver(self, events: Sequence[ChainedEvent]) -> Delivery:
        """See ``AuditSink``."""
        spans = [self._span(each.event) for each in events]
        result = await asyncio.to_thread(self._exporter.export, spans)
        return Delivered() if result is SpanExportResult.SUCCESS else Undelivered("the exporter failed")

    async def close(self) -> None:
        """See ``AuditSink``."""
        await asyncio.to_thread(self._exporter.shutdown)

    def _span(self, event: RecordedEvent) -> ReadableSpan:
        digest = hashlib.sha256(event.event_id.encode()).digest()
        caller = _TRACEPARENT.fullmatch(event.traceparent)
        trace_id = int(caller[1], 16) if caller else int.from_bytes(digest[:16])
        parent = (
            SpanContext(trace_id, int(caller[2], 16), is_remote=True, trace_flags=_SAMPLED)
            if caller
            else None
        )
        time_ns = event.time_ms * 1_000_000
        return ReadableSpan(
            name=event.type,
            context=SpanContext(
                trace_id, int.from_bytes(digest[16:24]), is_remote=False, trace_flags=_SAMPLED
            ),
            parent=parent,
            resource=self._resource,
            attributes=_attributes(event),
            kind=SpanKind.INTERNAL,
            instrumentation_scope=self._scope,
            status=Status(StatusCode.ERROR, event.reason)
            if event.outcome == Outcome.REFUSED
            else Status(StatusCode.UNSET),
            start_time=time_ns,
            end_time=time_ns,
        )


def _attributes(event: RecordedEvent) -> Mapping[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "identity.event.id": event.event_id,
        "identity.event.type": event.type,
        "identity.event.outcome": event.outcome,
        "identity.event.bucket": event.bucket,
        "identity.event.sequence": event.sequence,
    }
    optional: dict[str, AttributeValue | None] = {
        "identity.event.reason": event.reason,
        "identity.event.detail": event.detail,
        "identity.client.id": event.client_id,
        "identity.session.generation": event.generation,
        "identity.device.label": event.device_label,
        "user.id": event.subject,
        "session.id": event.session_id,
        "client.address": event.ip_address,
        "user_agent.original": event.user_agent,
        "rpc.system.name": "grpc" if event.method else "",
        "rpc.method": event.method,
        "error.type": event.reason if event.outcome == Outcome.REFUSED else "",
    }
    attributes |= {name: value for name, value in optional.items() if value is not None and value != ""}
    if event.reuse is not None:
        attributes |= {
            f"identity.reuse.{item.name}": getattr(event.reuse, item.name) for item in fields(event.reuse)
        }
    return attributes
