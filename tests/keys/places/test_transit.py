"""What is particular to Transit."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from keys.places.openbao import OpenBao

from identity.keys.ports import ProviderError
from identity.keys.providers import transit


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("transit:http://bao.example/transit?token-file=/t", "needs an https URL"),
        ("transit:https://user:CANARY@bao.example/transit?token-file=/t", "credentials do not belong"),
        ("transit:https://bao.example?token-file=/t", "path where the engine is mounted"),
        ("transit:https://bao.example/transit", "needs the option token-file"),
        ("transit:https://bao.example/transit?token=CANARY", "no option 'token'"),
        ("transit:https://bao.example/transit?token-file=/t&ca-file=/nowhere", "cannot read ca-file"),
    ],
)
async def test_a_uri_that_is_of_no_use_is_refused(uri: str, message: str, provider_at: Any) -> None:
    with pytest.raises(ProviderError, match=message) as caught:
        provider_at(uri)
    assert "CANARY" not in str(caught.value)


async def signer_at(provider: Any) -> Any:
    made = await provider.generate("ES256")
    return await provider.signer(made.public_jwk["kid"], "ES256", made.private_part)


def own_token(openbao: OpenBao, folder: Path, **fields: Any) -> tuple[str, Path]:
    """A provider's URI with a token of its own, and where that is."""
    file = folder / "own-token"
    file.write_text(openbao.new_token(**fields))
    return openbao.uri.replace(str(openbao.token_file), str(file)), file


async def test_a_key_keeps_its_version_when_somebody_rotates_it_by_hand(
    openbao: OpenBao, provider_at: Any
) -> None:
    provider = provider_at(openbao.uri)
    made = await provider.generate("ES256")
    reference = json.loads(made.private_part)
    assert reference["version"] == 1
    await asyncio.to_thread(openbao.call, "POST", f"transit/keys/{reference['key']}/rotate")
    signer = await provider.signer(made.public_jwk["kid"], "ES256", made.private_part)
    from keys.places.test_every_place import SIGNING_INPUT, verifies

    assert verifies(made.public_jwk, await signer.sign(SIGNING_INPUT))


async def test_the_token_is_renewed_before_it_ends(
    openbao: OpenBao, provider_at: Any, tmp_path: Path, wait_until: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(transit, "TRY_AGAIN_SECONDS", 0.1)
    uri, file = own_token(openbao, tmp_path, period="4s")
    token = file.read_text()

    def time_left() -> float:
        looked = openbao.call("POST", "auth/token/lookup", {"token": token})
        left: float = looked["data"]["ttl"]
        return left

    signer = await signer_at(provider_at(uri))
    came_down = False

    async def went_up_again() -> bool:
        nonlocal came_down
        left = await asyncio.to_thread(time_left)
        came_down = came_down or left <= 2
        return came_down and left >= 3

    await wait_until(went_up_again)
    assert await signer.sign(b"a.b")


async def test_a_token_that_was_replaced_in_its_file_is_taken_when_the_old_one_is_refused(
    openbao: OpenBao, provider_at: Any, tmp_path: Path
) -> None:
    uri, file = own_token(openbao, tmp_path, period="1h")
    signer = await signer_at(provider_at(uri))
    old = file.read_text()
    file.write_text(openbao.new_token(period="1h"))
    await asyncio.to_thread(openbao.call, "POST", "auth/token/revoke", {"token": old})
    assert await signer.sign(b"a.b")


async def test_a_token_that_may_not_is_said_without_showing_it(
    openbao: OpenBao, provider_at: Any, tmp_path: Path, caplog: Any
) -> None:
    uri, file = own_token(openbao, tmp_path, policies=["default"])
    with pytest.raises(ProviderError, match="its policy lacks this path") as caught:
        await provider_at(uri).generate("ES256")
    assert file.read_text() not in f"{caught.value!r}{caplog.text}"


async def test_a_namespace_has_keys_of_its_own(openbao: OpenBao, provider_at: Any, tmp_path: Path) -> None:
    def set_up() -> None:
        openbao.call("POST", "sys/namespaces/team", {})
        openbao.call("POST", "team/sys/mounts/signing", {"type": "transit"})

    await asyncio.to_thread(set_up)
    file = tmp_path / "root"
    file.write_text(openbao.root_token)
    provider = provider_at(f"transit:{openbao.address}/signing?token-file={file}&namespace=team")
    assert await (await signer_at(provider)).sign(b"a.b")
    names = await asyncio.to_thread(openbao.call, "LIST", "team/signing/keys")
    assert len(names["data"]["keys"]) == 1
