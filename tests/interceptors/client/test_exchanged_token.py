"""Calling on with a narrower token: whom it speaks for, how often it is asked for, and what is told where there is none."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

import grpc_identity.aio
import grpc_identity.sync
from grpc_identity import ExchangedToken, Issuer, Reason, TokenRefusedError, TokenUnavailableError, Verifier
from grpc_identity.errors import NoPrincipalError
from grpc_identity.principal import CURRENT_CALLER, Caller
from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb

POLICY = clients_pb2.ClientPolicy(
    grants=["GRANT_EXCHANGE"], subjects=["*"], audiences=["orders"], scopes=["orders.read"]
)
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


@pytest_asyncio.fixture
async def exchanged(service: Any, proxy: Any) -> AsyncIterator[ExchangedToken]:
    await service.new_client("front", POLICY)
    tokens = ExchangedToken(
        proxy.target,
        client_id="front",
        client_secret=service.secrets["front"],
        audience="orders",
        scopes=["orders.read"],
    )
    yield tokens
    tokens.close()


@pytest_asyncio.fixture
async def verifier(service: Any) -> AsyncIterator[Verifier]:
    issuer = Issuer("https://id.example", target=service.addresses.grpc_target, audience="orders")
    async with Verifier(issuer) as running:
        yield running


@pytest.fixture
def handling(verifier: Verifier) -> Any:
    """As if a call with this token was being handled."""

    def handle(access_token: str) -> None:
        CURRENT_CALLER.set(Caller(verifier.verify(access_token), access_token))

    return handle


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_call_goes_on_in_the_callers_name(
    stack: Any,
    exchanged: ExchangedToken,
    verifier: Verifier,
    handling: Any,
    new_session: Any,
    echo: Any,
    expected: Any,
    kind: str,
) -> None:
    session = await new_session("alice", roles=["clerk"])
    handling(session.tokens.access_token)
    module = {"aio": grpc_identity.aio, "sync": grpc_identity.sync}[stack.name]
    interceptors = module.client_interceptors(exchanged, target=echo.target)
    assert await stack.call(echo.target, kind, interceptors) == expected(kind, "alice")
    (authorization,) = echo.authorizations
    principal = verifier.verify(authorization.removeprefix("Bearer "))
    assert (principal.subject, principal.session_id) == ("alice", session.tokens.session_id)
    assert (principal.client_id, principal.actors) == ("front", ("front",))
    assert (principal.scopes, principal.roles) == ({"orders.read"}, {"clerk"})


async def test_a_hundred_calls_for_one_caller_ask_once_and_callers_are_never_mixed_up(
    exchanged: ExchangedToken, verifier: Verifier, handling: Any, new_session: Any, proxy: Any
) -> None:
    sessions = [await new_session(f"person-{number}") for number in range(5)]

    async def call_on(session: Any) -> tuple[str, str]:
        handling(session.tokens.access_token)
        token = await (
            exchanged.token_async() if os.urandom(1)[0] % 2 else asyncio.to_thread(exchanged.token)
        )
        return session.tokens.session_id, verifier.verify(token).session_id or ""

    answers = await asyncio.gather(*(call_on(session) for session in sessions for _ in range(20)))
    assert len(answers) == 100
    assert all(wanted == got for wanted, got in answers)
    assert len(proxy.requests) == 5
    assert {pb.ExchangeTokenRequest.FromString(request).subject_token for request in proxy.requests} == {
        session.tokens.access_token for session in sessions
    }


async def test_a_token_that_a_service_refused_is_asked_for_anew(
    service: Any, proxy: Any, handling: Any, new_session: Any
) -> None:
    await service.new_client("front", POLICY)
    now = 100.0
    tokens = ExchangedToken(
        proxy.target,
        client_id="front",
        client_secret=service.secrets["front"],
        audience="orders",
        scopes=["orders.read"],
        monotonic=lambda: now,
    )
    handling((await new_session("alice")).tokens.access_token)
    first = await tokens.token_async()
    tokens.invalidate(first)
    second = await tokens.token_async()
    assert second != first
    tokens.invalidate(second)
    # A service that refuses everything does not make each call ask.
    assert await tokens.token_async() == second
    now += 15.0
    tokens.invalidate(second)
    third = await tokens.token_async()
    assert third != second
    now += 600.0  # beyond its end
    assert await tokens.token_async() != third
    tokens.close()


async def test_what_the_service_refuses_is_told_to_its_caller_and_opens_no_circuit(
    exchanged: ExchangedToken, service: Any, handling: Any, new_session: Any
) -> None:
    ended = await new_session("alice")
    handling(ended.tokens.access_token)
    await service.identity.Revoke(
        pb.RevokeRequest(session_id=ended.tokens.session_id), metadata=service.login
    )
    for _ in range(5):
        with pytest.raises(TokenRefusedError) as refused:
            await exchanged.token_async()
        assert refused.value.reason == "SUBJECT_TOKEN_INVALID"
        assert ended.tokens.access_token not in str(refused.value)
    handling((await new_session("bob")).tokens.access_token)
    assert await exchanged.token_async()


async def test_a_service_that_is_away_is_left_alone_and_found_again(
    service: Any, proxy: Any, handling: Any, new_session: Any
) -> None:
    await service.new_client("front", POLICY)
    now = 100.0
    tokens = ExchangedToken(
        proxy.target,
        client_id="front",
        client_secret=service.secrets["front"],
        audience="orders",
        monotonic=lambda: now,
        scopes=["orders.read"],
    )
    handling((await new_session("alice")).tokens.access_token)
    proxy.always = "away"
    for _ in range(10):
        with pytest.raises(TokenUnavailableError):
            await tokens.token_async()
    assert len(proxy.requests) == 3
    proxy.always = ""
    now += 1.0
    assert await tokens.token_async()
    tokens.close()


async def test_a_caller_that_gives_up_gives_up_its_own_waiting(
    exchanged: ExchangedToken, handling: Any, new_session: Any, proxy: Any, wait_until: Any
) -> None:
    handling((await new_session("alice")).tokens.access_token)
    proxy.behaviours = ["late"]
    patient = asyncio.create_task(exchanged.token_async())
    await wait_until(lambda: proxy.answered == 1)
    with pytest.raises(TokenUnavailableError, match="within"):
        await exchanged.token_async(timeout_seconds=0.01)
    with pytest.raises(TokenUnavailableError, match="within"):
        await asyncio.to_thread(exchanged.token, timeout_seconds=0.01)
    proxy.release.set()
    assert await patient == await exchanged.token_async()
    assert len(proxy.requests) == 1


async def test_outside_of_a_handler_nothing_is_asked(exchanged: ExchangedToken, proxy: Any) -> None:
    with pytest.raises(NoPrincipalError):
        await exchanged.token_async()
    assert proxy.requests == []


async def test_a_refusal_of_the_next_service_is_answered_with_another_token_once(
    stack: Any,
    exchanged: ExchangedToken,
    handling: Any,
    new_session: Any,
    echo: Any,
) -> None:
    handling((await new_session("alice")).tokens.access_token)
    module = {"aio": grpc_identity.aio, "sync": grpc_identity.sync}[stack.name]
    interceptors = module.client_interceptors(exchanged, target=echo.target)
    echo.refusals = [Reason.TOKEN_EXPIRED]
    assert await stack.call(echo.target, "unary_unary", interceptors) == [b"alice:1"]
    assert len(echo.authorizations) == 2


def test_no_secret_is_in_its_repr() -> None:
    tokens = ExchangedToken("127.0.0.1:1", client_id="front", client_secret="s3cret", audience="orders")
    assert "s3cret" not in repr(tokens)
    with pytest.raises(ValueError, match="say who asks"):
        ExchangedToken("127.0.0.1:1", audience="orders")
