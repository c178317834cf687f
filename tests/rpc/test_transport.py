"""Listening: TLS and mTLS by configuration, plain text on loopback only."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1 import identity_service_pb2_grpc as pb_grpc
from identity.app import IdentityServer
from identity.rpc.server import ListenError, require_loopback


class Authority:
    """Issues certificates for 127.0.0.1."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(name, self._key, is_authority=True)
        self.file = self._write(f"{name}.pem", self._certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Files of a certificate and its private key."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key, is_authority=False)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return (
            self._write(f"{name}.pem", certificate.public_bytes(Encoding.PEM)),
            self._write(f"{name}.key", private),
        )

    def _write(self, name: str, content: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content)
        return path

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> x509.Certificate:
        now = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._name)])
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + dt.timedelta(days=36500))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )


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
