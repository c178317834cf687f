"""Token sources against a real identity service, with a proxy between them that loses, delays and refuses answers."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import pytest_asyncio

from grpc_identity import (
    ClientCredentials,
    ClientSecret,
    MemoryStorage,
    SessionEnd,
    SessionEndedError,
    SessionTokens,
    StoredSession,
    TokenRefusedError,
    TokenUnavailableError,
)
from grpc_identity.clock import monotonic_clock, wall_clock
from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1.tokens_pb2 import TokenSet


class Travelling:
    """Clocks that can be moved ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return monotonic_clock() + self.ahead

    def wall(self) -> float:
        return wall_clock() + self.ahead


@pytest.fixture
def clocks() -> Travelling:
    return Travelling()


@pytest_asyncio.fixture
async def start(service: Any, proxy: Any, clocks: Travelling) -> AsyncIterator[Callable[..., SessionTokens]]:
    """Starts a token source for a session; with its refresh token alone, so that the first token needs a refresh."""
    sources: list[SessionTokens] = []

    def start(tokens: TokenSet | None, **options: Any) -> SessionTokens:
        settings: dict[str, Any] = {
            "client_id": "login",
            "client_secret": service.secrets["login"],
            "clock": clocks.wall,
            "monotonic": clocks.monotonic,
        }
        source = SessionTokens(proxy.target, tokens=tokens, **settings | options)
        sources.append(source)
        return source

    yield start
    for source in sources:
        await asyncio.to_thread(source.close)


def refresh_only(tokens: TokenSet) -> TokenSet:
    return TokenSet(refresh_token=tokens.refresh_token, session_id=tokens.session_id)


def keys_of(proxy: Any) -> list[str]:
    return [pb.RefreshRequest.FromString(request).idempotency_key for request in proxy.requests]


async def test_the_tokens_of_the_login_are_used_without_asking(
    start: Any, new_session: Any, proxy: Any
) -> None:
    session = await new_session()
    tokens = start(session.tokens)
    assert await tokens.token_async() == session.tokens.access_token
    assert await asyncio.to_thread(tokens.token) == session.tokens.access_token
    assert proxy.requests == []


async def test_a_hundred_concurrent_callers_of_both_stacks_make_one_refresh(
    start: Any, new_session: Any, proxy: Any
) -> None:
    tokens = start(refresh_only((await new_session()).tokens))
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(20) as pool:
        threads = [loop.run_in_executor(pool, tokens.token) for _ in range(20)]
        got = await asyncio.gather(*threads, *(tokens.token_async() for _ in range(80)))
    assert len(set(got)) == 1
    assert len(proxy.requests) == 1


async def test_several_event_loops_share_a_source(start: Any, new_session: Any, proxy: Any) -> None:
    tokens = start(refresh_only((await new_session()).tokens))

    async def some() -> list[str]:
        return await asyncio.gather(*(tokens.token_async() for _ in range(5)))

    got = await asyncio.gather(*(asyncio.to_thread(asyncio.run, some()) for _ in range(4)))
    assert len({token for group in got for token in group}) == 1
    assert len(proxy.requests) == 1


async def test_a_lost_answer_is_asked_for_again_with_the_same_key_and_loses_no_session(
    start: Any, new_session: Any, proxy: Any
) -> None:
    proxy.behaviours += ["lose", "lose"]
    tokens = start(refresh_only((await new_session()).tokens))
    first = await tokens.token_async()
    assert len(proxy.requests) == 3
    assert len(set(keys_of(proxy))) == 1
    assert "" not in keys_of(proxy)
    tokens.invalidate(first)
    assert await tokens.token_async() != first
    assert len(set(keys_of(proxy))) == 2, "a new refresh has a new key"


async def test_an_answer_after_the_deadline_of_the_question_loses_no_session(
    start: Any, new_session: Any, proxy: Any
) -> None:
    proxy.behaviours.append("late")
    tokens = start(refresh_only((await new_session()).tokens), timeout_seconds=0.3)
    first = await tokens.token_async()
    proxy.release.set()
    assert len(set(keys_of(proxy))) == 1
    assert proxy.answered >= 2
    tokens.invalidate(first)
    assert await tokens.token_async() != first


async def test_a_lost_answer_is_asked_for_again_when_nobody_waits_for_it_any_more(
    start: Any, new_session: Any, proxy: Any, wait_until: Any
) -> None:
    proxy.behaviours += ["lose", "lose", "lose", "away"]
    tokens = start(refresh_only((await new_session()).tokens))
    with pytest.raises(TokenUnavailableError):
        await tokens.token_async()
    await wait_until(lambda: proxy.answered == 4)
    assert len(set(keys_of(proxy))) == 1
    assert await tokens.token_async()
    assert len(proxy.requests) == 5


async def test_a_process_that_died_after_asking_goes_on_with_the_same_key(
    start: Any, new_session: Any, proxy: Any
) -> None:
    storage = MemoryStorage()
    proxy.behaviours += ["lose"] * 3
    died = start(refresh_only((await new_session()).tokens), storage=storage)
    with pytest.raises(TokenUnavailableError):
        await died.token_async()
    await asyncio.to_thread(died.close)
    assert await start(None, storage=storage).token_async()
    assert len(set(keys_of(proxy))) == 1


async def test_the_newest_refresh_token_is_stored_and_gone_when_the_session_is_over(
    start: Any, new_session: Any, service: Any
) -> None:
    storage = MemoryStorage()
    session = await new_session()
    tokens = start(refresh_only(session.tokens), storage=storage)
    first = await tokens.token_async()
    stored = storage.load()
    assert stored is not None
    assert stored.refresh_token != session.tokens.refresh_token
    await service.identity.Revoke(
        pb.RevokeRequest(session_id=session.tokens.session_id), metadata=service.login
    )
    tokens.invalidate(first)
    with pytest.raises(SessionEndedError):
        await tokens.token_async()
    assert storage.load() is None
    with pytest.raises(ValueError, match="no session"):
        start(None, storage=storage)


class Broken(MemoryStorage):
    def save(self, session: StoredSession) -> None:
        raise OSError(f"disk full while writing {session.refresh_token}")


async def test_a_storage_that_fails_costs_no_session_and_no_secret(
    start: Any, new_session: Any, caplog: pytest.LogCaptureFixture
) -> None:
    session = await new_session()
    tokens = start(refresh_only(session.tokens), storage=Broken())
    tokens.invalidate(await tokens.token_async())
    assert await tokens.token_async()
    assert "saving the session failed with OSError" in caplog.text
    assert "gidr_" not in caplog.text


# A disabled subject takes a claims source: tests/claims_source/test_clients.py.
@pytest.mark.parametrize("end", [end for end in SessionEnd if end is not SessionEnd.SUBJECT_DISABLED])
async def test_the_end_of_a_session_is_a_typed_error_and_one_event(
    start: Any, new_session: Any, service: Any, end: SessionEnd, wait_until: Any
) -> None:
    session = await new_session()
    given = refresh_only(session.tokens)
    match end:
        case SessionEnd.FAMILY_REVOKED:
            await service.identity.Revoke(
                pb.RevokeRequest(session_id=given.session_id), metadata=service.login
            )
        case SessionEnd.REFRESH_TOKEN_REUSED:
            await session.refresh(key="of somebody else")
        case SessionEnd.REFRESH_TOKEN_EXPIRED:
            service.travel(seconds=90 * 24 * 3600)
        case SessionEnd.REFRESH_TOKEN_INVALID:
            given.refresh_token = "gidr_made_up"
    events: list[SessionEndedError] = []
    tokens = start(given, on_session_ended=events.append)
    for _ in range(3):
        with pytest.raises(SessionEndedError) as ended:
            await tokens.token_async()
        assert ended.value.reason is end
        assert ended.value.session_id == session.tokens.session_id
    await wait_until(lambda: len(events) > 0)
    assert [event.reason for event in events] == [end]

    another = await new_session()
    tokens.begin(another.tokens)
    assert await tokens.token_async() == another.tokens.access_token


async def test_the_circuit_opens_lets_a_probe_through_and_closes(
    start: Any, new_session: Any, proxy: Any, clocks: Travelling, service: Any
) -> None:
    proxy.always = "away"
    tokens = ClientCredentials(
        proxy.target,
        authentication=ClientSecret("login", service.secrets["login"]),
        audience="orders",
        clock=clocks.wall,
        monotonic=clocks.monotonic,
        timeout_seconds=2,
    )
    async with tokens:
        with pytest.raises(TokenUnavailableError) as away:
            await tokens.token_async()
        asked = len(proxy.requests)
        assert asked == 3
        clocks.ahead += 60
        with pytest.raises(TokenUnavailableError) as away:
            await tokens.token_async()
        assert len(proxy.requests) == asked + 1, "half open: one probe"
        assert away.value.retry_after_seconds is None or away.value.retry_after_seconds > 0
        proxy.always = ""
        clocks.ahead += 60
        got = await asyncio.gather(*(tokens.token_async() for _ in range(20)))
        assert len(set(got)) == 1
        assert len(proxy.requests) == asked + 2


async def test_a_client_that_is_refused_is_told_the_reason(proxy: Any) -> None:
    async with ClientCredentials(
        proxy.target, client_id="login", client_secret="wrong", audience="orders"
    ) as tokens:
        with pytest.raises(TokenRefusedError) as refused:
            await tokens.token_async()
    assert refused.value.reason == "CLIENT_UNAUTHENTICATED"
    assert len(proxy.requests) == 1


async def test_a_caller_that_gives_up_does_not_cancel_the_refresh(
    start: Any, new_session: Any, proxy: Any, wait_until: Any
) -> None:
    proxy.behaviours.append("late")
    tokens = start(refresh_only((await new_session()).tokens))
    task = asyncio.create_task(tokens.token_async())
    await wait_until(lambda: proxy.answered == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TokenUnavailableError, match="within"):
        await tokens.token_async(timeout_seconds=0.01)
    with pytest.raises(TokenUnavailableError, match="within"):
        await asyncio.to_thread(tokens.token, timeout_seconds=0.01)
    proxy.release.set()
    assert await tokens.token_async()
    assert len(proxy.requests) == 1


async def test_a_token_is_renewed_in_the_background_while_the_old_one_is_handed_out(
    start: Any, new_session: Any, proxy: Any, clocks: Travelling, wait_until: Any
) -> None:
    session = await new_session()
    tokens = start(session.tokens)
    assert await tokens.token_async() == session.tokens.access_token
    proxy.behaviours.append("late")
    clocks.ahead += 500
    assert await tokens.token_async() == session.tokens.access_token
    await wait_until(lambda: proxy.answered == 1)
    assert await tokens.token_async() == session.tokens.access_token
    proxy.release.set()

    async def renewed() -> bool:
        return await tokens.token_async() != session.tokens.access_token

    await wait_until(renewed)
    assert len(proxy.requests) == 1


async def test_another_process_that_has_refreshed_the_stored_session_is_followed(
    start: Any, new_session: Any
) -> None:
    storage = MemoryStorage()
    session = await new_session()
    one = start(refresh_only(session.tokens), storage=storage)
    other = start(None, storage=storage)
    for _ in range(2):
        for tokens in (one, other):
            tokens.invalidate(await tokens.token_async())
            assert await tokens.token_async()


async def test_two_at_once_with_one_stored_session_get_the_same_successor(
    start: Any, new_session: Any, proxy: Any
) -> None:
    storage = MemoryStorage()
    session = await new_session()
    sources = [start(refresh_only(session.tokens), storage=storage)]
    sources += [start(None, storage=storage) for _ in range(3)]
    await asyncio.gather(*(source.token_async() for source in sources))
    sources[0].invalidate(await sources[0].token_async())
    assert await sources[0].token_async()


async def test_after_close_nothing_is_asked_and_those_who_wait_are_told(
    start: Any, new_session: Any, proxy: Any, wait_until: Any
) -> None:
    proxy.behaviours.append("late")
    tokens = start(refresh_only((await new_session()).tokens))
    waiting = asyncio.create_task(tokens.token_async())
    await wait_until(lambda: proxy.answered == 1)
    await asyncio.to_thread(tokens.close)
    with pytest.raises(TokenUnavailableError, match="closed"):
        await waiting


async def test_no_secret_is_in_a_repr_or_a_log(
    start: Any, new_session: Any, service: Any, proxy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "grpc_identity")
    session = await new_session()
    storage = MemoryStorage()
    proxy.behaviours += ["lose", "away"]
    tokens = start(session.tokens, storage=storage)
    tokens.invalidate(await tokens.token_async())
    newest = await tokens.token_async()
    held = tokens._state._held
    stored = storage.load()
    assert stored is not None
    shown = f"{tokens!r} {held!r} {stored!r} {tokens._grant._connection!r} {caplog.text}"
    for secret in (
        newest,
        session.tokens.access_token,
        stored.refresh_token,
        service.secrets["login"],
        str(stored.key_seed),
        "gidr_",
        "eyJ",
    ):
        assert secret not in shown


async def test_an_idle_source_has_no_thread(start: Any, new_session: Any, wait_until: Any) -> None:
    tokens = start(refresh_only((await new_session()).tokens))

    def threads() -> int:
        return sum(thread.name == f"tokens of {tokens._name}" for thread in threading.enumerate())

    assert threads() == 0
    await tokens.token_async()
    assert threads() == 1
    await asyncio.to_thread(tokens.close)
    await wait_until(lambda: threads() == 0)


def test_wrong_settings_are_refused_at_construction() -> None:
    with pytest.raises(ValueError, match="who asks"):
        ClientCredentials("id.example:443", audience="orders")
    with pytest.raises(ValueError, match="not both"):
        ClientCredentials(
            "id.example:443", client_secret="a", authentication=ClientSecret("a", "b"), audience="orders"
        )
    with pytest.raises(ValueError, match="no refresh token"):
        SessionTokens("id.example:443", client_id="a", client_secret="b", tokens=TokenSet(access_token="x"))
    with pytest.raises(ValueError, match="no session"):
        SessionTokens("id.example:443", client_id="a", client_secret="b")


FORKING = """
import os, sys, threading
from grpc_identity.channels import ChannelFactory
from grpc_identity.errors import TokenRefusedError
from grpc_identity.token_grants import ClientSecret, Connection, SessionGrant, AttemptFailedError
from grpc_identity.token_source import TokenSource
from grpc_identity.token_state import HeldToken
from grpc_identity.token_storage import MemoryStorage

class Counting:
    asked = 0
    def obtain(self):
        Counting.asked += 1
        return HeldToken(f"{os.getpid()}-{Counting.asked}", 600)

source = TokenSource(Counting(), name="forked")
session = SessionGrant(Connection(ChannelFactory("127.0.0.1:1"), ClientSecret("a", "b"), timeout_seconds=0.1), MemoryStorage(), wall=lambda: 0.0)
session.begin("gidr_x")
first = source.token()
with source._wake:
    # Another thread may hold the lock when the process is forked.
    child = os.fork()
if child == 0:
    good = source.token() == first
    source.invalidate(first)
    good = good and source.token(timeout_seconds=5) == f"{os.getpid()}-2"
    try:
        session.obtain()
    except AttemptFailedError as failed:
        good = good and isinstance(failed.error, TokenRefusedError) and "fork" in str(failed.error)
    session.adopt()
    try:
        session.obtain()
    except AttemptFailedError as failed:
        good = good and failed.answer_lost
    os._exit(0 if good else 1)
assert source.token() == first
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_a_forked_child_gets_tokens_of_its_own_and_leaves_the_session_to_its_parent() -> None:
    subprocess.run([sys.executable, "-c", FORKING], check=True, timeout=30)
