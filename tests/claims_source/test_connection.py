"""How the source is reached: encrypted beyond this machine, and by name where it asks who calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from claims_source.source import Source, active, claims_of
from rpc.test_transport import Authority

from grpc_identity.v1 import identity_service_pb2 as pb
from identity import diagnosis
from identity.config import ConfigurationError


async def started(make_settings: Any, start_service: Any, **section: Any) -> Any:
    service = await start_service(make_settings(claims_source={"timeout_ms": 10_000} | section))
    request = pb.IssueTokensRequest(subject="alice", audience=["orders"])
    return (await service.identity.IssueTokens(request, metadata=service.login)).tokens


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


async def test_mtls_tells_the_source_who_asks(
    make_settings: Any, start_service: Any, refused: Any, tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.issue("accounts")
    roots = authority.file.read_bytes()
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())], roots, require_client_auth=True
    )
    source = Source(answer=active("clerk"))
    await source.start(credentials)
    own = authority.issue("identity")
    files = {"certificate_file": own[0], "private_key_file": own[1]}
    known = {"target": source.target, "ca_file": authority.file}
    tokens = await started(make_settings, start_service, **known, **files)
    assert claims_of(tokens).roles == {"clerk"}
    impostor = Authority(tmp_path, "another").issue("impostor")
    for wrong in (
        known,  # nobody
        known | {"certificate_file": impostor[0], "private_key_file": impostor[1]},
        known | files | {"ca_file": Authority(tmp_path, "other").file},
        {"target": source.target} | files,  # the system's roots do not know the source
        {"target": source.target},  # plain text to a port that speaks TLS
    ):
        refusal = await refused(started(make_settings, start_service, **wrong))
        assert refusal.reason == "CLAIMS_SOURCE_UNAVAILABLE"
    assert len(source.asked) == 1
    await source.stop()


async def test_plain_text_beyond_this_machine_has_to_be_allowed_aloud(
    source: Any, make_settings: Any, start_service: Any, refused: Any
) -> None:
    # Leads to this machine, too, which is not to be told from the address.
    target = source.target.replace("127.0.0.1", "0.0.0.0")
    refusal = await refused(started(make_settings, start_service, target=target))
    assert refusal.reason == "CLAIMS_SOURCE_UNAVAILABLE"
    assert not source.asked
    source.answer = active("clerk")
    tokens = await started(make_settings, start_service, target=target, allow_plaintext=True)
    assert claims_of(tokens).roles == {"clerk"}


@pytest.mark.parametrize("name", ["ca_file", "certificate_file", "private_key_file"])
async def test_a_file_that_cannot_be_read_is_named_at_the_start(
    source: Any, make_settings: Any, start_service: Any, tmp_path: Path, authority: Authority, name: str
) -> None:
    certificate, key = authority.issue("identity")
    files = {"ca_file": authority.file, "certificate_file": certificate, "private_key_file": key}
    section = {"target": source.target} | files | {name: tmp_path / "missing"}
    with pytest.raises(ConfigurationError, match=f"claims_source.{name}: cannot read"):
        await start_service(make_settings(claims_source=section))


async def test_the_doctor_says_whether_the_source_can_be_reached(
    source: Any, make_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "CONNECT_TIMEOUT_SECONDS", 1.0)

    async def finding(**section: Any) -> Any:
        findings = await diagnosis.examine(make_settings(claims_source=section))
        return next((item for item in findings if item.subject == "claims source"), None)

    assert await finding() is None
    found = await finding(target=source.target)
    assert (found.healthy, found.message) == (True, source.target)
    await source.stop()
    assert not (await finding(target=source.target)).healthy
    assert "cannot read" in (await finding(target=source.target, ca_file="/nonexistent")).message
