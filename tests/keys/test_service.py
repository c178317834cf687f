"""The keys of running services: made once, shared, sealed, and moved on by whoever is first."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from identity.keys.file_store import FileKeyStore
from identity.keys.keyring import KeyState
from identity.keys.ports import KeyStoreError, NoActiveKeyError
from identity.keys.schedule import Schedule
from identity.keys.sealing import KeyEncryptionKey, SealError, create_kek_file, load_kek_file
from identity.keys.service import KeyService
from identity.keys.signers.local import LocalSigner

KEK = KeyEncryptionKey(bytes(range(32)))


class ManualClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make(tmp_path: Path, clock: ManualClock) -> Callable[..., KeyService]:
    """Services that share one keyring file."""

    def build(algorithm: str = "ES256", kek: KeyEncryptionKey = KEK) -> KeyService:
        return KeyService(FileKeyStore(tmp_path / "keyring.json"), kek, Schedule(), clock, algorithm)

    return build


async def test_the_first_start_makes_what_is_needed_and_the_next_finds_it(
    make: Callable[..., KeyService],
) -> None:
    first, second = make(), make()
    with pytest.raises(NoActiveKeyError):
        first.active_signer()
    assert [problem.name for problem in first.problems()] == ["no_signing_key"]
    told: list[tuple[str, str]] = []
    first.on_change = lambda kid, state: told.append((kid, state))
    await first.start()
    await second.start()
    assert first.problems() == []
    kid = first.active_signer().kid
    assert told == [(kid, "created"), (kid, "activated")]
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
    make: Callable[..., KeyService], clock: ManualClock
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
    clock.moment += timedelta(hours=24)
    await asyncio.gather(one.tick(), other.tick())
    assert one.active_signer().kid == other.active_signer().kid != old
    assert old in {key["kid"] for key in one.published().jwks}
    clock.moment += timedelta(hours=2)
    await one.tick()
    assert old not in {key["kid"] for key in one.published().jwks}


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


async def test_sealed_values_that_were_swapped_or_altered_do_not_open(
    make: Callable[..., KeyService], tmp_path: Path
) -> None:
    await make().start()
    path = tmp_path / "keyring.json"
    document = json.loads(path.read_text())
    one, two = document["secrets"]
    one["sealed"], two["sealed"] = two["sealed"], one["sealed"]
    path.write_text(json.dumps(document))
    with pytest.raises(SealError):
        await make().start()


def test_a_damaged_keyring_is_an_error_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    for text in ("", "{", "[]", '{"format": 2}', '{"format": 1, "revision": 1, "keys": [{}], "secrets": []}'):
        path.write_text(text)
        with pytest.raises(KeyStoreError, match="restore it from a backup"):
            FileKeyStore(path).load()
        assert path.read_text() == text


async def test_a_writer_that_comes_second_is_told(make: Callable[..., KeyService], tmp_path: Path) -> None:
    service = make()
    await service.start()
    store = FileKeyStore(tmp_path / "keyring.json")
    keyring = store.load()
    assert keyring is not None
    assert store.compare_and_set(keyring.next())
    assert not store.compare_and_set(keyring.next())


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
