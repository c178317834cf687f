"""What those who hold the session notice: a role that arrives, an outage that passes, an end that is final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from claims_source.source import active, disabled

from grpc_identity import SessionEnd, SessionEndedError, SessionTokens
from grpc_identity.v1.tokens_pb2 import TokenSet


@pytest_asyncio.fixture
async def tokens_of(service: Any) -> AsyncIterator[Callable[..., SessionTokens]]:
    """A token source for a session, which has to refresh at once."""
    sources: list[SessionTokens] = []

    def start(session: Any, **options: Any) -> SessionTokens:
        given = TokenSet(refresh_token=session.tokens.refresh_token, session_id=session.tokens.session_id)
        target, secret = service.addresses.grpc_target, service.secrets["login"]
        sources.append(
            SessionTokens(target, client_id="login", client_secret=secret, tokens=given, **options)
        )
        return sources[-1]

    yield start
    for source in sources:
        await asyncio.to_thread(source.close)


async def test_a_disabled_subject_ends_the_session_with_a_typed_error_and_one_event(
    source: Any, new_session: Any, tokens_of: Any, wait_until: Any
) -> None:
    session = await new_session()
    source.answer = disabled()
    events: list[SessionEndedError] = []
    tokens = tokens_of(session, on_session_ended=events.append)
    for _ in range(3):
        with pytest.raises(SessionEndedError) as ended:
            await tokens.token_async()
        assert ended.value.reason is SessionEnd.SUBJECT_DISABLED
        assert ended.value.session_id == session.tokens.session_id
    await wait_until(lambda: len(events) > 0)
    assert [event.reason for event in events] == [SessionEnd.SUBJECT_DISABLED]
    assert len(source.asked) == 2


@pytest.mark.parametrize("service", [{"when_away_at_refresh": "refuse"}], indirect=True, ids=[""])
async def test_an_outage_is_waited_for_with_the_same_key_and_nobody_is_logged_out(
    source: Any, new_session: Any, tokens_of: Any, service: Any
) -> None:
    session = await new_session()
    source.is_away = True
    tokens = tokens_of(session)
    asked = len(source.asked)
    waiting = asyncio.create_task(tokens.token_async(timeout_seconds=20))
    async with asyncio.timeout(20):
        while len(source.asked) < asked + 2:  # its own retries
            await asyncio.wait({waiting}, timeout=0.05)
    service.travel(seconds=600)
    source.is_away, source.answer = False, active("boss")
    assert await waiting
