"""Callers give up at random moments, thousands of them. Nobody gets another's tokens, nothing leaks, no session is stuck.

``CANCELLED_CALLS`` says how many calls are made (3,000).
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass
from typing import Any

import pytest

from grpc_identity.claims import parse_claims
from grpc_identity.encoding import decode_base64url
from grpc_identity.v1 import identity_service_pb2 as pb

CALLS = int(os.environ.get("CANCELLED_CALLS", "3000"))
SESSIONS = 64
LONGEST_SECONDS = 0.04


@dataclass
class Person:
    """Somebody with one session, who asks again with the same key until there is an answer."""

    subject: str
    tokens: Any
    number: int = 0
    answered: int = 0

    def take(self, answer: Any) -> None:
        tokens = answer.tokens
        claims = parse_claims(decode_base64url(tokens.access_token.split(".")[1].encode()))
        assert (claims.subject, claims.session_id) == (self.subject, self.tokens.session_id)
        assert tokens.session_id == self.tokens.session_id
        self.tokens = tokens
        self.number += 1
        self.answered += 1

    def request(self) -> pb.RefreshRequest:
        return pb.RefreshRequest(
            refresh_token=self.tokens.refresh_token, idempotency_key=f"{self.subject}-{self.number}"
        )


@pytest.mark.timeout(3600)
async def test_nobody_gets_anothers_tokens_and_no_session_is_stuck(
    make_settings: Any, start_service: Any, wait_until: Any
) -> None:
    service = await start_service(make_settings(limits={"refreshes_per_family_per_minute": 1_000_000}))
    issue = [pb.IssueTokensRequest(subject=f"person-{n}", audience=["orders"]) for n in range(SESSIONS)]
    people = [
        Person(request.subject, (await service.identity.IssueTokens(request, metadata=service.login)).tokens)
        for request in issue
    ]
    cancelled = 0

    async def live(person: Person, calls: int) -> None:
        nonlocal cancelled
        for _ in range(calls):
            call = service.identity.Refresh(person.request(), metadata=service.login)
            patience = random.choice([random.uniform(0, LONGEST_SECONDS), 0.0, 1.0])
            done, _ = await asyncio.wait({asyncio.ensure_future(call_of(call))}, timeout=patience)
            if not done:
                call.cancel()
                cancelled += 1
                continue
            (finished,) = done
            person.take(finished.result())

    async def call_of(call: Any) -> Any:
        try:
            return await call
        except asyncio.CancelledError:
            return None

    await asyncio.gather(*(live(person, CALLS // SESSIONS) for person in people))
    for person in people:
        # Asked again with the key of what was given up, everybody goes on.
        person.take(await service.identity.Refresh(person.request(), metadata=service.login))
    for server in await service.server.store.connection.primaries():
        pool = server.redis.connection_pool
        await wait_until(lambda pool=pool: not pool._in_use_connections)
        assert len(pool._available_connections) <= pool.max_connections
    print(
        f"{CALLS} calls, {cancelled} of them given up, {sum(person.answered for person in people)} answered"
    )
    assert cancelled > CALLS // 10
