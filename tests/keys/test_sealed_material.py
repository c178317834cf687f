"""What is sealed opens whole, under its own name and its own key, or not at all, and the error says whose it is and no more."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from identity.audit.event import Circumstances
from identity.keys.administration import KeyAdministration
from identity.keys.authenticity import seal_name
from identity.keys.custody import Custody
from identity.keys.file_store import FileKeyStore
from identity.keys.keyring import LOCAL
from identity.keys.providers.local import LocalKeys
from identity.keys.schedule import Schedule
from identity.keys.sealing import KeyEncryptionKey, SealError
from identity.keys.service import KeyService

ALGORITHMS = ["ES256", "RS256", "EdDSA"]
REFUSAL = (
    "{} does not open: the key-encryption key is another one than it was sealed with, or the keyring was altered; "
    "restore both from the same backup"
)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_every_bit_of_a_sealed_key_counts(algorithm: str, kek: KeyEncryptionKey) -> None:
    made = await LocalKeys().generate(algorithm)
    name = seal_name(made.public_jwk["kid"])
    sealed = kek.seal(made.private_part, name)
    said = set()
    for place in range(8 * len(sealed)):
        altered = bytearray(sealed)
        altered[place // 8] ^= 1 << place % 8
        with pytest.raises(SealError) as caught:
            kek.open(bytes(altered), name)
        said.add(str(caught.value))
    assert said == {REFUSAL.format(name)}
    for length in (0, 1, 11, 12, 27, 28, len(sealed) - 1):
        with pytest.raises(SealError):
            kek.open(sealed[:length], name)
    assert kek.open(sealed, name) == made.private_part


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_another_key_and_another_name_open_nothing(algorithm: str, kek: KeyEncryptionKey) -> None:
    one, other = [await LocalKeys().generate(algorithm) for _ in range(2)]
    name, other_name = seal_name(one.public_jwk["kid"]), seal_name(other.public_jwk["kid"])
    sealed = kek.seal(one.private_part, name)
    for opener, wanted in ((KeyEncryptionKey(bytes(32)), name), (kek, other_name)):
        with pytest.raises(SealError) as caught:
            opener.open(sealed, wanted)
        assert str(caught.value) == REFUSAL.format(wanted)
        assert caught.value.__cause__ is None


def test_sealing_twice_gives_two_seals(kek: KeyEncryptionKey) -> None:
    assert kek.seal(b"value", "name") != kek.seal(b"value", "name")


def test_the_previous_key_opens_and_seals_nothing_more(kek: KeyEncryptionKey) -> None:
    old = KeyEncryptionKey(bytes(32))
    new = KeyEncryptionKey(kek.raw, previous=old)
    before, now = old.seal(b"value", "name"), new.seal(b"value", "name")
    assert new.open(before, "name") == new.open(now, "name") == kek.open(now, "name") == b"value"
    with pytest.raises(SealError):
        old.open(now, "name")
    assert kek.open(new.resealed(before, "name"), "name") == b"value"
    assert new.resealed(now, "name") is now
    assert base64.b64encode(old.raw).decode() not in repr(new)


async def test_a_service_refuses_a_flipped_bit_and_names_the_key_and_nothing_more(
    make: Callable[..., KeyService], keyring_file: Any
) -> None:
    service = make()
    await service.start()
    kid = service.active_signer().kid
    document = keyring_file.read()
    sealed = bytearray(base64.b64decode(document["keys"][0]["sealed_private_key"]))
    sealed[40] ^= 1
    document["keys"][0]["sealed_private_key"] = base64.b64encode(sealed).decode()
    keyring_file.write(document)
    with pytest.raises(SealError) as caught:
        await make().start()
    assert str(caught.value) == REFUSAL.format(f"signing-key/{kid}")


async def test_a_rotation_to_another_algorithm_publishes_both_and_needs_no_more(
    keyring_file: Any, kek: Any, clock: Any
) -> None:
    def service_with(algorithm: str) -> KeyService:
        custody = Custody(kek, {LOCAL: LocalKeys()}, clock, algorithm)
        return KeyService(FileKeyStore(keyring_file.path), custody, Schedule(), clock)

    before = service_with("RS256")
    await before.start()
    for algorithm in ("ES256", "EdDSA"):
        after = service_with(algorithm)
        await after.start()
        old = after.active_signer()
        await KeyAdministration(after).rotate(
            at_once=False, idempotency_key="", circumstances=Circumstances("", "test")
        )
        assert after.active_signer().kid == old.kid
        assert algorithm in {jwk["alg"] for jwk in after.published().jwks}
        clock.moment = after.keyring.keys[-1].activates_by
        await after.tick()
        assert after.active_signer().algorithm == algorithm
        assert old.kid in {jwk["kid"] for jwk in after.published().jwks}
        # An instance that still has the old setting signs with the new key all the same.
        await before.tick()
        assert before.active_signer().kid == after.active_signer().kid
    public = {"kty", "use", "alg", "kid", "crv", "x", "y", "n", "e"}
    assert all(set(jwk) <= public for jwk in after.published().jwks)
