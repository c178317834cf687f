"""What survives when the primary dies and a replica that has fallen behind takes over, by each setting."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from grpc_identity.v1 import identity_service_pb2 as pb

ROUNDS = int(os.environ.get("FAILOVER_ROUNDS", "3"))
SESSIONS = 6


@pytest.fixture
def start_on(way: Any, new_pair: Any, make_settings: Any, start_service: Any, wait_until: Any) -> Any:
    """A service whose store is a pair, with these settings."""

    async def start(**redis: Any) -> tuple[Any, Any]:
        pair = new_pair()
        await way.lead_to(pair.primary.port)
        await wait_until(pair.is_in_step)
        settings = make_settings(redis={"url": way.url, "timeout_ms": 1000, **redis})
        return pair, await start_service(settings)

    return start


async def begin(service: Any, subject: str) -> Any:
    request = pb.IssueTokensRequest(subject=subject, audience=["orders"])
    return (await service.identity.IssueTokens(request, metadata=service.login)).tokens


async def refresh(service: Any, token: str, key: str) -> Any:
    request = pb.RefreshRequest(refresh_token=token, idempotency_key=key)
    return (await service.identity.Refresh(request, metadata=service.login)).tokens


async def reachable(service: Any, wait_until: Any) -> None:
    """The pool has found its way to the store that is there now."""

    async def answers() -> bool:
        try:
            await begin(service, "probe")
        except Exception:
            return False
        return True

    await wait_until(answers)


async def test_without_durability_what_was_lost_is_healed_and_nobody_is_logged_out(
    start_on: Any, way: Any, wait_until: Any
) -> None:
    pair, service = await start_on()
    held = [await begin(service, f"person-{number}") for number in range(SESSIONS)]
    await wait_until(pair.is_in_step)
    pair.hold_back()
    for number in range(SESSIONS):  # each is some generations ahead of the replica
        for step in range(number):
            held[number] = await refresh(service, held[number].refresh_token, f"{number}-{step}")
    await way.lead_to(pair.lose_the_primary())
    await reachable(service, wait_until)
    for number, tokens in enumerate(held):
        later = await refresh(service, tokens.refresh_token, f"{number}-after")
        assert later.session_id == tokens.session_id
        await refresh(service, later.refresh_token, f"{number}-again")


@pytest.mark.timeout(3600)
async def test_a_revocation_acknowledged_under_replica_is_never_lost(
    start_on: Any, way: Any, wait_until: Any, refused: Any
) -> None:
    for _ in range(ROUNDS):
        pair, service = await start_on(revoke_durability="replica")
        held = [await begin(service, f"person-{number}") for number in range(SESSIONS)]
        await wait_until(pair.is_in_step)
        spent = held[2].refresh_token
        held[2] = await refresh(service, spent, "first")
        for request in (
            pb.RevokeRequest(session_id=held[0].session_id),
            pb.RevokeRequest(subject="person-1"),
        ):
            await service.identity.Revoke(request, metadata=service.login)
        # A theft is a revocation, too.
        request = pb.RefreshRequest(refresh_token=spent, idempotency_key="second")
        theft = await refused(service.identity.Refresh(request, metadata=service.login))
        assert theft.reason == "REFRESH_TOKEN_REUSED"
        pair.hold_back()
        for number in (3, 4, 5):
            held[number] = await refresh(service, held[number].refresh_token, f"{number}")
        await way.lead_to(pair.lose_the_primary())
        await reachable(service, wait_until)
        for number, tokens in enumerate(held):
            request = pb.RefreshRequest(refresh_token=tokens.refresh_token, idempotency_key="after")
            call = service.identity.Refresh(request, metadata=service.login)
            if number < 3:
                assert (await refused(call)).reason == "FAMILY_REVOKED", number
            else:
                assert (await call).tokens.session_id == tokens.session_id
        pair.end()


async def test_what_no_replica_has_is_not_acknowledged(start_on: Any, wait_until: Any, refused: Any) -> None:
    pair, service = await start_on(revoke_durability="replica", refresh_durability="replica")
    tokens = await begin(service, "alice")
    await wait_until(pair.is_in_step)
    pair.hold_back()
    request = pb.RefreshRequest(refresh_token=tokens.refresh_token, idempotency_key="same")
    refusal = await refused(service.identity.Refresh(request, metadata=service.login))
    assert (refusal.reason, refusal.retry_after_seconds) == ("STORE_UNAVAILABLE", 1.0)
    revoke = pb.RevokeRequest(session_id=tokens.session_id)
    os.kill(pair._pid(pair.replica), signal.SIGCONT)
    await wait_until(pair.is_in_step)
    # The same call again finds what was done, now that it is durable.
    again = await service.identity.Refresh(request, metadata=service.login)
    assert service.server.refresh_tokens.decode(again.tokens.refresh_token).generation == 1
    pair.hold_back()
    assert (
        await refused(service.identity.Revoke(revoke, metadata=service.login))
    ).reason == "STORE_UNAVAILABLE"


async def test_what_is_on_disk_outlives_the_primary(
    way: Any,
    new_valkey: Any,
    make_settings: Any,
    start_service: Any,
    tmp_path: Any,
    wait_until: Any,
    refused: Any,
) -> None:
    config = {"maxmemory-policy": "noeviction", "save": "", "appendonly": "yes", "appendfsync": "everysec"}
    store = new_valkey(config, data_dir=tmp_path / "aof")
    try:
        await way.lead_to(store.port)
        service = await start_service(
            make_settings(redis={"url": way.url, "timeout_ms": 5000, "revoke_durability": "disk"})
        )
        tokens = [await begin(service, f"person-{number}") for number in range(3)]
        await service.identity.Revoke(
            pb.RevokeRequest(session_id=tokens[0].session_id), metadata=service.login
        )
        os.kill(store._process.pid, signal.SIGKILL)
        await asyncio.to_thread(store._process.wait)
        other = new_valkey(config, data_dir=tmp_path / "aof")
    finally:
        store.terminate()
    try:
        await way.lead_to(other.port)
        await reachable(service, wait_until)
        request = pb.RefreshRequest(refresh_token=tokens[0].refresh_token, idempotency_key="after")
        refusal = await refused(service.identity.Refresh(request, metadata=service.login))
        assert refusal.reason == "FAMILY_REVOKED"
    finally:
        other.terminate()


@pytest.mark.parametrize(
    ("durability", "problem"), [("replica", "store_not_replicated"), ("disk", "store_not_on_disk")]
)
async def test_a_store_that_cannot_be_as_durable_as_asked_for_is_not_ready(
    make_settings: Any, start_service: Any, durability: str, problem: str
) -> None:
    service = await start_service(make_settings())
    from identity.store.redis.durability import Durability

    service.server.store._durability = Durability.named(durability)
    assert [found.name for found in await service.server.store.problems()] == [problem]
