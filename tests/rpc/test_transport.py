"""Listening: TLS and mTLS by configuration, plain text on loopback only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority

from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1 import identity_service_pb2_grpc as pb_grpc
from identity.app import IdentityServer
from identity.rpc.server import ListenError, require_loopback


async def ask(target: str, credentials: grpc.ChannelCredentials | None) -> Any:
    """The keys, over a channel of its own."""
    channel = (
        grpc.aio.secure_channel(target, credentials) if credentials else grpc.aio.insecure_channel(target)
    )
    async with channel:
        return await pb_grpc.IdentityServiceStub(channel).GetJWKS(pb.GetJWKSRequest(), timeout=5)


async def test_tls_serves_who_trusts_it_and_nobody_in_plain_text(make_settings: Any, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("server")
    server = IdentityServer(
        make_settings(
            grpc={"tls_certificate_file": certificate, "tls_private_key_file": key, "listen": "127.0.0.1:0"}
        )
    )
    target = (await server.start()).grpc_target
    assert (await ask(target, grpc.ssl_channel_credentials(authority.file.read_bytes()))).keys
    for credentials in (None, grpc.ssl_channel_credentials(Authority(tmp_path, "other").file.read_bytes())):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(target, credentials)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    await server.stop(0)


async def test_mtls_asks_for_a_certificate_of_its_authority(make_settings: Any, tmp_path: Path) -> None:
    authority, clients = Authority(tmp_path, "ca"), Authority(tmp_path, "clients")
    certificate, key = authority.issue("server")
    server = IdentityServer(
        make_settings(
            grpc={
                "tls_certificate_file": certificate,
                "tls_private_key_file": key,
                "tls_client_ca_file": clients.file,
                "listen": "127.0.0.1:0",
            }
        )
    )
    target = (await server.start()).grpc_target
    roots = authority.file.read_bytes()

    def credentials(issuer: Authority, name: str) -> grpc.ChannelCredentials:
        own, private = issuer.issue(name)
        return grpc.ssl_channel_credentials(roots, private.read_bytes(), own.read_bytes())

    assert (await ask(target, credentials(clients, "orders"))).keys
    for bad in (grpc.ssl_channel_credentials(roots), credentials(authority, "impostor")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(target, bad)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    await server.stop(0)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "id.example", ""])
def test_plain_text_is_for_loopback_unless_allowed_aloud(host: str) -> None:
    with pytest.raises(ListenError, match="allow_plaintext"):
        require_loopback(host, allow_plaintext=False)
    require_loopback(host, allow_plaintext=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "[::1]", "localhost"])
def test_loopback_needs_no_permission(host: str) -> None:
    require_loopback(host, allow_plaintext=False)


async def test_a_port_in_use_is_said_to_be(service: Any, make_settings: Any) -> None:
    server = IdentityServer(make_settings(grpc={"listen": service.addresses.grpc_target}))
    with pytest.raises(ListenError, match=r"grpc\.listen"):
        await server.start()
    await server.stop(0)
