"""What the service does with a provider that keeps its keys elsewhere, and is away at times."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from identity.audit.event import Circumstances
from identity.errors import IdentityError, Reason
from identity.keys.administration import KeyAdministration
from identity.keys.custody import Custody
from identity.keys.file_store import FileKeyStore
from identity.keys.keyring import KeyRecord, KeyState
from identity.keys.ports import NewKey, NoActiveKeyError, ProviderError, Signer, SignerUnavailableError
from identity.keys.providers.local import LocalKeys
from identity.keys.rehearsal import TRY_AGAIN, TRY_SOON
from identity.keys.schedule import SPREAD, Schedule
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
        if private_part not in self.keys:
            raise ProviderError("the vault has no such key")
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


async def with_a_successor(service: KeyService, clock: Any) -> tuple[str, KeyRecord]:
    """The key that signs, and the one that is to take over in a day."""
    await service.start()
    clock.moment += timedelta(days=89)
    await service.tick()
    assert [key.state for key in service.keyring.keys] == [KeyState.ACTIVE, KeyState.PENDING]
    return service.active_signer().kid, service.keyring.keys[1]


def impaired(service: KeyService) -> list[str]:
    """What is said of keys that cannot be used; nothing is blocked by it."""
    found = [problem for problem in service.problems() if problem.name == "pending_key_unusable"]
    assert not any(problem.blocks for problem in found)
    return [problem.message for problem in found]


async def test_a_successor_that_cannot_be_opened_is_noticed_a_day_ahead_and_said_once(
    make_with_vault: Callable[[], KeyService], clock: Any, vault: Vault, caplog: Any
) -> None:
    caplog.set_level(logging.INFO, "identity.keys.rehearsal")
    service = make_with_vault()
    _, successor = await with_a_successor(service, clock)
    await service.rehearse()
    assert (impaired(service), caplog.messages) == ([], [])
    lost = vault.keys.pop(b"key 1")
    clock.moment += TRY_AGAIN
    await service.rehearse()
    (said,) = impaired(service)
    assert caplog.messages == [said]
    assert successor.kid in said
    assert "the vault has no such key" in said
    assert f"identity keys revoke {successor.kid}" in said
    assert clock.moment < successor.activates_at - timedelta(hours=22)
    for _ in range(3):
        clock.moment += TRY_SOON
        await service.rehearse()
    assert len(caplog.messages) == 1
    vault.keys[b"key 1"] = lost
    clock.moment += TRY_SOON
    await service.rehearse()
    assert impaired(service) == []
    assert caplog.messages[1:] == [f"signing key {successor.kid} can sign when its time comes"]


async def test_a_successor_that_signs_with_another_key_than_is_published_is_noticed(
    make_with_vault: Callable[[], KeyService], clock: Any, vault: Vault
) -> None:
    service = make_with_vault()
    old, successor = await with_a_successor(service, clock)
    vault.keys[b"key 1"] = vault.keys[b"key 0"]
    await service.rehearse()
    (said,) = impaired(service)
    assert "does not verify" in said
    clock.moment = successor.activates_by
    await service.tick()
    assert service.active_signer().kid == old


async def test_while_the_successors_provider_is_away_the_present_key_signs_on_and_the_switch_is_made_up_for(
    make_with_vault: Callable[[], KeyService], clock: Any, vault: Vault
) -> None:
    service = make_with_vault()
    old, successor = await with_a_successor(service, clock)
    await service.rehearse()
    vault.is_away = True
    # Tried anew at the switch, though it could be used when it was last looked at.
    for moment in (successor.activates_by, successor.activates_by + SPREAD, successor.retires_at):
        clock.moment = moment
        await service.tick()
        assert service.active_signer().kid == old
        assert [key.state for key in service.keyring.keys] == [KeyState.ACTIVE, KeyState.PENDING]
        assert len(service.published().jwks) == 2
    assert len(impaired(service)) == 1
    vault.is_away = False
    clock.moment += TRY_SOON
    await service.tick()
    assert service.active_signer().kid == successor.kid
    await service.rehearse()
    assert service.problems() == []
    assert old in {jwk["kid"] for jwk in service.published().jwks}


async def test_a_service_that_starts_when_a_switch_is_overdue_tries_the_successor_first(
    make_with_vault: Callable[[], KeyService], clock: Any, vault: Vault
) -> None:
    old, successor = await with_a_successor(make_with_vault(), clock)
    vault.keys.pop(b"key 1")
    clock.moment = successor.activates_by
    newcomer = make_with_vault()
    await newcomer.start()
    assert newcomer.active_signer().kid == old
    assert len(impaired(newcomer)) == 1


async def test_a_successor_that_is_lost_is_given_up_after_its_deadline_for_one_that_is_published_as_long_ahead(
    make_with_vault: Callable[[], KeyService], clock: Any, vault: Vault
) -> None:
    service = make_with_vault()
    old, lost = await with_a_successor(service, clock)
    vault.keys.pop(b"key 1")
    clock.moment = lost.activates_by + SPREAD - TRY_SOON
    await service.tick()
    assert [key.state for key in service.keyring.keys] == [KeyState.ACTIVE, KeyState.PENDING]
    clock.moment += TRY_SOON
    await service.tick()
    assert [key.state for key in service.keyring.keys] == [
        KeyState.ACTIVE,
        KeyState.REMOVED,
        KeyState.PENDING,
    ]
    new = service.keyring.keys[-1]
    assert new.activates_at == clock.moment + service.schedule.publish_ahead + SPREAD
    # It signs beyond its time: better than none.
    assert service.active_signer().kid == old
    assert clock.moment > service.keyring.keys[0].retires_at
    clock.moment = new.activates_by
    await service.tick()
    assert service.active_signer().kid == new.kid
    assert [jwk["kid"] for jwk in service.published().jwks] == [old, new.kid]


async def test_what_was_opened_beforehand_signs_at_the_switch_without_asking_for_it_again(
    make_with_vault: Callable[[], KeyService], clock: Any, vault: Vault
) -> None:
    service, other = make_with_vault(), make_with_vault()
    _, successor = await with_a_successor(service, clock)
    await other.start()
    for each in (service, other):
        await each.rehearse()
    clock.moment = successor.activates_by
    await service.tick()
    # Away in the very moment in which the other has to change.
    vault.is_away = True
    await other.tick()
    assert other.active_signer().kid == service.active_signer().kid == successor.kid


async def test_when_a_key_is_revoked_and_its_successor_is_lost_another_is_made_and_signs_at_once(
    make_with_vault: Callable[[], KeyService], clock: Any, vault: Vault
) -> None:
    service = make_with_vault()
    stolen, lost = await with_a_successor(service, clock)
    vault.keys.pop(b"key 1")
    active = await KeyAdministration(service).revoke(stolen, Circumstances("", "test"))
    assert active.kid not in {stolen, lost.kid}
    assert service.active_signer().kid == active.kid
    assert [jwk["kid"] for jwk in service.published().jwks] == [active.kid]


async def test_when_a_key_is_revoked_while_its_place_is_away_the_successor_takes_over_and_signs_later(
    make_with_vault: Callable[[], KeyService], clock: Any, vault: Vault
) -> None:
    service = make_with_vault()
    stolen, successor = await with_a_successor(service, clock)
    vault.is_away = True
    with pytest.raises(IdentityError) as caught:
        await KeyAdministration(service).revoke(stolen, Circumstances("", "test"))
    assert caught.value.reason is Reason.SIGNER_UNAVAILABLE
    assert [jwk["kid"] for jwk in service.published().jwks] == [successor.kid]
    with pytest.raises(NoActiveKeyError):
        service.active_signer()
    vault.is_away = False
    await service.tick()
    assert service.active_signer().kid == successor.kid


async def test_a_key_is_revoked_even_while_no_other_can_be_made(
    make_with_vault: Callable[[], KeyService], vault: Vault
) -> None:
    service = make_with_vault()
    await service.start()
    stolen = service.active_signer().kid
    vault.is_away = True
    for _ in range(2):
        with pytest.raises(IdentityError) as caught:
            await KeyAdministration(service).revoke(stolen, Circumstances("", "test"))
        assert caught.value.reason is Reason.SIGNER_UNAVAILABLE
    newcomer = make_with_vault()
    await newcomer.start()
    for each in (service, newcomer):
        assert each.published().jwks == ()
        assert [problem.name for problem in each.problems()] == ["no_signing_key", "keyring_unavailable"]
        await each.tick()
    vault.is_away = False
    await service.tick()
    await newcomer.tick()
    assert service.active_signer().kid == newcomer.active_signer().kid != stolen
    assert service.problems() == newcomer.problems() == []


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

        async def probe(self) -> bytes:
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
