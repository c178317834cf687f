"""What a client notices when its tokens, its roles or its session are changed at the identity service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from grpc_identity import SessionEnd, SessionEndedError, SessionTokens
from grpc_identity.v1 import identity_service_pb2 as pb

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


@pytest.fixture
def ended() -> list[SessionEndedError]:
    return []


@pytest_asyncio.fixture
async def tokens(
    service: Any, new_session: Any, proxy: Any, ended: list[SessionEndedError]
) -> AsyncIterator[SessionTokens]:
    session = await new_session("alice", roles=["clerk"])
    async with SessionTokens(
        proxy.target,
        client_id="login",
        client_secret=service.secrets["login"],
        tokens=session.tokens,
        on_session_ended=ended.append,
    ) as source:
        yield source


async def revoke(service: Any, **fields: Any) -> None:
    request = pb.RevokeRequest(wait_until_applied=Duration(seconds=10), **fields)
    answer = await service.identity.Revoke(request, metadata=service.login)
    assert answer.applied == answer.connected == 1


@pytest.mark.parametrize("kind", KINDS[:2])
async def test_changed_permissions_hold_at_once_and_the_person_notices_nothing(
    stack: Any, service: Any, tokens: SessionTokens, echo: Any, proxy: Any, kind: str, expected: Any
) -> None:
    interceptors = stack.interceptors(tokens, target=echo.target)
    assert await stack.call(echo.target, kind, interceptors) == expected(kind, "alice")
    await revoke(service, subject="alice", access_tokens_only=True)
    assert await stack.call(echo.target, kind, interceptors) == expected(kind, "alice")
    assert len(echo.authorizations) == 3, "the second call was refused once, and made again"
    assert len(proxy.requests) == 1


async def test_a_role_taken_away_and_a_role_given_are_in_force_with_the_next_call(
    service: Any, tokens: SessionTokens, echo: Any
) -> None:
    interceptors = tokens.aio_interceptors(target=echo.target)
    async with grpc.aio.insecure_channel(echo.target, interceptors=interceptors) as channel:
        roles = channel.unary_unary("/t.S/Roles")
        assert await roles(b"") == b"clerk"
        for changed in (["clerk", "manager"], ["manager"], []):
            new_roles = pb.Roles(roles=changed)
            await revoke(service, subject="alice", access_tokens_only=True, new_roles=new_roles)
            assert (await roles(b"")).decode() == ",".join(changed)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_end_of_the_session_is_an_event_and_the_call_says_unauthenticated(
    stack: Any,
    service: Any,
    tokens: SessionTokens,
    echo: Any,
    kind: str,
    ended: list[SessionEndedError],
    wait_until: Any,
) -> None:
    interceptors = stack.interceptors(tokens, target=echo.target)
    await stack.call(echo.target, "unary_unary", interceptors)
    await revoke(service, subject="alice")

    async def over() -> bool:
        # A refused stream of requests is noted after its end; the call after that finds the session over.
        with pytest.raises(grpc.RpcError) as refused:
            await stack.call(echo.target, kind, interceptors)
        code = refused.value.code()  # type: ignore[attr-defined]
        assert code in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INTERNAL}
        return bool(ended)

    await wait_until(over)
    assert [event.reason for event in ended] == [SessionEnd.FAMILY_REVOKED]
    with pytest.raises(grpc.RpcError) as last:
        await stack.call(echo.target, kind, interceptors)
    assert last.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
    assert isinstance(last.value.__cause__, SessionEndedError)


@pytest.mark.parametrize("kind", KINDS[:2])
async def test_where_no_other_token_is_to_be_had_the_refusal_itself_is_the_answer(
    stack: Any, service: Any, tokens: SessionTokens, echo: Any, kind: str
) -> None:
    interceptors = stack.interceptors(tokens, target=echo.target)
    await revoke(service, subject="alice")
    with pytest.raises(grpc.RpcError) as refused:
        await stack.call(echo.target, kind, interceptors)
    status = rpc_status.from_call(refused.value)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "TOKEN_REVOKED"
