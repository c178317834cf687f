"""Where TLS is the trouble, a sink names the setting to look at: the one that is wrong, and not its neighbour."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from audit.sinks.collectors import Receiver
from audit.sinks.receivers import Backend, GrpcReceiver, HttpReceiver
from audit.sinks.samples import chain
from certificates import Authority

from identity.audit.sinks.otlp.sink import otlp_sink
from identity.audit.sinks.ports import Undelivered
from identity.audit.sinks.syslog.address import SyslogAddress
from identity.audit.sinks.syslog.sink import SyslogSink
from identity.audit.sinks.syslog.stream import Patience, TlsFiles

PREFIX = "OTEL_EXPORTER_OTLP_"
PATIENCE = Patience(timeout=60.0, settle=30.0)


@dataclass
class Files:
    """Of two authorities; servers have certificates of the first, by the name of this host or by another."""

    ours: Authority
    theirs: Authority

    def server(self, *, for_this_host: bool = True) -> tuple[Path, Path]:
        return self.ours.issue("server", ("elsewhere.example",), for_this_host=for_this_host)

    def context(self, *, mutual: bool = False, for_this_host: bool = True) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.server(for_this_host=for_this_host))
        if mutual:
            context.load_verify_locations(self.ours.file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def receiver(
        self, protocol: str, *, mutual: bool = False, for_this_host: bool = True
    ) -> HttpReceiver | GrpcReceiver:
        if protocol != "grpc":
            return HttpReceiver(Backend(), self.context(mutual=mutual, for_this_host=for_this_host))
        certificate, key = self.server(for_this_host=for_this_host)
        credentials = grpc.ssl_server_credentials(
            [(key.read_bytes(), certificate.read_bytes())],
            self.ours.file.read_bytes() if mutual else None,
            require_client_auth=mutual,
        )
        return GrpcReceiver(Backend(), credentials)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(Authority(tmp_path, "ca"), Authority(tmp_path, "other"))


async def problem_of(protocol: str, url: str, **variables: Path | str) -> str:
    """What a sink says that delivers to this URL."""
    environ = {"ENDPOINT": url, "PROTOCOL": protocol, "TIMEOUT": "60000"} | variables
    sink = otlp_sink(
        service_version="1",
        instance_id="a",
        with_logs=False,
        environ={PREFIX + name: str(value) for name, value in environ.items()},
    )
    delivery = await sink.deliver(chain(1))
    await sink.close()
    assert isinstance(delivery, Undelivered)
    return delivery.problem


PROTOCOLS = pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])


@PROTOCOLS
async def test_a_certificate_of_another_authority_is_not_trusted(protocol: str, files: Files) -> None:
    async with files.receiver(protocol) as backend:
        for trusted in ({}, {"CERTIFICATE": files.theirs.file}):
            problem = await problem_of(protocol, backend.url, **trusted)
            assert "its certificate is not trusted" in problem
            assert f"check {PREFIX}CERTIFICATE" in problem
            assert "unable to get local issuer certificate" in problem


@PROTOCOLS
async def test_a_certificate_for_another_name_is_told_from_one_that_is_not_trusted(
    protocol: str, files: Files
) -> None:
    async with files.receiver(protocol, for_this_host=False) as backend:
        problem = await problem_of(protocol, backend.url, CERTIFICATE=files.ours.file)
        assert "its certificate is for another name" in problem
        assert f"check {PREFIX}ENDPOINT" in problem
        assert "not trusted" not in problem


@PROTOCOLS
async def test_a_backend_that_wants_a_client_certificate_is_told_as_that(protocol: str, files: Files) -> None:
    certificate, key = files.theirs.issue("relay")
    async with files.receiver(protocol, mutual=True) as backend:
        for own in ({}, {"CLIENT_CERTIFICATE": certificate, "CLIENT_KEY": key}):
            problem = await problem_of(protocol, backend.url, CERTIFICATE=files.ours.file, **own)
            assert f"check {PREFIX}CLIENT_CERTIFICATE" in problem
            assert "SSL:" not in problem


@PROTOCOLS
async def test_a_wrong_scheme_is_told(protocol: str, files: Files) -> None:
    async with files.receiver(protocol) as backend:
        problem = await problem_of(protocol, backend.url.replace("https://", "http://"))
        assert f"use https:// in {PREFIX}ENDPOINT" in problem
    async with GrpcReceiver(Backend()) if protocol == "grpc" else HttpReceiver(Backend()) as backend:
        problem = await problem_of(protocol, backend.url.replace("http://", "https://"))
        assert f"use http:// in {PREFIX}ENDPOINT" in problem


async def problem_of_syslog(files: Files, port: int) -> str:
    """What a sink says that trusts our authority."""
    address = SyslogAddress.parse(f"tls://127.0.0.1:{port}")
    sink = SyslogSink(address, files=TlsFiles(files.ours.file), patience=PATIENCE)
    delivery = await sink.deliver(chain(1))
    assert isinstance(delivery, Undelivered)
    return delivery.problem


async def test_a_collector_of_syslog_whose_certificate_is_for_another_name(files: Files) -> None:
    receiver = Receiver(files.context(for_this_host=False))
    await receiver.start()
    problem = await problem_of_syslog(files, receiver.port)
    await receiver.stop()
    assert "its certificate is for another name" in problem
    assert "check audit.syslog_address" in problem


async def test_a_collector_of_syslog_that_does_not_speak_tls(files: Files) -> None:
    """A web server answers anything; one of syslog would take the beginning of TLS for a message, and wait for more."""
    async with HttpReceiver(Backend()) as backend:
        problem = await problem_of_syslog(files, int(backend.url.rpartition(":")[2]))
    assert "check that audit.syslog_address speaks TLS" in problem
