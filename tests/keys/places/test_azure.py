"""What is particular to Azure Key Vault."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from certificates import Authority
from keys.places.azure import CLIENT_SECRET, VAULT, Azure, KeyVaultError
from keys.places.test_every_place import SIGNING_INPUT, verifies

from identity.config import ConfigurationError
from identity.keys.ports import KeyProvider, ProviderError, SignerUnavailableError
from identity.keys.providers.azure import AzureVault
from identity.keys.providers.by_uri import provider_by_uri
from identity.keys.providers.remote import RemoteLimits
from identity.keys.providers.wrapping import wrapped_kek
from identity.parts import key_providers

LIMITS = RemoteLimits()


@pytest.fixture
def vault(azure: Azure) -> Iterator[Azure]:
    """One that a test may put out of order; the next finds it in order."""
    azure.asked.clear()
    yield azure
    azure.fault = azure.entra_fault = None
    azure.bring_back()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("azurekv:acme", "needs the URL of a vault"),
        ("azurekv:http://acme.vault.azure.net", "needs the URL of a vault"),
        ("azurekv:http://127.0.0.1:1", "needs the URL of a vault"),
        ("azurekv:https://user:CANARY@acme.vault.azure.net", "needs the URL of a vault"),
        ("azurekv:https://acme.vault.azure.net/keys", "needs the URL of a vault"),
        ("azurekv:https://acme.vault.azure.net:port", "needs the URL of a vault"),
        ("azurekv:https://acme.vault.azure.net?client-secret=CANARY", "no option 'client-secret'"),
        ("azurekv:https://acme.vault.azure.net?protection=tpm", "protection is software or hsm"),
        ("azurekv:https://acme.vault.azure.net?endpoint=other.example:443", "on this machine only"),
        ("azurekv:https://acme.vault.azure.net?endpoint=127.0.0.1:https", "host:port"),
        ("azurekv:https://acme.vault.azure.net?ca-file=/nowhere", "cannot read ca-file: No such file"),
        ("azuresecrets:https://acme.vault.azure.net?protection=hsm", "no option 'protection'"),
    ],
)
def test_a_uri_that_cannot_be_meant_is_refused_and_not_quoted(uri: str, said: str) -> None:
    with pytest.raises(ProviderError, match=said) as caught:
        provider_by_uri(uri, LIMITS)
    assert "CANARY" not in str(caught.value)


async def test_ed25519_is_refused_before_anything_is_made(
    vault: Azure, provider_at: Callable[..., KeyProvider]
) -> None:
    with pytest.raises(ProviderError, match=r"no keys for EdDSA; keys\.algorithm can be ES256 or RS256"):
        await provider_at(vault.uri).generate("EdDSA")
    assert vault.asked == []


def test_a_service_that_is_to_sign_with_ed25519_there_is_refused_at_its_start_and_not_when_a_key_is_due(
    vault: Azure, make_settings: Any
) -> None:
    settings = make_settings(keys={"provider": vault.uri, "algorithm": "EdDSA"})
    with pytest.raises(ConfigurationError, match=r"^keys\.algorithm: azurekv: has no keys for EdDSA"):
        key_providers(settings)
    key_providers(make_settings(keys={"provider": vault.uri_of("azuresecrets"), "algorithm": "EdDSA"}))


@pytest.mark.parametrize(("protection", "kind"), [("software", "EC"), ("hsm", "EC-HSM")])
async def test_a_key_is_made_to_sign_and_cannot_be_taken_out(
    protection: str, kind: str, vault: Azure, provider_at: Callable[..., KeyProvider]
) -> None:
    provider = provider_at(f"{vault.uri}&protection={protection}&prefix=acme")
    name, version = (await provider.generate("ES256")).private_part.decode().split("/")
    made = vault.keys[name][version]
    assert name.startswith("acme-")
    assert (made["jwk"]["kty"], made["jwk"]["key_ops"]) == (kind, ["sign"])
    assert made["attributes"]["exportable"] is False


async def test_a_key_that_could_be_taken_out_is_refused_and_deleted(
    vault: Azure, provider_at: Callable[..., KeyProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vault, "makes_exportable", True)
    before = set(vault.keys)
    with pytest.raises(ProviderError, match="can be taken out"):
        await provider_at(vault.uri).generate("ES256")
    assert set(vault.keys) == before


async def test_a_signature_is_by_the_version_that_was_made_whoever_rotates_the_key_there(
    vault: Azure, provider_at: Callable[..., KeyProvider]
) -> None:
    made = await provider_at(vault.uri).generate("ES256")
    name = made.private_part.decode().partition("/")[0]
    vault.rotate(name)
    signer = await provider_at(vault.uri).signer(made.public_jwk["kid"], "ES256", made.private_part)
    assert verifies(made.public_jwk, await signer.sign(SIGNING_INPUT))


async def test_a_signature_is_one_request_and_a_token_serves_for_many(
    vault: Azure, provider_at: Callable[..., KeyProvider]
) -> None:
    provider = provider_at(vault.uri)
    made = await provider.generate("ES256")
    signer = await provider.signer(made.public_jwk["kid"], "ES256", made.private_part)
    vault.asked.clear()
    given = vault.tokens_given
    for _ in range(5):
        await signer.sign(SIGNING_INPUT)
    assert vault.asked == [f"POST /keys/{made.private_part.decode()}/sign"] * 5
    assert vault.tokens_given == given


async def test_a_token_that_was_revoked_is_replaced_within_the_call(
    vault: Azure, provider_at: Callable[..., KeyProvider]
) -> None:
    provider = provider_at(vault.uri)
    made = await provider.generate("ES256")
    signer = await provider.signer(made.public_jwk["kid"], "ES256", made.private_part)
    vault.revoke_tokens()
    assert verifies(made.public_jwk, await signer.sign(SIGNING_INPUT))


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_vault_that_is_throttled_or_out_of_order_is_asked_again_within_the_deadline(
    status: int, vault: Azure, provider_at: Callable[..., KeyProvider], wait_until: Any
) -> None:
    provider = provider_at(vault.uri)
    made = await provider.generate("ES256")
    signer = await provider.signer(made.public_jwk["kid"], "ES256", made.private_part)
    vault.asked.clear()
    vault.fault = KeyVaultError(status, "Throttled")
    signing = asyncio.create_task(signer.sign(SIGNING_INPUT))
    await wait_until(lambda: len(vault.asked) > 1)
    vault.fault = None
    assert verifies(made.public_jwk, await signing)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (KeyVaultError(403, "Forbidden"), "refuses to sign: Forbidden"),
        (KeyVaultError(404, "KeyNotFound"), "does not have what it was asked to sign"),
        (KeyVaultError(400, "CANARY\nin a code"), "refuses to sign: status 400"),
        (KeyVaultError(401, "Unauthorized"), "refuses to sign: Unauthorized"),
    ],
)
async def test_a_refusal_of_the_vault_is_said_at_once_and_named_by_its_code(
    fault: KeyVaultError, said: str, vault: Azure, provider_at: Callable[..., KeyProvider]
) -> None:
    provider = provider_at(vault.uri)
    made = await provider.generate("ES256")
    signer = await provider.signer(made.public_jwk["kid"], "ES256", made.private_part)
    fault.body["error"]["message"] = "CANARY"
    vault.fault = fault
    with pytest.raises(SignerUnavailableError, match=said) as caught:
        await signer.sign(SIGNING_INPUT)
    assert "CANARY" not in str(caught.value)


async def test_credentials_that_entra_refuses_are_named_and_not_shown(
    vault: Azure, provider_at: Callable[..., KeyProvider], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "CANARY-another")
    with pytest.raises(ProviderError, match="credentials of the service are refused") as caught:
        await provider_at(vault.uri).generate("ES256")
    # Why, the library's own log says.
    assert "AADSTS7000215" in caplog.text
    assert not [text for text in (caplog.text, repr(caught.value)) if "CANARY" in text]


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=503, text="<html>", content_type="text/html"),
        lambda: web.json_response({"error": "temporarily_unavailable"}, status=503),
        lambda: web.Response(status=500),
    ],
    ids=["a page", "an error", "nothing"],
)
async def test_while_entra_is_out_of_order_the_vault_cannot_be_reached(
    answer: Callable[[], web.Response], vault: Azure, provider_at: Callable[..., KeyProvider]
) -> None:
    vault.entra_fault = answer
    with pytest.raises(ProviderError, match=f"Azure Key Vault {VAULT} cannot be reached"):
        await provider_at(vault.uri).generate("ES256")


async def test_a_service_without_credentials_is_told_so(
    vault: Azure, provider_at: Callable[..., KeyProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_TENANT_ID")
    with pytest.raises(ProviderError, match="azure-identity finds no credentials"):
        await provider_at(vault.uri).generate("ES256")


async def test_a_managed_identity_that_does_not_answer_is_said_to(
    vault: Azure, provider_at: Callable[..., KeyProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZURE_CLIENT_SECRET")
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://127.0.0.1:9/")
    monkeypatch.setenv("IDENTITY_HEADER", "CANARY")
    with pytest.raises(ProviderError, match="cannot be reached") as caught:
        await provider_at(vault.uri).generate("ES256")
    assert "CANARY" not in str(caught.value)


async def test_a_server_that_does_not_prove_the_name_of_the_vault_gets_nothing(
    vault: Azure, provider_at: Callable[..., KeyProvider], tmp_path: Path
) -> None:
    trusted = vault.uri.replace(str(vault.ca_file), str(Authority(tmp_path, "other").file))
    other = vault.uri.replace(VAULT, "other.vault.azure.net")
    for uri in (trusted, other):
        with pytest.raises(ProviderError, match="cannot be reached: ClientConnectorCertificateError"):
            await provider_at(uri).generate("ES256")
    assert vault.asked == []


async def test_a_challenge_for_a_token_of_another_domain_is_not_answered(
    vault: Azure, provider_at: Callable[..., KeyProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.keyvault.keys._shared import http_challenge_cache

    http_challenge_cache.clear()
    monkeypatch.setattr(
        "keys.places.azure.CHALLENGE",
        'Bearer authorization="https://login.microsoftonline.com/t", resource="https://graph.microsoft.com"',
    )
    given = vault.tokens_given
    with pytest.raises(ProviderError, match="does not answer like a vault of that name"):
        await provider_at(vault.uri).generate("ES256")
    assert vault.tokens_given == given


def test_what_the_key_may_not_wrap_is_refused(vault: Azure) -> None:
    with pytest.raises(ProviderError, match="does not have what it was asked to wrap"):
        wrapped_kek(f"{vault.uri}&key=nowhere", bytes(32), LIMITS)


def test_nothing_of_a_vault_is_in_its_repr(vault: Azure) -> None:
    provider = provider_by_uri(vault.uri, LIMITS)
    assert CLIENT_SECRET not in repr(provider) + repr(vars(provider))
    assert AzureVault.__repr__ is object.__repr__
