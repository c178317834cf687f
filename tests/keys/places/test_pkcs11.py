"""What is particular to PKCS #11."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from keys.places.softhsm import PIN, SoftHsm

from identity.keys.ports import ProviderError, SignerUnavailableError
from identity.keys.providers.pkcs11_uri import Pkcs11Uri, key_id_of, key_uri


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pkcs11:token=a?pin-value=1234", "must not hold the PIN"),
        ("pkcs11:token=a;colour=red", "'colour', which is not one of"),
        ("pkcs11:token=a;token=b", "'token' twice"),
        ("pkcs11:token=%ff", "not UTF-8"),
        ("pkcs11:token=a?pin-source=file:/x", "needs \\?module-path="),
        ("softhsm:token=a", "starts with pkcs11:"),
    ],
)
def test_a_uri_that_names_no_token_for_sure_is_refused(uri: str, message: str) -> None:
    with pytest.raises(ProviderError, match=message) as caught:
        _ = Pkcs11Uri.parse(uri).module_path
    assert "1234" not in str(caught.value)


@pytest.mark.parametrize("pin_source", ["", "&pin-source=|cat /x", "&pin-source=file:/nowhere/pin"])
def test_a_pin_that_cannot_be_read_from_a_file_is_named(pin_source: str) -> None:
    uri = Pkcs11Uri.parse(f"pkcs11:token=a?module-path=/m.so{pin_source}")
    with pytest.raises(ProviderError, match="pin-source"):
        uri.pin()


def test_a_key_is_named_by_its_id_whatever_bytes_that_has() -> None:
    for key_id in (bytes(range(16)), b";=%&?type=private", b"\xff" * 16):
        assert key_id_of(key_uri(key_id).encode()) == key_id


async def test_a_key_cannot_be_taken_out(softhsm: SoftHsm, provider_at: Any) -> None:
    from pkcs11 import Attribute, AttributeSensitive, ObjectClass

    from identity.keys.providers.pkcs11_token import TokenSessions

    made = await provider_at(softhsm.uri).generate("ES256")
    key_id = key_id_of(made.private_part)

    def look(session: Any) -> list[bool]:
        key = session.get_key(object_class=ObjectClass.PRIVATE_KEY, id=key_id)
        with pytest.raises(AttributeSensitive):
            _ = key[Attribute.VALUE]
        names = (Attribute.SENSITIVE, Attribute.EXTRACTABLE, Attribute.NEVER_EXTRACTABLE, Attribute.DERIVE)
        return [bool(key[name]) for name in names]

    sessions = TokenSessions(Pkcs11Uri.parse(softhsm.uri))
    assert await asyncio.to_thread(sessions.writing, look) == [True, False, True, False]
    sessions.close()


async def test_a_wrong_pin_is_tried_once_and_again_when_the_file_has_another(
    softhsm: SoftHsm, provider_at: Any, tmp_path: Path
) -> None:
    pin_file = tmp_path / "pin"
    pin_file.write_text("0000")
    uri = softhsm.uri.replace(str(softhsm.pin_file), str(pin_file))
    # In a process of its own: one that is logged in already is not asked for a PIN.
    program = f"""
import asyncio
from identity.keys.providers import cryptoki
from identity.keys.providers.by_uri import provider_by_uri
from identity.keys.providers.remote import RemoteLimits
from identity.keys.ports import ProviderError

tries = []
login = cryptoki.Module.login
cryptoki.Module.login = lambda *arguments: (tries.append(1), login(*arguments))[1]

async def main():
    keys = provider_by_uri({uri!r}, RemoteLimits())
    for _ in range(5):
        try:
            await keys.generate("ES256")
        except ProviderError as error:
            assert "refuses the PIN (PinIncorrect)" in str(error) and "0000" not in str(error)
        else:
            raise AssertionError
    assert len(tries) == 1
    open({str(pin_file)!r}, "w").write({PIN!r})
    made = await keys.generate("ES256")
    await keys.destroy(made.private_part)
    await keys.close()

asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("path", "message"), [("token=another", "is not in any slot"), ("serial=0", "is not in any slot")]
)
async def test_a_token_that_is_not_there_is_named(
    softhsm: SoftHsm, provider_at: Any, path: str, message: str
) -> None:
    with pytest.raises(ProviderError, match=message):
        await provider_at(softhsm.uri_with(path)).generate("ES256")


async def test_a_module_that_does_not_load_is_named(
    softhsm: SoftHsm, provider_at: Any, tmp_path: Path
) -> None:
    uri = f"pkcs11:token=a?module-path={tmp_path}/nowhere.so&pin-source=file:{softhsm.pin_file}"
    with pytest.raises(ProviderError, match=r"/nowhere\.so does not load"):
        await provider_at(uri).generate("ES256")


async def test_many_threads_sign_at_once_on_several_providers(softhsm: SoftHsm, provider_at: Any) -> None:
    providers = [provider_at(softhsm.uri, concurrency=8, timeout_seconds=30.0) for _ in range(2)]
    made = await providers[0].generate("ES256")
    signers = [await each.signer(made.public_jwk["kid"], "ES256", made.private_part) for each in providers]
    signatures = await asyncio.gather(*(signer.sign(b"a.b") for _ in range(500) for signer in signers))
    assert len(set(signatures)) == 1000
    # The end of one is not the end of the other's login.
    await providers[0].close()
    assert await signers[1].sign(b"a.b")


async def test_sessions_that_have_ended_are_opened_anew(softhsm: SoftHsm, provider_at: Any) -> None:
    from identity.keys.providers import pkcs11_token

    provider = provider_at(softhsm.uri)
    made = await provider.generate("ES256")
    signer = await provider.signer(made.public_jwk["kid"], "ES256", made.private_part)
    await asyncio.gather(*(signer.sign(b"a.b") for _ in range(50)))
    # As after an HSM was away: no session of this process is good any more.
    shared = pkcs11_token._modules[softhsm.module]
    await asyncio.to_thread(shared.module.begin_anew)
    try:
        assert await signer.sign(b"a.b")
    except SignerUnavailableError as error:
        pytest.fail(str(error))
