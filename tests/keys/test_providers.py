"""What the service does with a provider that keeps its keys elsewhere, and is away at times."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from identity.errors import IdentityError, Reason
from identity.keys.custody import Custody
from identity.keys.file_store import FileKeyStore
from identity.keys.keyring import KeyState
from identity.keys.ports import NewKey, NoActiveKeyError, ProviderError, Signer, SignerUnavailableError
from identity.keys.providers.local import LocalKeys
from identity.keys.schedule import Schedule
from identity.keys.sealing import SealError
from identity.keys.service import KeyService
from identity.sessions.minting import AccessTokenMint, Recording
from identity.tokens.access_token import AccessTokenAssembler


class Vault:
    """Keeps private keys under names, as an HSM does; nothing but a name leaves it."""

    def __init__(self) -> None:
        self.keys: dict[bytes, bytes] = {}
        self.is_away = False

    async def generate(self, algorithm: str) -> NewKey:
        self._reach()
        made = await LocalKeys().generate(algorithm)
        name = f"key {len(self.keys)}".encode()
        self.keys[name] = made.private_part
        return NewKey(made.public_jwk, name)

    async def signer(self, kid: str, algorithm: str, private_part: bytes) -> Signer:
        self._reach()
        return await LocalKeys().signer(kid, algorithm, self.keys[private_part])

    async def destroy(self, private_part: bytes) -> None:
        self._reach()
        self.keys.pop(private_part, None)

    async def close(self) -> None: ...

    def _reach(self) -> None:
        if self.is_away:
            raise ProviderError("the vault is away; start it")


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture
def make_with_vault(keyring_file: Any, kek: Any, clock: Any, vault: Vault) -> Callable[[], KeyService]:
    def build() -> KeyService:
        custody = Custody(kek, {"vault": vault, "local": LocalKeys()}, clock, "ES256", "vault")
        return KeyService(FileKeyStore(keyring_file.path), custody, Schedule(), clock)

    return build


async def test_a_key_elsewhere_signs_and_is_destroyed_there_when_it_is_removed(
    make_with_vault: Callable[[], KeyService], clock: Any, keyring_file: Any, vault: Vault
) -> None:
    service = make_with_vault()
    await service.start()
    old = service.active_signer().kid
    for wait in (timedelta(days=89), timedelta(hours=26)):
        clock.moment += wait
        await service.tick()
    # Who is late to change may still sign with it.
    assert len(vault.keys) == 2
    clock.moment += timedelta(hours=2)
    vault.is_away = True
    await service.tick()
    assert service.keyring.keys[0].state is KeyState.REMOVED
    assert len(vault.keys) == 2
    vault.is_away = False
    await service.tick()
    assert list(vault.keys) == [b"key 1"]
    first = keyring_file.read()["keys"][0]
    assert (first["kid"], first["provider"], first["sealed_private_key"]) == (old, "vault", "")


async def test_a_reference_that_somebody_put_in_without_the_key_encryption_key_is_refused(
    make_with_vault: Callable[[], KeyService], keyring_file: Any
) -> None:
    await make_with_vault().start()
    document = keyring_file.read()
    document["keys"][0]["sealed_private_key"] = base64.b64encode(b"key 0").decode()
    keyring_file.write(document)
    with pytest.raises(SealError, match="signing-key"):
        await make_with_vault().start()


async def test_while_the_successors_provider_is_away_nothing_signs_and_all_is_published(
    make_with_vault: Callable[[], KeyService], clock: Any, vault: Vault
) -> None:
    service = make_with_vault()
    await service.start()
    clock.moment += timedelta(days=89)
    await service.tick()
    clock.moment += timedelta(hours=26)
    vault.is_away = True
    with pytest.raises(ProviderError, match="start it"):
        await service.tick()
    with pytest.raises(NoActiveKeyError):
        service.active_signer()
    assert len(service.published().jwks) == 2
    vault.is_away = False
    await service.tick()
    assert service.keyring.active is not None
    assert service.active_signer().kid == service.keyring.active.kid


async def test_a_provider_that_is_away_when_a_successor_is_due_is_reported_and_stops_nothing(
    make_with_vault: Callable[[], KeyService], clock: Any, vault: Vault
) -> None:
    service = make_with_vault()
    await service.start()
    kid = service.active_signer().kid
    clock.moment += timedelta(days=89)
    vault.is_away = True
    await service.tick()
    assert service.active_signer().kid == kid
    assert [problem.message for problem in service.problems()] == ["the vault is away; start it"]
    vault.is_away = False
    await service.tick()
    assert [key.state for key in service.keyring.keys] == [KeyState.ACTIVE, KeyState.PENDING]


async def test_processes_that_race_for_one_provider_leave_no_key_behind(
    make_with_vault: Callable[[], KeyService], vault: Vault
) -> None:
    await asyncio.gather(*(make_with_vault().start() for _ in range(5)))
    assert len(vault.keys) == 1


async def test_a_provider_that_is_not_configured_any_more_is_named(
    make_with_vault: Callable[[], KeyService], make: Callable[..., KeyService]
) -> None:
    await make_with_vault().start()
    with pytest.raises(ProviderError, match="'vault', which is not configured"):
        await make().start()


async def test_a_signature_that_cannot_be_had_is_a_refusal_that_says_when_to_come_back() -> None:
    class Away:
        kid, algorithm = "kid", "ES256"

        def check(self) -> None:
            pass

        async def sign(self, signing_input: bytes) -> bytes:
            raise SignerUnavailableError

    mint = AccessTokenMint(AccessTokenAssembler("https://id.example"), Away)
    with pytest.raises(IdentityError) as caught:
        await mint.mint(
            mint.signer(),
            Recording(0, 1, bytes(10), 1_700_000_000_000),
            session_claims='"sub":"alice"',
            audience=["orders"],
            scopes=["orders.read"],
            ttl_seconds=600,
            session=None,
        )
    assert (caught.value.reason, caught.value.retry_after_seconds) == (Reason.SIGNER_UNAVAILABLE, 1.0)
