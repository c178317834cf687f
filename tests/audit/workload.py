"""Thousands of things that people and clients do, at random, and what became of them as those know who did them."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc

from grpc_identity.v1 import clients_pb2, tokens_pb2
from grpc_identity.v1 import identity_service_pb2 as pb

SESSIONS_AT_MOST = 4
IDLE_SECONDS = 1200
MOBILE_SECONDS = 3600
METHODS = ("Read", "Write", "Look")
POLICY = clients_pb2.ClientPolicy(
    grants=["GRANT_ISSUE", "GRANT_REFRESH", "GRANT_REVOKE", "GRANT_EXCHANGE", "GRANT_ERASE"],
    subjects=["*"],
    audiences=["*"],
    scopes=["*"],
    may_forward_client_context=True,
    calls_per_second=1_000_000,
    concurrent_calls=100_000,
    max_sessions_per_subject=SESSIONS_AT_MOST,
)
POLICY.session_idle_ttl.FromSeconds(IDLE_SECONDS)
POLICY.web_session_ttl.FromSeconds(MOBILE_SECONDS)


@dataclass
class Travelling:
    """A clock ahead of the machine's."""

    ahead_seconds: float = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead_seconds)  # noqa: TID251 - a clock

    def wall(self) -> float:
        return time.time() + self.ahead_seconds  # noqa: TID251

    @property
    def ms(self) -> int:
        return int(self.wall() * 1000)


@dataclass(frozen=True)
class Between:
    """Something happened while a call was under way."""

    from_ms: int
    to_ms: int

    def holds(self, at_ms: int) -> bool:
        # The store counts whole milliseconds.
        return self.from_ms - 1 <= at_ms <= self.to_ms + 1


@dataclass
class Known:
    """A session, as its owner knows it."""

    session_id: str
    subject: str
    client_id: str
    started: Between
    tokens: tokens_pb2.TokenSet
    key: str
    given: dict[str, str] = field(default_factory=dict)
    exchanged: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    uses: list[tuple[str, str, str, Between]] = field(default_factory=list)
    spent: list[str] = field(default_factory=list)
    used_last: int = 0
    ended: tuple[str, str, str, Between] | None = None

    @property
    def expires_ms(self) -> int:
        return self.tokens.refresh_token_expires_at.ToMilliseconds()

    def end(self, why: str, cause: str, by: str, when: Between) -> None:
        self.ended = self.ended or (why, cause, by, when)


Call = Callable[[str, Any, str], Awaitable[Any]]
Use = Callable[[str, str, bool], Awaitable[str]]


@dataclass
class Workload:
    """``call`` asks the service as a client; ``use`` presents an access token to a shop, for a method that may fail, and gives how it ended."""

    clients: tuple[str, ...]
    call: Call
    use: Use
    clock: Travelling
    chance: random.Random
    travel: Callable[[float], None]
    is_delivered: Callable[[], Awaitable[bool]]
    known: dict[str, Known] = field(default_factory=dict)
    revoked_tokens: set[str] = field(default_factory=set)
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def uses(self) -> int:
        """How many should have been recorded."""
        return sum(len(known.uses) for known in self.known.values())

    async def somebody_does(self, subject: str) -> None:
        """One thing."""
        live = [known for known in self._live() if known.subject == subject]
        actions: list[tuple[Callable[[Known], Awaitable[None]], int]] = [
            (self._refresh, 30),
            (self._use, 40),
            (self._repeat, 5),
            (self._ask_for_too_much, 3),
            (self._exchange, 5),
            (self._revoke_token, 2),
            (self._reuse, 2),
            (self._present_as_another, 1),
            (self._log_out, 3),
            (self._log_out_by_token, 2),
            (self._log_out_elsewhere, 1),
            (self._revoke_subject, 1),
            (self._erase, 1),
        ]
        if not live or self.chance.random() < 0.12:
            self.done["issue"] += 1
            await self._issue(subject, live)
            return
        action = self.chance.choices([action for action, _ in actions], [weight for _, weight in actions])[0]
        self.done[action.__name__.removeprefix("_")] += 1
        await action(self.chance.choice(live))

    async def revoke_client(self, client_id: str) -> None:
        """By an administrator; nothing else may be under way."""
        self.done["revoke_client"] += 1
        when, _ = await self._asked("Revoke", pb.RevokeRequest(client_id=client_id), "admin")
        for known in self._live():
            if known.client_id == client_id:
                known.end("client.revoked", "UNSPECIFIED", "admin", when)

    async def _issue(self, subject: str, live: list[Known]) -> None:
        client_id, key, address = self.chance.choice(self.clients), secrets.token_hex(8), self._address()
        request = pb.IssueTokensRequest(
            subject=subject, audience=["orders"], scopes=["read", "write"], idempotency_key=key
        )
        request.client_context.ip_address = address
        when, answer = await self._asked("IssueTokens", request, client_id)
        of_client = [known for known in live if known.client_id == client_id]
        if len(of_client) >= SESSIONS_AT_MOST:
            oldest = min(of_client, key=lambda known: known.used_last)
            oldest.end("session.revoked", "SESSION_CAP", client_id, when)
        known = Known(answer.tokens.session_id, subject, client_id, when, answer.tokens, key)
        self.known[known.session_id] = known
        self._given(known, answer.tokens, client_id, address)

    async def _refresh(self, known: Known) -> None:
        known.key, address = secrets.token_hex(8), self._address()
        known.spent.append(known.tokens.refresh_token)
        _, answer = await self._asked("Refresh", self._refreshing(known, address), known.client_id)
        self._given(known, answer.tokens, known.client_id, address)

    async def _repeat(self, known: Known) -> None:
        """The answer was lost, and the same call is made again."""
        await self._refresh(known)
        request = pb.RefreshRequest(refresh_token=known.spent[-1], idempotency_key=known.key)
        _, answer = await self._asked("Refresh", request, known.client_id)
        self._given(known, answer.tokens, known.client_id, "")

    async def _ask_for_too_much(self, known: Known) -> None:
        request = pb.RefreshRequest(refresh_token=known.tokens.refresh_token, scopes=["everything"])
        await self._refused("Refresh", request, known.client_id, "refresh.refused", "SCOPE_NOT_ALLOWED")

    async def _reuse(self, known: Known) -> None:
        await self._refresh(known)
        request = pb.RefreshRequest(
            refresh_token=self.chance.choice(known.spent), idempotency_key=secrets.token_hex(8)
        )
        when, _ = await self._asked("Refresh", request, known.client_id, may_fail=True)
        known.end("refresh.reuse_detected", "REFRESH_TOKEN_REUSED", known.client_id, when)
        # Who holds the last token learns of it.
        request = pb.RefreshRequest(refresh_token=known.tokens.refresh_token)
        await self._refused("Refresh", request, known.client_id, "refresh.refused", "FAMILY_REVOKED")

    async def _present_as_another(self, known: Known) -> None:
        other = self.chance.choice([client for client in self.clients if client != known.client_id])
        request = pb.RefreshRequest(refresh_token=known.tokens.refresh_token)
        when, _ = await self._asked("Refresh", request, other, may_fail=True)
        known.end("refresh.wrong_client", "REFRESH_TOKEN_INVALID", other, when)

    async def _exchange(self, known: Known) -> None:
        other = self.chance.choice(self.clients)
        if jti_of(known.tokens.access_token) in self.revoked_tokens or self._is_over(known):
            return
        request = pb.ExchangeTokenRequest(subject_token=known.tokens.access_token, scopes=["read"])
        _, answer = await self._asked("ExchangeToken", request, other)
        known.given[jti_of(answer.tokens.access_token)] = other
        known.exchanged.append(answer.tokens.access_token)

    async def _revoke_token(self, known: Known) -> None:
        if self._is_over(known):
            return
        await self._asked("Revoke", pb.RevokeRequest(token=known.tokens.access_token), known.client_id)
        self.revoked_tokens.add(jti_of(known.tokens.access_token))

    async def _log_out(self, known: Known) -> None:
        request = pb.RevokeRequest(session_id=known.session_id, reason="REVOCATION_REASON_LOGOUT")
        when, _ = await self._asked("Revoke", request, known.client_id)
        known.end("session.revoked", "LOGOUT", known.client_id, when)

    async def _log_out_by_token(self, known: Known) -> None:
        request = pb.RevokeRequest(
            token=known.tokens.refresh_token, reason="REVOCATION_REASON_CREDENTIAL_CHANGE"
        )
        when, _ = await self._asked("Revoke", request, known.client_id)
        known.end("session.revoked", "CREDENTIAL_CHANGE", known.client_id, when)

    async def _log_out_elsewhere(self, known: Known) -> None:
        request = pb.RevokeRequest(all_but_session_id=known.session_id)
        when, _ = await self._asked("Revoke", request, known.client_id)
        for other in self._live():
            if other.subject == known.subject and other is not known:
                other.end("session.revoked", "REVOKED_WITH_OTHERS", known.client_id, when)

    async def _revoke_subject(self, known: Known) -> None:
        request = pb.RevokeRequest(subject=known.subject, reason="REVOCATION_REASON_COMPROMISE")
        when, _ = await self._asked("Revoke", request, known.client_id)
        self._end_all_of(known.subject, "subject.revoked", "COMPROMISE", known.client_id, when)

    async def _erase(self, known: Known) -> None:
        request = pb.EraseSubjectRequest(subject=known.subject)
        when, _ = await self._asked("EraseSubject", request, known.client_id)
        self._end_all_of(known.subject, "subject.erased", "", known.client_id, when)

    async def _use(self, known: Known) -> None:
        token = self.chance.choice([known.tokens.access_token, *known.exchanged[-1:]])
        if self._is_over(known, token):
            return
        method, fails = self.chance.choice(METHODS), self.chance.random() < 0.1
        # By the clock of the machine, which is that of the server that reports it.
        before = Travelling().ms
        status = await self.use(token, method, fails)
        self.done[f"use: {status}"] += 1
        # Who is refused before the token is known to be good has used nothing.
        if method != "Look" and status != "UNAUTHENTICATED":
            known.uses.append(
                (f"shop.Orders/{method}", jti_of(token), status, Between(before, Travelling().ms))
            )

    def _end_all_of(self, subject: str, why: str, cause: str, by: str, when: Between) -> None:
        for known in self._live():
            if known.subject == subject:
                known.end(why, cause, by, when)

    def _live(self) -> list[Known]:
        now_ms = self.clock.ms
        return [known for known in self.known.values() if known.ended is None and now_ms < known.expires_ms]

    def _is_over(self, known: Known, token: str = "") -> bool:
        """Whether a token is so old that somebody may take it for expired."""
        token = token or known.tokens.access_token
        return bool(claims_of(token)["exp"] - 60 < self.clock.wall())

    def _given(self, known: Known, tokens: tokens_pb2.TokenSet, client_id: str, address: str) -> None:
        known.tokens, known.used_last = tokens, time.monotonic_ns()
        known.given[jti_of(tokens.access_token)] = client_id
        if address:
            known.addresses.append(address)

    def _refreshing(self, known: Known, address: str) -> pb.RefreshRequest:
        request = pb.RefreshRequest(refresh_token=known.tokens.refresh_token, idempotency_key=known.key)
        request.client_context.ip_address = address
        return request

    def _address(self) -> str:
        return f"192.0.2.{self.chance.randrange(1, 255)}"

    async def _refused(self, method: str, request: Any, client_id: str, kind: str, reason: str) -> None:
        _, answer = await self._asked(method, request, client_id, may_fail=True)
        assert answer is None
        self.refused[kind, reason] += 1

    async def _asked(
        self, method: str, request: Any, client_id: str, *, may_fail: bool = False
    ) -> tuple[Between, Any]:
        before = self.clock.ms
        try:
            answer = await self.call(method, request, client_id)
        except grpc.aio.AioRpcError:
            if not may_fail:
                raise
            answer = None
        else:
            assert not may_fail
        return Between(before, self.clock.ms), answer


async def of_many(
    workload: Workload, subjects: int, operations: int, each_round: Callable[[], Awaitable[None]]
) -> None:
    """So many things, each subject one after the other, all subjects at once."""
    rounds = 50

    async def one(name: str) -> None:
        for _ in range(operations // rounds // subjects):
            await workload.somebody_does(name)

    for _ in range(rounds):
        await asyncio.gather(*(one(f"user-{number}") for number in range(subjects)))
        await each_round()


def claims_of(token: str) -> dict[str, Any]:
    """Of an access token."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def jti_of(token: str) -> str:
    """Of an access token."""
    return str(claims_of(token)["jti"])
