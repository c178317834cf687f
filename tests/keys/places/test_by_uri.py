"""Choosing a provider."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from keys.places.openbao import OpenBao

from grpc_identity.jwk import KeySet
from grpc_identity.jws import verify_compact
from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.keys.ports import ProviderError
from identity.keys.providers.by_uri import PACKAGES, provider_by_uri, providers_by_scheme
from identity.keys.providers.remote import RemoteLimits

ISSUE = pb.IssueTokensRequest(subject="alice", audience=["orders"])
ROOT = Path(__file__).parents[3]
MISSING = {
    "pkcs11": "pkcs11", "awskms": "boto3", "awssm": "boto3", "azurekv": "azure.keyvault.keys",
    "azuresecrets": "azure.keyvault.secrets", "gcpkms": "google.cloud.kms_v1", "gcpsm": "google.cloud.secretmanager_v1",
}  # fmt: skip


@pytest.mark.parametrize("scheme", MISSING)
def test_a_provider_whose_packages_are_missing_names_the_extra_and_the_service_needs_none(
    scheme: str,
) -> None:
    extra = PACKAGES[scheme].extra
    program = f"""
import sys
sys.modules[{MISSING[scheme]!r}] = None
import identity.app, identity.cli.main
from identity.keys.ports import ProviderError
from identity.keys.providers.by_uri import provider_by_uri
from identity.keys.providers.remote import RemoteLimits
try:
    provider_by_uri("{scheme}:x", RemoteLimits())
except ProviderError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert f"pip install 'grpc-identity-server[{extra}]'" in done.stdout


def test_every_provider_is_documented_with_its_extra() -> None:
    text = (ROOT / "docs/key-providers.md").read_text()
    for scheme, packages in PACKAGES.items():
        assert f"`{scheme}:" in text
        assert not packages.extra or f"`{packages.extra}`" in text


@pytest.mark.parametrize("uri", ["local:x", "nowhere:", "", "Local:"])
def test_a_uri_that_names_no_provider_is_refused(uri: str) -> None:
    with pytest.raises(ProviderError):
        provider_by_uri(uri, RemoteLimits())


def test_two_providers_of_one_scheme_are_refused() -> None:
    with pytest.raises(ProviderError, match="cannot be told apart"):
        providers_by_scheme("awskms:eu-central-1", ["awskms:eu-west-1"], RemoteLimits())


async def test_a_key_that_is_lost_in_another_place_is_said_a_day_before_it_is_to_sign(
    openbao: OpenBao, make_settings: Any, start_service: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("identity.keys.rehearsal.TRY_AGAIN", timedelta(0))
    monkeypatch.setattr("identity.keys.service.TRY_SOON", timedelta(seconds=0.1))
    settings = make_settings()
    await start_service(settings)
    moved = settings.keys.model_copy(update={"provider": openbao.uri})
    service = await start_service(settings.model_copy(update={"keys": moved}))
    request = admin_pb.RotateKeysRequest(idempotency_key="move")
    new = (await service.administration.RotateKeys(request, metadata=service.admin)).key.public_key.kid

    async def readiness() -> tuple[int, list[str]]:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{service.addresses.http_url}/readyz")
        named = [
            item["message"] for item in answer.json()["problems"] if item["name"] == "pending_key_unusable"
        ]
        return answer.status_code, named

    async def is_known_to_sign() -> bool:
        return service.server.keys._rehearsal.signer(new) is not None

    await wait_until(is_known_to_sign)
    assert await readiness() == (200, [])
    keyring = await service.server.store.keyring.load()
    private_part = service.server.keys.custody._private_part(keyring.get(new))
    name = json.loads(private_part)["key"]
    openbao.call("POST", f"transit/keys/{name}/config", {"deletion_allowed": True})
    openbao.call("DELETE", f"transit/keys/{name}")

    async def is_said() -> bool:
        status, named = await readiness()
        return status == 200 and len(named) == 1 and new in named[0]

    await wait_until(is_said)
    assert (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens.access_token


async def test_keys_move_from_one_place_to_another_by_a_rotation(
    openbao: OpenBao, make_settings: Any, start_service: Any, wait_until: Any
) -> None:
    settings = make_settings()
    before = await start_service(settings)
    old_token = (await before.identity.IssueTokens(ISSUE, metadata=before.login)).tokens.access_token
    # A server that does not know the new place would hold the switch up: it could not sign.
    await before.server.stop(0)
    moved = settings.keys.model_copy(update={"provider": openbao.uri})
    service = await start_service(settings.model_copy(update={"keys": moved}))
    # The key that signs stays where it is; the next one is made in the new place.
    keys = service.server.keys
    assert [key.provider for key in keys.keyring.keys] == ["local"]
    request = admin_pb.RotateKeysRequest(now=True, idempotency_key="move")
    new = (await service.administration.RotateKeys(request, metadata=service.admin)).key.public_key.kid
    await wait_until(lambda: keys.active_signer().kid == new)
    assert {key.kid: key.provider for key in keys.keyring.published}[new] == "transit"
    new_token = (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens.access_token
    for token in (old_token, new_token):
        verify_compact(token, KeySet.from_jwks(keys.published().jwks))
