"""Who gets in: both stacks, all four kinds of RPC, every way for a token to be good or bad, on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from grpc_identity import Policy, current_principal_or_none, scope
from grpc_identity.testing import Flaw, InMemoryIssuer

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED


@dataclass
class Seen:
    """What reached the service."""

    deserialised: int = 0
    subjects: list[str] = field(default_factory=list)

    def deserialise(self, raw: bytes) -> bytes:
        self.deserialised += 1
        return raw

    def forget(self) -> None:
        self.deserialised = 0
        self.subjects.clear()

    def runs(self) -> None:
        principal = current_principal_or_none()
        self.subjects.append(principal.subject if principal else "nobody")


def sync_handlers(seen: Seen) -> dict[str, Any]:
    def unary(request: bytes, context: Any) -> bytes:
        seen.runs()
        return request

    def stream(request: bytes, context: Any) -> Iterator[bytes]:
        seen.runs()
        yield request

    def consuming(requests: Iterator[bytes], context: Any) -> bytes:
        seen.runs()
        return b"".join(requests)

    def both(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        seen.runs()
        yield from requests

    return of_all_kinds(seen, unary, stream, consuming, both)


def aio_handlers(seen: Seen) -> dict[str, Any]:
    async def unary(request: bytes, context: Any) -> bytes:
        seen.runs()
        return request

    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        seen.runs()
        yield request

    async def consuming(requests: Any, context: Any) -> bytes:
        seen.runs()
        return b"".join([request async for request in requests])

    async def both(requests: Any, context: Any) -> AsyncIterator[bytes]:
        seen.runs()
        async for request in requests:
            yield request

    return of_all_kinds(seen, unary, stream, consuming, both)


def of_all_kinds(seen: Seen, unary: Any, stream: Any, consuming: Any, both: Any) -> dict[str, Any]:
    """The same four methods three times: behind no rule, behind a scope, and public."""
    handlers: dict[str, Any] = {}
    for prefix in ("", "scoped_", "public_"):
        handlers |= {
            f"{prefix}unary_unary": grpc.unary_unary_rpc_method_handler(unary, seen.deserialise),
            f"{prefix}unary_stream": grpc.unary_stream_rpc_method_handler(stream, seen.deserialise),
            f"{prefix}stream_unary": grpc.stream_unary_rpc_method_handler(consuming, seen.deserialise),
            f"{prefix}stream_stream": grpc.stream_stream_rpc_method_handler(both, seen.deserialise),
        }
    return handlers


def policy() -> Policy:
    rules = Policy().public(f"/t.S/public_{kind}" for kind in KINDS)
    for kind in KINDS:
        rules.require(f"/t.S/scoped_{kind}", scope("orders.write"))
    return rules


@dataclass(frozen=True)
class Case:
    """A caller, and the refusal it gets; no code: it is let in, as ``subject``."""

    name: str
    token: Callable[[InMemoryIssuer], str | None]
    method: str = ""
    code: grpc.StatusCode | None = None
    reason: str = ""
    subject: str = "alice"


async def test_these_tests_run_on_asyncio_and_on_uvloop(request: pytest.FixtureRequest) -> None:
    module = type(asyncio.get_running_loop()).__module__
    assert module.split(".")[0] == request.node.callspec.id


CASES = (
    Case("a valid token", lambda issuer: issuer.mint()),
    Case("an expired token", lambda i: i.mint_broken(Flaw.EXPIRED), "", UNAUTHENTICATED, "TOKEN_EXPIRED"),
    Case("a revoked token", lambda i: i.mint(session_id="over"), "", UNAUTHENTICATED, "TOKEN_REVOKED"),
    Case(
        "a token for another audience",
        lambda i: i.mint_broken(Flaw.WRONG_AUDIENCE),
        "",
        UNAUTHENTICATED,
        "AUDIENCE_MISMATCH",
    ),
    Case(
        "a token without the scope",
        lambda i: i.mint(scopes=["orders.read"]),
        "scoped_",
        PERMISSION_DENIED,
        "SCOPE_MISSING",
    ),
    Case("a token with the scope", lambda i: i.mint(scopes=["orders.write"]), "scoped_"),
    Case("no token on a public method", lambda _: None, "public_", subject="nobody"),
    Case("a valid token on a public method", lambda i: i.mint(), "public_"),
    Case(
        "an expired token on a public method",
        lambda i: i.mint_broken(Flaw.EXPIRED),
        "public_",
        UNAUTHENTICATED,
        "TOKEN_EXPIRED",
    ),
    Case("no token", lambda _: None, "", UNAUTHENTICATED, "TOKEN_MISSING"),
    Case("no token where a scope is due", lambda _: None, "scoped_", UNAUTHENTICATED, "TOKEN_MISSING"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stack", ["sync", "aio"])
async def test_a_call_is_let_in_or_refused_unread_with_the_reason(
    serve: Any,
    call: Any,
    refused: Any,
    revocable: Any,
    issuer: InMemoryIssuer,
    stack: str,
    kind: str,
    case: Case,
) -> None:
    seen = Seen()
    verifier = revocable(issuer)
    handlers = sync_handlers(seen) if stack == "sync" else aio_handlers(seen)
    target = await serve(stack, handlers, verifier, policy())
    token, path = case.token(issuer), f"/t.S/{case.method}{kind}"
    if case.reason == "TOKEN_REVOKED":
        # It was good, and is remembered as good.
        assert await call(target, kind, token, path=path)
        verifier.revoke("over")
        seen.forget()
    if case.code is None:
        answers = await call(target, kind, token, path=path)
        assert b"".join(answers) == (b"1" if kind.startswith("unary") else b"12")
        assert seen.deserialised == (1 if kind.startswith("unary") else 2)
        assert seen.subjects == [case.subject]
        return
    refusal = await refused(call(target, kind, token, path=path, is_silent=True))
    assert (refusal.code, refusal.reason) == (case.code, case.reason)
    assert (seen.deserialised, seen.subjects) == (0, [])
