"""``Revoke`` may wait until every verifier has applied it, on however many servers, and names those that have not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from grpc_identity import Reason, TokenError, Verifier
from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.store.redis.verifiers import INSTANCE_DEAD_AFTER_MS

VERIFIERS = 20
# One verifier in a process of its own, which can be stopped as a machine that hangs is.
OUTSIDER = """
import json, sys
from grpc_identity import Issuer, Verifier
options = json.loads(sys.stdin.readline())
with Verifier(Issuer("https://id.example", audience="orders", client_id="orders", **options), name="outsider"):
    print("ready", flush=True)
    sys.stdin.readline()
"""


def is_revoked(verifier: Verifier, token: str) -> bool:
    try:
        verifier.verify(token)
    except TokenError as error:
        return error.reason is Reason.TOKEN_REVOKED
    return False


@pytest_asyncio.fixture
async def outsider(service: Any, new_verifier: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A verifier in another process, which follows the service."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OUTSIDER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    options = {"target": service.addresses.grpc_target, "client_secret": service.secrets["orders"]}
    process.stdin.write(json.dumps(options).encode() + b"\n")
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"ready\n"
    yield process
    if process.returncode is None:
        os.kill(process.pid, signal.SIGCONT)
        process.kill()
    await process.wait()


async def revoke(service: Any, *, wait_seconds: float = 20, **fields: Any) -> pb.RevokeResponse:
    wait = Duration()
    wait.FromMilliseconds(int(wait_seconds * 1000))
    request = pb.RevokeRequest(wait_until_applied=wait, **fields)
    answer: pb.RevokeResponse = await service.identity.Revoke(request, metadata=service.login)
    return answer


async def test_revoke_answers_when_twenty_verifiers_of_two_servers_refuse(
    service: Any, second_service: Any, new_session: Any, new_verifier: Any
) -> None:
    verifiers = [
        await new_verifier(at=(service, second_service)[number % 2], name=f"orders-{number}")
        for number in range(VERIFIERS)
    ]
    for by in (service, second_service):
        session = await new_session()
        assert not any(is_revoked(verifier, session.tokens.access_token) for verifier in verifiers)
        answer = await revoke(by, session_id=session.tokens.session_id)
        assert all(is_revoked(verifier, session.tokens.access_token) for verifier in verifiers)
        assert (answer.applied, answer.connected) == (VERIFIERS, VERIFIERS)
        assert not answer.pending_verifiers


async def test_a_verifier_that_hangs_is_named_and_the_others_are_counted(
    service: Any, second_service: Any, new_session: Any, new_verifier: Any, outsider: Any
) -> None:
    verifier = await new_verifier(at=second_service, name="orders-1")
    os.kill(outsider.pid, signal.SIGSTOP)
    session = await new_session()
    answer = await revoke(service, session_id=session.tokens.session_id, wait_seconds=1.5)
    assert is_revoked(verifier, session.tokens.access_token)
    assert (answer.applied, answer.connected) == (1, 2)
    assert list(answer.pending_verifiers) == ["orders/outsider"]
    os.kill(outsider.pid, signal.SIGCONT)
    again = await revoke(service, session_id=session.tokens.session_id)
    assert (again.applied, again.connected, list(again.pending_verifiers)) == (2, 2, [])


async def test_a_verifier_whose_connection_broke_still_counts_and_one_that_said_goodbye_does_not(
    service: Any, new_session: Any, new_verifier: Any, outsider: Any, wait_until: Any
) -> None:
    leaving = await new_verifier(name="leaving")
    await asyncio.to_thread(leaving.close)
    outsider.kill()
    await outsider.wait()
    session = await new_session()
    answer = await revoke(service, session_id=session.tokens.session_id, wait_seconds=0.5)
    assert (answer.applied, answer.connected) == (0, 1)
    assert list(answer.pending_verifiers) == ["orders/outsider"]


async def test_without_verifiers_there_is_nothing_to_wait_for(service: Any, new_session: Any) -> None:
    session = await new_session()
    answer = await revoke(service, session_id=session.tokens.session_id, wait_seconds=30)
    assert (answer.applied, answer.connected) == (0, 0)


async def test_verifiers_are_listed_with_what_they_hold(
    service: Any, second_service: Any, new_session: Any, new_verifier: Any, wait_until: Any
) -> None:
    await new_verifier(name="orders-1")
    await new_verifier(name="orders-2", at=second_service)
    session = await new_session()
    await revoke(service, session_id=session.tokens.session_id)
    jwks = await service.identity.GetJWKS(pb.GetJWKSRequest())
    kid = jwks.keys[0].kid

    async def listed() -> list[tuple[Any, ...]]:
        answer = await service.administration.ListVerifiers(
            admin_pb.ListVerifiersRequest(), metadata=service.admin
        )
        assert all(verifier.verifier_version for verifier in answer.verifiers)
        return [
            (v.client_id, v.verifier_id, v.behind, v.connected, list(v.held_kids)) for v in answer.verifiers
        ]

    assert await listed() == [
        ("orders", "orders-1", 0, True, [kid]),
        ("orders", "orders-2", 0, True, [kid]),
    ]


@pytest.mark.parametrize("target", ["subject", "client_id", "token"])
async def test_every_kind_of_revocation_can_be_waited_for(
    service: Any, new_session: Any, new_verifier: Any, target: str
) -> None:
    verifier = await new_verifier()
    session = await new_session("alice")
    named = {"token": session.tokens.access_token, "subject": "alice", "client_id": "login"}[target]
    answer = await revoke(service, **{target: named})
    assert (answer.applied, answer.connected) == (1, 1)
    assert is_revoked(verifier, session.tokens.access_token)


async def test_a_server_that_died_before_the_stores_clock_went_back_is_soon_not_waited_for(
    service: Any,
) -> None:
    store = service.server.store
    connection, instances = store.connection, store.keys.instances
    seconds, _ = await connection.command("TIME", key=instances)
    now_ms = int(seconds) * 1000
    await connection.command("HSET", instances, "died", now_ms + 3_600_000)
    # Whether it lives nobody can tell. It has the time that any has to say so again.
    assert "died" in await store.board.instances()
    assert int(await connection.command("HGET", instances, "died")) <= now_ms + 60_000
    await connection.command("HINCRBY", instances, "died", -INSTANCE_DEAD_AFTER_MS)
    assert "died" not in await store.board.instances()
