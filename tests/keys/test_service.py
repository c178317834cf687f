"""The keys of running services: made once, shared, sealed, and moved on by whoever is first."""

from __future__ import annotations

import asyncio
import base64
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from identity.keys.file_store import FileKeyStore
from identity.keys.keyring import KeyState
from identity.keys.ports import KeyStoreError, NoActiveKeyError
from identity.keys.providers.local import LocalSigner
from identity.keys.schedule import SPREAD
from identity.keys.sealing import KeyEncryptionKey, SealError, create_kek_file, load_kek_file
from identity.keys.service import KeyService


async def test_the_first_start_makes_what_is_needed_and_the_next_finds_it(
    make: Callable[..., KeyService], recorded: Any
) -> None:
    first, second = make(), make()
    with pytest.raises(NoActiveKeyError):
        first.active_signer()
    assert [problem.name for problem in first.problems()] == ["no_signing_key"]
    await first.start()
    await second.start()
    assert first.problems() == []
    kid = first.active_signer().kid
    assert recorded.told == [("key.created", f"kid {kid}"), ("key.activated", f"kid {kid}")]
    assert second.active_signer().kid == kid
    assert second.published().version == first.published().version
    assert second.client_secret_pepper() == first.client_secret_pepper()
    assert second.refresh_token_secrets() == first.refresh_token_secrets()


async def test_services_that_race_agree_on_one_key(make: Callable[..., KeyService]) -> None:
    services = [make() for _ in range(8)]
    await asyncio.gather(*(service.start() for service in services))
    assert len({service.active_signer().kid for service in services}) == 1
    assert {service.keyring.revision for service in services} == {1}


async def test_a_rotation_reaches_every_service_and_old_tokens_still_verify(
    make: Callable[..., KeyService], clock: Any
) -> None:
    one, other = make(), make()
    await one.start()
    await other.start()
    old = one.active_signer().kid
    clock.moment += timedelta(days=89, hours=1)
    await one.tick()
    await other.tick()
    assert [key.state for key in other.keyring.keys] == [KeyState.ACTIVE, KeyState.PENDING]
    assert {key["kid"] for key in other.published().jwks} == {key.kid for key in one.keyring.keys}
    assert other.active_signer().kid == old
    assert one.active_signer().kid == old
    clock.moment += timedelta(hours=25) + SPREAD
    await asyncio.gather(one.tick(), other.tick())
    assert one.active_signer().kid == other.active_signer().kid != old
    assert old in {key["kid"] for key in one.published().jwks}
    clock.moment += timedelta(hours=2)
    await one.tick()
    assert old not in {key["kid"] for key in one.published().jwks}


async def test_what_is_published_may_be_kept_no_longer_than_until_the_next_key_signs_whenever_it_is_asked_for(
    make: Callable[..., KeyService], clock: Any
) -> None:
    service = make()
    await service.start()
    assert service.published().max_age_seconds == 3600
    clock.moment += timedelta(days=89)
    await service.tick()
    known, begins = service.published(), service.keyring.keys[-1].activates_at
    # As when the store is away: nothing is looked at any more, and the time goes on.
    for left_seconds, age_seconds in (
        (7200, 3600),
        (3600, 3600),
        (3599, 3599),
        (61, 61),
        (59, 60),
        (-600, 60),
    ):
        clock.moment = begins - timedelta(seconds=left_seconds)
        assert service.published().max_age_seconds == age_seconds
    # The same keys are the same to whoever remembers what was made of them.
    assert service.published() == known
    assert hash(service.published()) == hash(known)


@pytest.mark.parametrize(("algorithm", "kty"), [("ES256", "EC"), ("RS256", "RSA"), ("EdDSA", "OKP")])
async def test_signatures_verify_with_the_published_key_and_only_public_members_are_published(
    make: Callable[..., KeyService], algorithm: str, kty: str
) -> None:
    service = make(algorithm)
    await service.start()
    signer = service.active_signer()
    (jwk,) = service.published().jwks
    assert (jwk["kty"], jwk["alg"], jwk["kid"], signer.algorithm) == (kty, algorithm, signer.kid, algorithm)
    assert set(jwk) <= {"kty", "use", "alg", "kid", "crv", "x", "y", "n", "e"}
    signature = await signer.sign(b"input")
    public = jwt.PyJWK(dict(jwk))
    assert public.Algorithm.verify(b"input", public.key, signature)
    assert not public.Algorithm.verify(b"other", public.key, signature)
    if algorithm == "ES256":
        assert len(signature) == 64


async def test_no_private_material_is_in_the_file_and_nobody_else_may_read_it(
    make: Callable[..., KeyService], tmp_path: Path
) -> None:
    service = make()
    await service.start()
    signer = service.active_signer()
    assert isinstance(signer, LocalSigner)
    text = (tmp_path / "keyring.json").read_bytes()
    private = [
        signer.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        service.client_secret_pepper(),
        *service.refresh_token_secrets().by_id.values(),
    ]
    for value in private:
        for form in (value, base64.b64encode(value), base64.urlsafe_b64encode(value), value.hex().encode()):
            assert form not in text
        assert base64.b64encode(value).decode() not in repr(service) + repr(signer) + repr(service.keyring)
    assert stat.S_IMODE((tmp_path / "keyring.json").stat().st_mode) == 0o600


async def test_another_key_encryption_key_opens_nothing_and_says_so(make: Callable[..., KeyService]) -> None:
    await make().start()
    with pytest.raises(SealError, match="restore both from the same backup"):
        await make(kek=KeyEncryptionKey(bytes(32))).start()


async def test_a_private_half_is_destroyed_when_its_key_retires(
    make: Callable[..., KeyService], clock: Any, keyring_file: Any, kek: KeyEncryptionKey
) -> None:
    service = make()
    await service.start()
    old = service.active_signer().kid
    for wait in (timedelta(days=89), timedelta(hours=26)):
        clock.moment += wait
        await service.tick()
    document = keyring_file.read()
    assert [key["state"] for key in document["keys"]] == ["retired", "active"]
    sealed = base64.b64decode(document["keys"][0]["sealed_private_key"])
    assert kek.open(sealed, f"signing-key/{old}") == b""
    # It is still proved to be ours, by this process and by one that starts now.
    await service.tick()
    newcomer = make()
    await newcomer.start()
    assert old in {key["kid"] for key in newcomer.published().jwks}
    clock.moment += timedelta(hours=2)
    await service.tick()
    assert keyring_file.read()["keys"][0]["sealed_private_key"] == ""


async def test_a_keyring_that_vanishes_is_reported_and_not_begun_anew(
    make: Callable[..., KeyService], keyring_file: Any
) -> None:
    service = make()
    await service.start()
    before = (service.active_signer().kid, service.client_secret_pepper())
    keyring_file.remove()
    with pytest.raises(KeyStoreError, match="put it back"):
        await service.tick()
    assert not keyring_file.exists()
    assert (service.active_signer().kid, service.client_secret_pepper()) == before


async def test_a_keyring_that_went_back_is_not_followed_until_a_restart(
    make: Callable[..., KeyService], clock: Any, keyring_file: Any
) -> None:
    service = make()
    await service.start()
    backup = keyring_file.read_raw()
    clock.moment += timedelta(days=89)
    await service.tick()
    published = service.published()
    keyring_file.write_raw(backup)
    with pytest.raises(KeyStoreError, match="restored from a backup"):
        await service.tick()
    assert service.published() is published
    await make().start()


async def test_another_keyring_of_the_same_revision_is_not_taken_for_this_one(
    make: Callable[..., KeyService], keyring_file: Any
) -> None:
    service, stranger = make(), make()
    await service.start()
    keyring_file.remove()
    await stranger.start()
    assert stranger.keyring.revision == service.keyring.revision
    with pytest.raises(KeyStoreError, match="not the one"):
        await service.tick()


async def test_keeping_up_survives_a_fault_and_says_so_while_it_lasts(
    make: Callable[..., KeyService],
    keyring_file: Any,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Callable[..., Any],
) -> None:
    monkeypatch.setattr("identity.keys.service.FOLLOW_SECONDS", 0.01)
    monkeypatch.setattr("identity.keys.service.RETRY_SECONDS", 0.01)
    service = make()
    await service.start()
    whole = keyring_file.read_raw()
    running = asyncio.create_task(service.run())
    keyring_file.write_raw(b"{")
    await wait_until(lambda: [problem.name for problem in service.problems()] == ["keyring_unavailable"])
    assert service.active_signer()
    keyring_file.write_raw(whole)
    await wait_until(lambda: not service.problems())
    monkeypatch.setattr(FileKeyStore, "revision", lambda _: 1 / 0)
    await wait_until(lambda: [problem.name for problem in service.problems()] == ["keyring_unavailable"])
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_the_key_encryption_key_is_private_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    create_kek_file(path)
    first = path.read_text()
    create_kek_file(path)
    assert path.read_text() == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kek = load_kek_file(path)
    assert first.strip() not in repr(kek)
    path.chmod(0o644)
    with pytest.raises(SealError, match="chmod 600"):
        load_kek_file(path)
    for text in ("short", base64.b64encode(bytes(16)).decode(), "é"):
        with pytest.raises(SealError):
            KeyEncryptionKey.from_base64(text)
    path.chmod(0o600)
    path.write_bytes(bytes(range(224, 256)))
    with pytest.raises(SealError, match="base64"):
        load_kek_file(path)
    with pytest.raises(SealError, match=r"keys\.kek_file"):
        load_kek_file(tmp_path / "absent")


def test_all_who_start_at_once_find_the_same_key_encryption_key(tmp_path: Path) -> None:
    path = tmp_path / "kek"

    def start(_: int) -> bytes:
        create_kek_file(path)
        return load_kek_file(path).raw

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(start, range(32)))) == 1
    assert [item.name for item in tmp_path.iterdir()] == ["kek"]
