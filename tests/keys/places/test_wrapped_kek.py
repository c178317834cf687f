"""The key-encryption key, opened by a provider when a service starts."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from keys.places.aws import Aws
from keys.places.azure import Azure
from keys.places.gcp import Gcp
from keys.places.openbao import OpenBao
from keys.places.softhsm import SoftHsm

from grpc_identity.v1 import identity_service_pb2 as pb
from identity.config import ConfigurationError
from identity.keys.providers.remote import RemoteLimits
from identity.keys.providers.wrapping import unwrapped_kek, wrapped_kek
from identity.parts import key_encryption_key

LIMITS = RemoteLimits()
WRAPPING = ("transit", "pkcs11", "awskms", "azurekv", "gcpkms")


@pytest.fixture
def wrapping_uri(request: Any) -> Callable[[str], str]:
    """The URI of a key that wraps, by the scheme of its place."""

    def uri(scheme: str) -> str:
        match scheme:
            case "transit":
                openbao: OpenBao = request.getfixturevalue("openbao")
                return f"{openbao.uri}&key=kek"
            case "pkcs11":
                softhsm: SoftHsm = request.getfixturevalue("softhsm")
                softhsm.make_aes_key("kek")
                return softhsm.uri_with("token=identity;object=kek")
            case "azurekv":
                azure: Azure = request.getfixturevalue("azure")
                return azure.make_wrapping_key("kek")
            case "gcpkms":
                gcp: Gcp = request.getfixturevalue("gcp")
                return gcp.wrapping_uri
            case _:
                aws: Aws = request.getfixturevalue("aws")
                client = boto3.client("kms", region_name="eu-central-1", endpoint_url=aws.address)
                return f"{aws.uri_of('awskms')}&key={client.create_key()['KeyMetadata']['KeyId']}"

    return uri


@pytest.mark.parametrize("scheme", WRAPPING)
async def test_a_service_whose_key_encryption_key_is_wrapped_starts_and_issues(
    scheme: str, wrapping_uri: Any, make_settings: Any, start_service: Any, tmp_path: Path
) -> None:
    uri = await asyncio.to_thread(wrapping_uri, scheme)
    raw = secrets.token_bytes(32)
    wrapped = tmp_path / "wrapped"
    wrapped.write_text(await asyncio.to_thread(wrapped_kek, uri, raw, LIMITS))
    assert raw not in base64.b64decode(wrapped.read_text())
    settings = make_settings(keys={"kek_file": wrapped, "kek_provider": uri})
    assert (await asyncio.to_thread(key_encryption_key, settings)).raw == raw
    service = await start_service(settings)
    request = pb.IssueTokensRequest(subject="alice", audience=["orders"])
    assert (await service.identity.IssueTokens(request, metadata=service.login)).tokens.access_token


@pytest.mark.parametrize("scheme", WRAPPING)
def test_what_was_altered_is_not_unwrapped(scheme: str, wrapping_uri: Any, make_settings: Any) -> None:
    uri = wrapping_uri(scheme)
    wrapped = bytearray(base64.b64decode(wrapped_kek(uri, bytes(32), LIMITS)))
    # Of Transit's the text is base64 itself: another letter, not another kind of byte.
    wrapped[-6] = ord("A") if wrapped[-6] != ord("A") else ord("B")
    settings = make_settings(
        keys={"kek": base64.b64encode(wrapped).decode(), "kek_file": None, "kek_provider": uri}
    )
    with pytest.raises(ConfigurationError, match=r"^keys\.kek_provider: ") as caught:
        key_encryption_key(settings)
    assert bytes(wrapped).decode("latin-1") not in str(caught.value)


def test_a_key_encryption_key_that_lies_in_secrets_manager_is_fetched(aws: Aws, make_settings: Any) -> None:
    raw = secrets.token_bytes(32)
    client = boto3.client("secretsmanager", region_name="eu-central-1", endpoint_url=aws.address)
    client.create_secret(Name="kek", SecretString=base64.b64encode(raw).decode())
    uri = f"{aws.uri_of('awssm')}&secret=kek"
    settings = make_settings(keys={"kek_file": None, "kek_provider": uri})
    assert key_encryption_key(settings).raw == raw
    with pytest.raises(ConfigurationError, match="stay empty"):
        key_encryption_key(make_settings(keys={"kek_provider": uri}))


def test_a_key_encryption_key_that_lies_in_secret_manager_is_fetched(gcp: Gcp, make_settings: Any) -> None:
    raw = secrets.token_bytes(32)
    gcp.secrets["projects/p/secrets/kek"] = [b"the one before", base64.b64encode(raw)]
    uri = f"{gcp.uri_of('gcpsm')}&secret=kek"
    assert key_encryption_key(make_settings(keys={"kek_file": None, "kek_provider": uri})).raw == raw


def test_a_key_encryption_key_that_lies_in_key_vault_is_fetched(azure: Azure, make_settings: Any) -> None:
    raw = secrets.token_bytes(32)
    azure.put_secret("kek", "the one before")
    azure.put_secret("kek", base64.b64encode(raw).decode())
    uri = f"{azure.uri_of('azuresecrets')}&secret=kek"
    assert key_encryption_key(make_settings(keys={"kek_file": None, "kek_provider": uri})).raw == raw


def test_a_key_encryption_key_that_key_vault_wrapped_is_unwrapped_after_its_key_has_a_newer_version(
    azure: Azure,
) -> None:
    raw = secrets.token_bytes(32)
    uri = azure.make_wrapping_key("rotated")
    before = wrapped_kek(uri, raw, LIMITS)
    assert azure.make_wrapping_key("rotated") == uri
    after = wrapped_kek(uri, raw, LIMITS)
    assert unwrapped_kek(uri, before, LIMITS) == unwrapped_kek(uri, after, LIMITS) == raw


def test_a_place_that_is_away_at_the_start_is_named(make_settings: Any, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a token")
    uri = f"transit:http://127.0.0.1:9/transit?token-file={token}&key=kek"
    with pytest.raises(ConfigurationError, match=r"Transit at 127\.0\.0\.1:9/transit cannot be reached"):
        key_encryption_key(make_settings(keys={"kek_provider": uri}))


def test_text_that_is_not_base64_says_how_to_make_some() -> None:
    from identity.keys.ports import ProviderError

    with pytest.raises(ProviderError, match="identity kek new"):
        unwrapped_kek("awskms:eu-central-1?key=x", "vault:v1:…", LIMITS)
