"""The gRPC server: what it serves, what it listens on, and how it ends."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha._async import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server

from grpc_identity.redaction import keep_metadata_out_of_logs
from grpc_identity.v1 import (
    admin_service_pb2_grpc,
    identity_service_pb2_grpc,
)
from identity.rpc.admin_service import AdminService
from identity.rpc.calls import Calls, Context
from identity.rpc.identity_service import IdentityService

SERVICES = ("grpc_identity.v1.IdentityService", "grpc_identity.v1.AdminService")

_log = logging.getLogger(__name__)


class ListenError(Exception):
    """The server cannot listen as it was told; says what to change."""


@dataclass(frozen=True, slots=True)
class Transport:
    """Where and how to listen. Without a certificate it is plain text, on loopback only unless allowed."""

    listen: str
    certificate_file: Path | None = None
    private_key_file: Path | None = None
    client_ca_file: Path | None = None
    allow_plaintext: bool = False

    def check(self) -> None:
        """Raises ``ListenError`` for what can be seen to be wrong before listening."""
        host, _ = split_address(self.listen)
        if self.certificate_file is not None:
            _server_credentials(self)
        else:
            require_loopback(host, allow_plaintext=self.allow_plaintext)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a call may cost."""

    max_message_bytes: int
    max_metadata_bytes: int
    max_concurrent_calls: int


class RpcServer:
    """A ``grpc.aio`` server with the two services, health, and reflection if wanted."""

    def __init__(
        self,
        *,
        identity_service: IdentityService,
        admin_service: AdminService,
        calls: Calls,
        transport: Transport,
        bounds: Bounds,
        with_reflection: bool,
    ) -> None:
        keep_metadata_out_of_logs()
        self._transport = transport
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", bounds.max_message_bytes),
                ("grpc.max_metadata_size", bounds.max_metadata_bytes),
                ("grpc.absolute_max_metadata_size", bounds.max_metadata_bytes),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            ],
            maximum_concurrent_rpcs=bounds.max_concurrent_calls,
        )
        identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(identity_service, self._server)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin_service, self._server)
        self._health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if with_reflection:
            names = (
                *SERVICES,
                reflection.SERVICE_NAME,
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            )
            add_ServerReflectionServicer_to_server(_GuardedReflection(calls, names), self._server)

    async def start(self) -> str:
        """Listens, and returns the target that reaches it. Raises ``ListenError``."""
        host, port = split_address(self._transport.listen)
        address = self._transport.listen
        try:
            if self._transport.certificate_file is not None:
                bound = self._server.add_secure_port(address, _server_credentials(self._transport))
            else:
                require_loopback(host, allow_plaintext=self._transport.allow_plaintext)
                bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise ListenError(
                f"cannot listen on {address}: is the port in use? Choose another with grpc.listen."
            ) from error
        if not bound:
            raise ListenError(f"cannot listen on {address}; choose another address with grpc.listen.")
        await self._server.start()
        return f"{host}:{bound if port == 0 else port}"

    async def set_serving(self, serving: bool) -> None:
        """What the health service answers, for the server and for each service."""
        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *SERVICES):
            await self._health.set(name, status)

    async def stop(self, grace_seconds: float) -> None:
        """Says it is leaving, takes no new calls, and lets those under way finish."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_seconds)


class _GuardedReflection(ReflectionServicer):
    """Reflection for authenticated callers."""

    def __init__(self, calls: Calls, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self._calls = calls

    async def ServerReflectionInfo(self, requests: Any, context: Context) -> Any:  # noqa: N802 - gRPC's name
        await self._calls.authenticate(
            context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )
        responses: Any = super().ServerReflectionInfo(requests, context)
        async for response in responses:
            yield response


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``. Raises ``ListenError``."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ListenError(f"{address!r} is not host:port")
    return host, int(port)


def require_loopback(host: str, *, allow_plaintext: bool) -> None:
    """Raises ``ListenError`` for plain text where others could listen in, unless that was allowed aloud."""
    if allow_plaintext or host == "localhost":
        return
    try:
        if ipaddress.ip_address(host.strip("[]")).is_loopback:
            return
    except ValueError:
        pass
    raise ListenError(
        f"refusing plain text on {host}: set grpc.tls_certificate_file and grpc.tls_private_key_file, or listen on "
        "127.0.0.1; where a mesh encrypts for you, say so with grpc.allow_plaintext=true"
    )


def _server_credentials(transport: Transport) -> grpc.ServerCredentials:
    if transport.certificate_file is None or transport.private_key_file is None:
        raise ListenError("TLS needs both grpc.tls_certificate_file and grpc.tls_private_key_file")
    try:
        pair = (transport.private_key_file.read_bytes(), transport.certificate_file.read_bytes())
        roots = transport.client_ca_file.read_bytes() if transport.client_ca_file else None
    except OSError as error:
        raise ListenError(f"cannot read {error.filename}: {error.strerror}") from error
    return grpc.ssl_server_credentials([pair], root_certificates=roots, require_client_auth=roots is not None)
