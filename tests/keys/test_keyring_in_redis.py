"""The keyring in a real Valkey: shared by services without a common disk, and put back where the store has lost it."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from identity.audit.event import Circumstances, Event, EventType, Outcome
from identity.keys import document
from identity.keys.administration import KeyAdministration
from identity.keys.custody import Custody
from identity.keys.keyring import LOCAL, Keyring, KeyState
from identity.keys.ports import KeyStoreAwayError, KeyStoreError
from identity.keys.providers.local import LocalKeys, LocalSigner
from identity.keys.schedule import Schedule
from identity.keys.service import KeyService
from identity.store.redis.address import StoreAddress
from identity.store.redis.keyring import RedisKeyStore
from identity.store.redis.keys import KeySpace
from identity.store.redis.opening import open_store
from identity.store.redis.topology import Bounds, StoreConnection

OPERATOR = Circumstances("admin", "RotateKeys")


@pytest_asyncio.fixture
async def connection(valkey: str, space: KeySpace) -> AsyncIterator[StoreConnection]:
    made, feed = open_store(StoreAddress.parse(valkey), Bounds(timeout_seconds=2, max_batch=8), space)
    yield made
    await feed.close()
    await made.close()


@pytest.fixture
def space() -> KeySpace:
    return KeySpace(f"t{secrets.token_hex(6)}", 4)


@pytest.fixture
def store(connection: StoreConnection, space: KeySpace) -> RedisKeyStore:
    return RedisKeyStore(connection, space, outbox_bound="1000")


@pytest.fixture
def make_on(store: RedisKeyStore, kek: Any, clock: Any) -> Callable[..., KeyService]:
    def build(algorithm: str = "ES256", schedule: Schedule | None = None) -> KeyService:
        custody = Custody(kek, {LOCAL: LocalKeys()}, clock, algorithm)
        return KeyService(store, custody, schedule or Schedule(), clock)

    return build


async def outbox(connection: StoreConnection, space: KeySpace) -> list[tuple[str, int]]:
    """Type and sequence number of what was recorded."""
    entries = await connection.command("XRANGE", space.buckets[0].outbox, "-", "+")
    rows = [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in entries]
    return [(row[b"type"].decode(), int(row[b"seq"])) for row in rows]


async def test_of_writers_that_race_one_writes_and_the_others_are_told(store: RedisKeyStore) -> None:
    assert await store.load() is None
    assert await store.revision() == 0
    for revision in range(1, 4):
        done = await asyncio.gather(*(store.compare_and_set(Keyring(revision)) for _ in range(8)))
        assert sorted(done) == [False] * 7 + [True]
        assert await store.revision() == revision
        assert await store.load() == Keyring(revision)
    assert not await store.compare_and_set(Keyring(3))
    assert not await store.compare_and_set(Keyring(5))


async def test_what_is_done_is_recorded_in_the_same_step_or_not_at_all(
    store: RedisKeyStore, connection: StoreConnection, space: KeySpace
) -> None:
    events = [
        Event(EventType.KEY_CREATED, Outcome.SUCCESS, Circumstances("", "", detail="kid a")),
        Event(EventType.KEY_ACTIVATED, Outcome.SUCCESS, Circumstances("", "", detail="kid a")),
    ]
    assert await store.compare_and_set(Keyring(1), events)
    assert not await store.compare_and_set(Keyring(1), events)
    assert await outbox(connection, space) == [("key.created", 1), ("key.activated", 2)]


async def test_services_that_start_at_once_agree_and_record_one_start(
    make_on: Callable[..., KeyService], connection: StoreConnection, space: KeySpace
) -> None:
    services = [make_on() for _ in range(6)]
    await asyncio.gather(*(service.start() for service in services))
    assert len({service.active_signer().kid for service in services}) == 1
    assert len({service.client_secret_pepper() for service in services}) == 1
    assert await outbox(connection, space) == [("key.created", 1), ("key.activated", 2)]


async def test_no_private_material_is_in_the_store(
    make_on: Callable[..., KeyService], connection: StoreConnection, space: KeySpace
) -> None:
    service = make_on()
    await service.start()
    signer = service.active_signer()
    assert isinstance(signer, LocalSigner)
    scalar = signer.private_key.private_numbers().private_value.to_bytes(32)  # type: ignore[union-attr]
    private = [
        scalar,
        signer.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        service.client_secret_pepper(),
        *service.refresh_token_secrets().by_id.values(),
    ]
    text = b"".join((await connection.command("HGETALL", space.keyring)).values())
    assert b"sealed_private_key" in text
    for value in private:
        for form in (value, base64.b64encode(value), base64.urlsafe_b64encode(value), value.hex().encode()):
            assert form not in text
    assert await connection.command("TTL", space.keyring) == -1


async def test_every_service_follows_a_switch_within_a_second_without_being_told(
    make_on: Callable[..., KeyService], clock: Any, wait_until: Callable[..., Any]
) -> None:
    services = [make_on() for _ in range(3)]
    for service in services:
        await service.start()
    old = services[0].active_signer().kid
    running = [asyncio.create_task(service.run()) for service in services]
    loop = asyncio.get_running_loop()
    try:
        clock.moment += timedelta(days=89)
        await wait_until(lambda: all(len(service.published().jwks) == 2 for service in services))
        clock.moment += timedelta(hours=26)
        await wait_until(lambda: any(service.active_signer().kid != old for service in services))
        first_switched_at = loop.time()
        await wait_until(lambda: all(service.active_signer().kid != old for service in services))
        assert loop.time() - first_switched_at < 1.0
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert len({service.active_signer().kid for service in services}) == 1
    assert len({service.keyring.revision for service in services}) == 1


async def test_a_keyring_that_the_store_has_lost_is_put_back_by_who_knows_it(
    make_on: Callable[..., KeyService], connection: StoreConnection, space: KeySpace, store: RedisKeyStore
) -> None:
    one, other = make_on(), make_on()
    await one.start()
    await other.start()
    before = (one.active_signer().kid, one.client_secret_pepper(), one.refresh_token_secrets())
    await connection.command("DEL", space.keyring)
    await asyncio.gather(one.tick(), other.tick())
    newcomer = make_on()
    await newcomer.start()
    for service in (one, other, newcomer):
        await service.tick()
        after = (
            service.active_signer().kid,
            service.client_secret_pepper(),
            service.refresh_token_secrets(),
        )
        assert after == before
    assert await store.revision() == 1


async def test_what_was_revoked_stays_so_when_a_failover_loses_it(
    make_on: Callable[..., KeyService], connection: StoreConnection, space: KeySpace
) -> None:
    one, other = make_on(), make_on()
    await one.start()
    await other.start()
    stolen = one.active_signer().kid
    lost = await connection.command("HGETALL", space.keyring)
    await KeyAdministration(one).revoke(stolen, OPERATOR)
    successor = one.active_signer().kid
    # What was written last is gone, and others have gone on from there.
    await connection.command("HSET", space.keyring, *(part for pair in lost.items() for part in pair))
    await KeyAdministration(other).rotate(at_once=False, idempotency_key="", circumstances=OPERATOR)
    assert other.active_signer().kid == stolen
    await one.tick()
    await other.tick()
    for service in (one, other):
        assert service.active_signer().kid == successor
        assert service.keyring.get(stolen).state is KeyState.REVOKED  # type: ignore[union-attr]
        assert stolen not in {key["kid"] for key in service.published().jwks}
    assert one.keyring == other.keyring
    assert sum(key.state is KeyState.PENDING for key in one.keyring.keys) == 1
    revision = one.keyring.revision
    await one.tick()
    await other.tick()
    assert one.keyring.revision == revision


async def test_a_store_that_is_away_is_not_a_fault_of_the_keyring(
    new_valkey: Callable[..., Any], space: KeySpace, kek: Any, clock: Any
) -> None:
    server = new_valkey({"save": ""})
    address = StoreAddress.parse(server.connection_url)
    connection, feed = open_store(address, Bounds(timeout_seconds=1, max_batch=8), space)
    store = RedisKeyStore(connection, space, outbox_bound="1000")
    service = KeyService(store, Custody(kek, {LOCAL: LocalKeys()}, clock, "ES256"), Schedule(), clock)
    await service.start()
    server.stop()
    with pytest.raises(KeyStoreAwayError, match=r"redis\.url"):
        await service.tick()
    with pytest.raises(KeyStoreAwayError):
        await store.revision()
    with pytest.raises(KeyStoreAwayError):
        await store.compare_and_set(Keyring(2))
    assert service.active_signer()
    assert service.problems() == []
    await feed.close()
    await connection.close()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"format": 2}', b"\xff"], ids=range(5))
async def test_a_damaged_keyring_is_an_error_and_never_replaced(
    make_on: Callable[..., KeyService], connection: StoreConnection, space: KeySpace, text: bytes
) -> None:
    await connection.command("HSET", space.keyring, "revision", 1, "document", text)
    with pytest.raises(KeyStoreError, match="identity keys import"):
        await make_on().start()
    assert await connection.command("HGET", space.keyring, "document") == text


def test_a_keyring_reads_as_it_was_written() -> None:
    assert document.from_text(document.to_text(Keyring(3))) == Keyring(3)
