"""The play: a login service, an orders service, a lost answer, a thief, and what the audit has of it."""

from __future__ import annotations

import asyncio
import json
import secrets
import urllib.request
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import StringValue
from rich.console import Console
from rich.table import Table

from grpc_identity import Issuer
from grpc_identity.token_grants import error_reason
from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1 import identity_service_pb2_grpc as pb_grpc
from grpc_identity.v1 import tokens_pb2
from identity.demo.orders import LIST, REFUND, orders_service

SPANS_SECONDS = 20.0
WAIT_SECONDS = 10
EXPECTED_EVENTS = (
    "tokens.issued",
    "tokens.refreshed",
    "refresh.retry_answered",
    "refresh.reuse_detected",
    "refresh.refused",
    "token.used",
)


class UnexpectedAnswerError(Exception):
    """A step did not go as it must; says which."""


@dataclass(frozen=True)
class Stage:
    """Where the play takes place."""

    grpc_target: str
    issuer: str
    verifier_id: str
    verifier_secret: str = field(repr=False)
    metadata: tuple[tuple[str, str], ...] = field(repr=False)
    spans_url: str = ""


async def play(stage: Stage, console: Console) -> None:
    """Plays every step. Raises ``UnexpectedAnswerError`` at the first that goes wrong."""
    subject, trace = f"alice-{secrets.token_hex(2)}", _Trace()
    with TemporaryDirectory(prefix="identity-demo-") as spool:
        async with (
            grpc.aio.insecure_channel(stage.grpc_target) as channel,
            orders_service(_issuer(stage), Path(spool)) as orders_target,
            grpc.aio.insecure_channel(orders_target) as orders_channel,
        ):
            identity = pb_grpc.IdentityServiceStub(channel)
            login = _Login(identity, stage.metadata, subject, trace)
            await _play(stage, console, login, _Orders(orders_channel, trace), identity)


async def _play(stage: Stage, console: Console, login: _Login, orders: _Orders, identity: Any) -> None:

    _step(console, 1, f"A login service has authenticated {login.subject} and asks for tokens")
    tokens = await login.issue()
    _say(console, f"access token   {_shortened(tokens.access_token)}  for 10 minutes, audience orders")
    _say(console, f"refresh token  {_shortened(tokens.refresh_token)}  opaque, good for one use")

    _step(console, 2, "An orders service behind the interceptor decides with public keys alone")
    _say(console, f"with the token         → {await orders.call(LIST, tokens.access_token)}")
    _say(console, f"without a token        → {await _refusal(orders.call(LIST, None), 'TOKEN_MISSING')}")
    _say(
        console,
        f"a method it may not use → {await _refusal(orders.call(REFUND, tokens.access_token), 'SCOPE_MISSING')}",
    )

    _step(console, 3, "The client refreshes; the answer gets lost, and it asks again with the same key")
    stolen = tokens.refresh_token
    first = await login.refresh(stolen, key="attempt-1")
    again = await login.refresh(stolen, key="attempt-1")
    if first.refresh_token != again.refresh_token:
        raise UnexpectedAnswerError("the retry got another refresh token")
    _say(console, f"first answer   {_shortened(first.refresh_token)}")
    _say(console, f"retry          {_shortened(again.refresh_token)}  the same: nobody is logged out")

    _step(console, 4, "A thief replays the spent refresh token")
    reused = await _refusal(login.refresh(stolen, key="thief"), "REFRESH_TOKEN_REUSED")
    _say(console, f"the thief              → {reused}")
    revoked = await _refusal(login.refresh(again.refresh_token, key="attempt-2"), "FAMILY_REVOKED")
    _say(console, f"the successor, too     → {revoked}  the whole family is dead")
    left = await identity.ListSessions(pb.ListSessionsRequest(subject=login.subject), metadata=stage.metadata)
    _say(console, f"sessions of {login.subject} now: {len(left.sessions)}")

    _step(console, 5, "Revoking reaches access tokens, too: the orders service follows")
    _say(console, await login.revoke(tokens.session_id))
    refused = await _refusal(orders.call(LIST, again.access_token), "TOKEN_REVOKED")
    _say(console, f"the access token       → {refused}")

    _step(console, 6, "The audit has it all, as OpenTelemetry spans in the caller's trace")
    await _show_spans(console, stage, tokens.session_id)


def _issuer(stage: Stage) -> Issuer:
    return Issuer(
        stage.issuer,
        target=stage.grpc_target,
        audience="orders",
        client_id=stage.verifier_id,
        client_secret=stage.verifier_secret,
    )


class _Trace:
    """All calls of the play are in one trace, as they are where OpenTelemetry instruments the callers."""

    def __init__(self) -> None:
        self.trace_id = secrets.token_hex(16)

    def of_a_call(self) -> tuple[tuple[str, str], ...]:
        """Metadata with a span of its own."""
        return (("traceparent", f"00-{self.trace_id}-{secrets.token_hex(8)}-01"),)


class _Login:
    def __init__(
        self, identity: Any, credentials: tuple[tuple[str, str], ...], subject: str, trace: _Trace
    ) -> None:
        self.subject = subject
        self._identity = identity
        self._credentials = credentials
        self._trace = trace
        self._context = tokens_pb2.ClientContext(
            ip_address="192.0.2.10", user_agent="Demo/1.0", device_label="Alice's laptop"
        )

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return self._credentials + self._trace.of_a_call()

    async def issue(self) -> tokens_pb2.TokenSet:
        request = pb.IssueTokensRequest(
            subject=self.subject, audience=["orders"], scopes=["orders.read"], client_context=self._context
        )
        answer: pb.IssueTokensResponse = await self._identity.IssueTokens(request, metadata=self._metadata)
        return answer.tokens

    async def refresh(self, token: str, key: str) -> tokens_pb2.TokenSet:
        request = pb.RefreshRequest(refresh_token=token, idempotency_key=key, client_context=self._context)
        answer: pb.RefreshResponse = await self._identity.Refresh(request, metadata=self._metadata)
        return answer.tokens

    async def revoke(self, session_id: str) -> str:
        wait = Duration(seconds=WAIT_SECONDS)
        request = pb.RevokeRequest(
            session_id=session_id, reason="REVOCATION_REASON_LOGOUT", wait_until_applied=wait
        )
        answer: pb.RevokeResponse = await self._identity.Revoke(request, metadata=self._metadata)
        if answer.applied < 1 or answer.pending_verifiers:
            raise UnexpectedAnswerError("the orders service has not applied the revocation")
        return (
            f"Revoke answers         → applied by {answer.applied} of {answer.connected} connected verifiers"
        )


class _Orders:
    def __init__(self, channel: grpc.aio.Channel, trace: _Trace) -> None:
        self._channel = channel
        self._trace = trace

    async def call(self, method: str, access_token: str | None) -> str:
        metadata = self._trace.of_a_call()
        if access_token:
            metadata = (("authorization", f"Bearer {access_token}"), *metadata)
        call = self._channel.unary_unary(method, StringValue.SerializeToString, StringValue.FromString)
        answer: StringValue = await call(StringValue(value="#1001"), metadata=metadata)
        return answer.value


async def _refusal(call: Awaitable[object], expected: str) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        reason = error_reason(error)
        if reason != expected:
            raise UnexpectedAnswerError(f"expected {expected}, got {reason or error.code().name}") from None
        return f"{error.code().name} {reason}"
    raise UnexpectedAnswerError(f"expected {expected}, but the call went through")


async def _show_spans(console: Console, stage: Stage, session_id: str) -> None:
    if not stage.spans_url:
        _say(console, f"look in your tracing backend for session.id = {session_id}")
        return
    spans = await _arrived_spans(f"{stage.spans_url}?session_id={session_id}")
    table = Table("event", "outcome", "reason", "call", "from", box=None, padding=(0, 2, 0, 0))
    for span in spans:
        attributes = span["attributes"]
        table.add_row(
            span["name"],
            attributes["identity.event.outcome"],
            attributes.get("identity.event.reason", ""),
            attributes["rpc.method"].rpartition("/")[2],
            attributes.get("client.address", ""),
        )
    console.print(table)


async def _arrived_spans(url: str) -> Sequence[dict[str, Any]]:
    names: list[str] = []
    try:
        async with asyncio.timeout(SPANS_SECONDS):
            while True:
                spans = await asyncio.to_thread(_get_spans, url)
                names = [span["name"] for span in spans]
                if set(EXPECTED_EVENTS) <= set(names):
                    return spans
                await asyncio.sleep(0.1)
    except TimeoutError:
        missing = ", ".join(sorted(set(EXPECTED_EVENTS) - set(names)))
        raise UnexpectedAnswerError(
            f"these events did not arrive within {SPANS_SECONDS:.0f} s: {missing}"
        ) from None


def _get_spans(url: str) -> Sequence[dict[str, Any]]:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - the URL of our own HTTP port
        spans: list[dict[str, Any]] = json.load(answer)["spans"]
    return sorted(spans, key=lambda span: _happened_at(span["attributes"]))


def _happened_at(attributes: dict[str, Any]) -> tuple[int, int]:
    recorded_at_ms = attributes["identity.event.recorded_at_ms"]
    return (
        attributes.get("identity.event.occurred_at_ms", recorded_at_ms),
        attributes["identity.event.sequence"],
    )


def _step(console: Console, number: int, title: str) -> None:
    console.print(f"\n[bold cyan]{number}[/]  [bold]{title}[/]", soft_wrap=True)


def _say(console: Console, text: str) -> None:
    console.print(f"   {text}", highlight=False, markup=False, soft_wrap=True)


def _shortened(token: str) -> str:
    return f"{token[:9]}…({len(token)} characters)"
