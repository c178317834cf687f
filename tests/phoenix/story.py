"""The caller of the story: a shop that traces its calls as any instrumented service does, with OpenTelemetry's SDK.

A person signs in and checks out; somebody spends the refresh token that the shop has spent already, and so the session is over for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1 import tokens_pb2

SERVICE = "grpc_identity.v1.IdentityService"
# By each step of the caller: the call that it makes, and what the audit says of that.
STEPS = {
    "sign in": ("IssueTokens", "tokens.issued"),
    "check out": ("Refresh", "tokens.refreshed"),
    "spend the stolen token": ("Refresh", "refresh.reuse_detected"),
    "look at the order": ("Refresh", "refresh.refused"),
    "sign out everywhere": ("Revoke", "subject.revoked"),
}
ALICE = tokens_pb2.ClientContext(
    ip_address="192.0.2.10", user_agent="Mozilla/5.0 (X11; Linux x86_64)", device_label="Alice's laptop"
)
SOMEBODY = tokens_pb2.ClientContext(ip_address="203.0.113.66", user_agent="curl/8.5.0")


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller knows afterwards. ``calls``: the span of each step's call, by the name of the step."""

    trace_id: str
    session_id: str
    calls: dict[str, str]


@dataclass
class Shop:
    """One caller, whose spans go to ``traces_url``; none of them where ``sampler`` drops them."""

    service: Any
    traces_url: str
    sampler: Sampler = ALWAYS_ON
    _calls: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._provider = TracerProvider(self.sampler, Resource.create({"service.name": "shop"}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=self.traces_url)))
        self._tracer = self._provider.get_tracer("shop")

    def export(self) -> None:
        """Sends what has not been sent, and ends the exporter."""
        assert self._provider.force_flush()
        self._provider.shutdown()

    async def story(self) -> Told:
        """All of it, in one trace."""
        with self._tracer.start_as_current_span("a visit to the shop", kind=SpanKind.SERVER) as visit:
            with self._step("sign in"):
                request = pb.IssueTokensRequest(
                    subject="alice", audience=["orders"], scopes=["orders.read"], client_context=ALICE
                )
                first: tokens_pb2.TokenSet = (await self._call("IssueTokens", request)).tokens
            with self._step("check out"):
                request = pb.RefreshRequest(
                    refresh_token=first.refresh_token, idempotency_key="check-out-1", client_context=ALICE
                )
                second: tokens_pb2.TokenSet = (await self._call("Refresh", request)).tokens
            with self._step("spend the stolen token"):
                request = pb.RefreshRequest(refresh_token=first.refresh_token, client_context=SOMEBODY)
                await self._refused("Refresh", request)
            with self._step("look at the order"):
                request = pb.RefreshRequest(refresh_token=second.refresh_token, client_context=ALICE)
                await self._refused("Refresh", request)
            with self._step("sign out everywhere"):
                await self._call("Revoke", pb.RevokeRequest(subject="alice", client_context=ALICE))
        return Told(format_trace_id(visit.get_span_context().trace_id), first.session_id, self._calls)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        self._name = name
        with self._tracer.start_as_current_span(name):
            yield

    async def _refused(self, method: str, request: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await self._call(method, request)

    async def _call(self, method: str, request: Any) -> Any:
        """As an instrumented channel does it: a span of kind CLIENT, and its context in the metadata."""
        attributes = {"rpc.system.name": "grpc", "rpc.method": f"{SERVICE}/{method}"}
        with self._tracer.start_as_current_span(
            f"{SERVICE}/{method}",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            self._calls[self._name] = format_span_id(span.get_span_context().span_id)
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            metadata = (*self.service.login, *carrier.items())
            try:
                answer = await getattr(self.service.identity, method)(request, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                span.set_attribute("rpc.response.status_code", error.code().name)
                span.set_status(StatusCode.ERROR, error.code().name)
                raise
            span.set_attribute("rpc.response.status_code", "OK")
            return answer
