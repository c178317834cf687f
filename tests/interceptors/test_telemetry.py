"""What the host's OpenTelemetry hears: decisions as metrics, refusals as events, never a token."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import pytest_asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from grpc_identity import Verifier
from grpc_identity.aio import AuthInterceptor as AioAuthInterceptor
from grpc_identity.sync import AuthInterceptor
from grpc_identity.testing import Flaw, InMemoryIssuer

METRICS = """
import json
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from grpc_identity import Verifier
from grpc_identity.testing import Flaw, InMemoryIssuer
from grpc_identity.transport import Gate

issuer = InMemoryIssuer(audience="test")
# Instruments are made before the host has set up its provider, as in a module that is imported early.
verifier = Verifier(issuer.trusted())
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
gate = Gate(verifier, None, max_waiting=1)
token = issuer.mint()
for sent in (token, token, token, issuer.mint(), issuer.mint_broken(Flaw.EXPIRED)):
    try:
        gate.admit("/t.S/M", (("authorization", "Bearer " + sent),))
    except Exception as error:
        gate.refusal("/t.S/M", error)
found = {}
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            for point in metric.data.data_points:
                value = point.count if hasattr(point, "count") else point.value
                found[" ".join([metric.name, *map(str, point.attributes.values())])] = value
print(json.dumps(found))
"""

WITHOUT_API = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
from grpc_identity import Verifier
from grpc_identity.testing import InMemoryIssuer
from grpc_identity.telemetry import report_refusal
issuer = InMemoryIssuer(audience="test")
print(Verifier(issuer.trusted()).verify(issuer.mint()).subject)
report_refusal("/t.S/M", ValueError(), peer="ipv4:127.0.0.1:1", metadata=())
"""


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """Where the spans of this process go."""
    received = InMemorySpanExporter()
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    provider.add_span_processor(SimpleSpanProcessor(received))
    return received


@pytest_asyncio.fixture(params=["aio", "sync"])
async def call(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[InMemoryIssuer, str], Any]]:
    """Calls a server of either stack that trusts an issuer."""
    ends: list[Any] = []

    async def make(issuer: InMemoryIssuer, token: str) -> None:
        verifier = Verifier(issuer.trusted())
        options = [("grpc.so_reuseport", 0)]
        server: Any

        async def answer_async(message: bytes, context: Any) -> bytes:
            return message

        def answer(message: bytes, context: Any) -> bytes:
            return message

        is_aio = request.param == "aio"
        if is_aio:
            server = grpc.aio.server(interceptors=[AioAuthInterceptor(verifier)], options=options)
        else:
            pool = ThreadPoolExecutor(2)
            server = grpc.server(pool, interceptors=[AuthInterceptor(verifier)], options=options)
        handler = grpc.unary_unary_rpc_method_handler(answer_async if is_aio else answer)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.S", {"M": handler})])
        port = server.add_insecure_port("127.0.0.1:0")
        started = server.start()
        if is_aio:
            await started
        ends.append((server, is_aio))
        options = [("grpc.primary_user_agent", "orders-test/1.0")]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            await channel.unary_unary("/t.S/M")(b"", metadata=(("authorization", f"Bearer {token}"),))

    yield make
    for server, is_aio in ends:
        stopping = server.stop(0)
        if is_aio:
            await stopping
        else:
            stopping.wait()


async def test_a_refusal_tells_who_tried_from_where_and_in_whose_name(
    exporter: InMemorySpanExporter, call: Any
) -> None:
    exporter.clear()
    issuer = InMemoryIssuer(audience="test")
    token = issuer.mint_broken(Flaw.EXPIRED, subject="mallory")
    with pytest.raises(grpc.aio.AioRpcError):
        await call(issuer, token)
    (span,) = [span for span in exporter.get_finished_spans() if span.name == "identity.call_refused"]
    attributes = dict(span.attributes or {})
    assert (attributes["rpc.service"], attributes["rpc.method"]) == ("t.S", "M")
    assert attributes["error.type"] == "TOKEN_EXPIRED"
    assert attributes["identity.attempted_subject"] == "mallory"
    assert str(attributes["client.address"]).startswith("ipv4:127.0.0.1:")
    assert str(attributes["user_agent.original"]).startswith("orders-test/1.0")
    for part in token.split("."):
        assert part not in span.to_json()


async def test_a_call_that_is_let_in_makes_no_span(exporter: InMemorySpanExporter, call: Any) -> None:
    exporter.clear()
    issuer = InMemoryIssuer(audience="test")
    await call(issuer, issuer.mint())
    assert not exporter.get_finished_spans()


def test_metrics_count_decisions_and_what_was_remembered() -> None:
    import json

    ran = subprocess.run([sys.executable, "-c", METRICS], check=True, capture_output=True, text=True)
    assert json.loads(ran.stdout) == {
        "identity.decisions ADMITTED": 4,
        "identity.decisions TOKEN_EXPIRED": 1,
        "identity.verifications True": 2,
        "identity.verifications False": 2,
        "identity.verification.duration": 2,
    }


def test_without_opentelemetry_everything_works() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_API], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "alice"
