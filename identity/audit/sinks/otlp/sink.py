"""Events as OpenTelemetry spans and log records, sent by OTLP.

The standard ``OTEL_EXPORTER_OTLP_*`` settings say where to, and nothing in front of the backend may lose an event: there is no SDK here, hence
no sampler, no span processor, no bounded queue, and neither ``OTEL_SDK_DISABLED`` nor an unsampled ``traceparent`` matters. An event is
delivered when the backend has its span and, unless they are left out, its log record.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION
from opentelemetry.sdk.resources import Resource as SdkResource

from identity.audit.chain import ChainedEvent
from identity.audit.sinks.encoding import encoded_or_refused
from identity.audit.sinks.otlp.answers import Answer, NotNow
from identity.audit.sinks.otlp.grpc import GrpcTransport
from identity.audit.sinks.otlp.http import HttpTransport
from identity.audit.sinks.otlp.settings import Signal, Target, require_place_for_logs, target_of
from identity.audit.sinks.otlp.spans import EncodedEvent, TrustInTrace, encoded
from identity.audit.sinks.otlp.splitting import settle
from identity.audit.sinks.otlp.wire import attribute, framed, length, repeated, tag
from identity.audit.sinks.ports import MAX_REFUSAL_CHARS, Delivered, Delivery, Undelivered

NAME = "otlp"
MAX_REQUEST_BYTES = 3_500_000
"""Under the 4 MB that gRPC servers take unless told otherwise."""
MAX_REQUEST_EVENTS = 512
MAX_REMEMBERED_REFUSALS = 10_000
_ENCODED_AT_ONCE = 64
_SCOPE = "grpc-identity.audit"
_REQUEST_TAG = tag(ExportTraceServiceRequest.RESOURCE_SPANS_FIELD_NUMBER)


class Transport(Protocol):
    """The way to the backend of one signal."""

    target: Target

    async def send(self, request: bytes) -> Answer:
        """One request, and what was said of it."""
        ...

    async def close(self) -> None:
        """Lets go of the connection."""
        ...


def otlp_sink(
    *,
    service_version: str,
    instance_id: str,
    with_logs: bool,
    trusted: TrustInTrace = lambda _: True,
    environ: Mapping[str, str] = os.environ,
) -> OtlpSink:
    """The sink that the standard environment asks for. Raises ``OtlpSettingError``."""
    if with_logs:
        require_place_for_logs(environ)
    user_agent = f"grpc-identity/{service_version}"
    transports: list[Transport] = []
    signals: tuple[Signal, ...] = ("traces", "logs") if with_logs else ("traces",)
    for signal in signals:
        target = target_of(signal, environ)
        make = HttpTransport if target.protocol == "http/protobuf" else GrpcTransport
        transports.append(make(target, user_agent=user_agent))
    return OtlpSink(transports, service_version=service_version, instance_id=instance_id, trusted=trusted)


class OtlpSink:
    """An ``AuditSink``; ``trusted`` says whose spans an event may be a child of."""

    name = NAME

    def __init__(
        self,
        transports: Sequence[Transport],
        *,
        service_version: str,
        instance_id: str,
        trusted: TrustInTrace = lambda _: True,
    ) -> None:
        resource = _resource(service_version, instance_id)
        scope = InstrumentationScope(name=_SCOPE, version=service_version).SerializeToString()
        self._channels = [_Channel(transport, resource, scope) for transport in transports]
        self._with_log = any(transport.target.signal == "logs" for transport in transports)
        self._trusted = trusted

    async def deliver(self, events: Sequence[ChainedEvent]) -> Delivery:
        """See ``AuditSink``."""
        batch, unsayable = await self._encoded(events)
        for part in _parts(batch):
            not_now = await asyncio.gather(*(channel.deliver(part) for channel in self._channels))
            if problems := [item for item in not_now if item is not None]:
                waits = [
                    item.retry_after_seconds for item in problems if item.retry_after_seconds is not None
                ]
                return Undelivered(problems[0].problem, max(waits, default=None))
        return Delivered(
            unsayable | dict(item for channel in self._channels for item in channel.refused(events))
        )

    async def close(self) -> None:
        """See ``AuditSink``."""
        for channel in self._channels:
            await channel.close()

    async def _encoded(self, events: Sequence[ChainedEvent]) -> tuple[Sequence[EncodedEvent], dict[str, str]]:
        encode = partial(encoded, trusted=self._trusted, with_log=self._with_log)
        batch: list[EncodedEvent] = []
        unsayable: dict[str, str] = {}
        for start in range(0, len(events), _ENCODED_AT_ONCE):
            items, refused = encoded_or_refused(events[start : start + _ENCODED_AT_ONCE], encode)
            batch += items
            unsayable |= refused
            await asyncio.sleep(0)  # calls are answered in the same loop, where the relay is embedded
        return batch, unsayable


def _parts(batch: Sequence[EncodedEvent]) -> Iterator[Sequence[EncodedEvent]]:
    """In the bounds of a request; an event that is larger goes alone."""
    part: list[EncodedEvent] = []
    size = 0
    for item in batch:
        item_size = max(len(item.span), len(item.log)) + 8  # tag and length
        if part and (len(part) == MAX_REQUEST_EVENTS or size + item_size > MAX_REQUEST_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += item_size
    if part:
        yield part


class _Channel:
    """One signal: its transport, how its requests are made, and what it has refused."""

    def __init__(self, transport: Transport, resource: bytes, scope: bytes) -> None:
        self._transport = transport
        self._signal = transport.target.signal
        if self._signal == "traces":
            resource_field, scope_field = ResourceSpans.RESOURCE_FIELD_NUMBER, ScopeSpans.SCOPE_FIELD_NUMBER
            self._records_tag = tag(ScopeSpans.SPANS_FIELD_NUMBER)
            self._scopes_tag = tag(ResourceSpans.SCOPE_SPANS_FIELD_NUMBER)
        else:
            resource_field, scope_field = ResourceLogs.RESOURCE_FIELD_NUMBER, ScopeLogs.SCOPE_FIELD_NUMBER
            self._records_tag = tag(ScopeLogs.LOG_RECORDS_FIELD_NUMBER)
            self._scopes_tag = tag(ResourceLogs.SCOPE_LOGS_FIELD_NUMBER)
        self._resource = framed(tag(resource_field), resource)
        self._scope = framed(tag(scope_field), scope)
        self._refused: dict[str, str] = {}
        self._limit = MAX_REQUEST_EVENTS

    async def deliver(self, part: Sequence[EncodedEvent]) -> NotNow | None:
        """Sends what this backend has not refused before: a delivery that is tried again gets further each time."""
        records = [
            (item.event_id, item.span if self._signal == "traces" else item.log)
            for item in part
            if item.event_id not in self._refused
        ]
        while records:
            settled = await settle(self._send, records[: self._limit])
            self._refused |= settled.refused
            if settled.not_now is not None:
                return NotNow(
                    f"{self._signal}: {settled.not_now.problem}", settled.not_now.retry_after_seconds
                )
            records = records[self._limit :]
            # What was too much once is tried again, in small steps.
            self._limit = settled.takes or min(self._limit + 1, MAX_REQUEST_EVENTS)
        return None

    def refused(self, events: Sequence[ChainedEvent]) -> Iterator[tuple[str, str]]:
        """Id and problem of each that the backend will never take; after that it is not remembered."""
        for item in events:
            if (problem := self._refused.pop(item.event.event_id, None)) is not None:
                yield item.event.event_id, f"{self._signal}: {problem}"[:MAX_REFUSAL_CHARS]
        # Of events that another relay has delivered meanwhile.
        if len(self._refused) > MAX_REMEMBERED_REFUSALS:
            self._refused.clear()

    async def close(self) -> None:
        """Lets go of the connection."""
        await self._transport.close()

    async def _send(self, records: Sequence[tuple[str, bytes]]) -> Answer:
        return await self._transport.send(self._request([message for _, message in records]))

    def _request(self, messages: Sequence[bytes]) -> bytes:
        """``ExportTraceServiceRequest`` or ``ExportLogsServiceRequest``, whose only field has the same number."""
        records = [length(len(message)) + message for message in messages]
        scoped = self._scope + (repeated(self._records_tag, records) if records else b"")
        return framed(_REQUEST_TAG, self._resource + framed(self._scopes_tag, scoped))


def _resource(service_version: str, instance_id: str) -> bytes:
    """Of the SDK only this: it knows ``OTEL_RESOURCE_ATTRIBUTES``."""
    own = {
        SERVICE_NAME: "grpc-identity",
        SERVICE_VERSION: service_version,
        "service.instance.id": instance_id,
        "identity.audit.sink": NAME,
    }
    known = SdkResource.create({**own}).attributes
    return repeated(
        tag(Resource.ATTRIBUTES_FIELD_NUMBER),
        [
            attribute(name, value if isinstance(value, str | int) else str(value))
            for name, value in known.items()
        ],
    )
