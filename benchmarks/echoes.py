"""Echo servers for both stacks: bare, and with each way of looking at the caller.

The plain PyJWT interceptors are what a team writes without this project: ``jwt.decode`` on each call, the key already
in memory, no limits, no policy, no revocations.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable
from concurrent import futures
from contextvars import ContextVar
from enum import Enum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import jwt
import uvloop

import grpc_identity.aio
import grpc_identity.sync
from benchmarks.lifetime import end_with_parent
from grpc_identity import Policy, UsageAudit, UsageRecorder, Verifier
from grpc_identity.testing import InMemoryIssuer

MAX_REMEMBERED = 2_000
# In turns, each comes back only after it was forgotten, so it is as good as never seen.
UNSEEN_TOKENS = MAX_REMEMBERED + MAX_REMEMBERED // 5
SYNC_THREADS = 10
AUDIENCE = "orders"
USAGE_RECEIVER_VARIABLE = "BENCHMARKS_USAGE_RECEIVER"
CLAIMS: ContextVar[dict[str, Any] | None] = ContextVar("claims", default=None)


class Guard(Enum):
    """What stands before the echo."""

    NONE = "none"
    NOTHING = "an interceptor that does nothing"
    REMEMBERED = "grpc_identity, one token"
    USE = "grpc_identity, one token, each use recorded"
    MUST = "grpc_identity, one token, each use recorded before and after"
    UNSEEN = "grpc_identity, a new token with each call"
    PLAIN_PYJWT = "jwt.decode"


class AioNothing(grpc.aio.ServerInterceptor):
    """What an interceptor costs before it does anything."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Passes on."""
        return await continuation(handler_call_details)


class SyncNothing(grpc.ServerInterceptor):
    """As above, for threads."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Passes on."""
        return continuation(handler_call_details)


class PlainPyJwt:
    """The decision that is written by hand."""

    def __init__(self, issuer: InMemoryIssuer) -> None:
        self._issuer = issuer.issuer
        self._algorithms = [issuer.algorithm.value]
        self._key = jwt.PyJWK(issuer.jwks()["keys"][0])

    def claims(self, call: grpc.HandlerCallDetails) -> dict[str, Any] | None:
        """The claims of the caller, or ``None`` to refuse."""
        value = dict(call.invocation_metadata).get("authorization", "")
        try:
            claims: dict[str, Any] = jwt.decode(
                value.removeprefix("Bearer "),
                self._key,
                algorithms=self._algorithms,
                audience=AUDIENCE,
                issuer=self._issuer,
            )
        except jwt.InvalidTokenError:
            return None
        return claims


class AioPyJwt(grpc.aio.ServerInterceptor):
    """Verifies with PyJWT."""

    def __init__(self, issuer: InMemoryIssuer) -> None:
        self._plain = PlainPyJwt(issuer)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Verifies, or refuses."""
        claims = self._plain.claims(handler_call_details)
        if claims is None:
            return grpc.unary_unary_rpc_method_handler(_refuse_aio)
        CLAIMS.set(claims)
        return await continuation(handler_call_details)


class SyncPyJwt(grpc.ServerInterceptor):
    """As above, for threads."""

    def __init__(self, issuer: InMemoryIssuer) -> None:
        self._plain = PlainPyJwt(issuer)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Verifies, or refuses."""
        claims = self._plain.claims(handler_call_details)
        if claims is None:
            return grpc.unary_unary_rpc_method_handler(_refuse_sync)
        CLAIMS.set(claims)
        return continuation(handler_call_details)


async def _refuse_aio(_: object, context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")


def _refuse_sync(_: object, context: Any) -> None:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "no")


def aio_echo(
    answer: Connection, store_url: str, data: Path, *, guard: Guard = Guard.NONE, algorithm: str = "ES256"
) -> None:
    """An echo on ``grpc.aio`` and uvloop."""
    del store_url
    end_with_parent()
    issuer = InMemoryIssuer(audience=AUDIENCE, algorithm=algorithm)
    uvloop.run(_serve_aio(answer, _aio_interceptors(guard, issuer, data), _tokens(guard, issuer)))


async def _serve_aio(answer: Connection, interceptors: list[Any], tokens: list[str]) -> None:
    server, port = await start_aio_echo(interceptors)
    answer.send({"target": f"127.0.0.1:{port}", "tokens": tokens})
    await server.wait_for_termination()


async def start_aio_echo(interceptors: list[Any]) -> tuple[grpc.aio.Server, int]:
    """The server, listening, and its port."""

    async def handler(request: bytes, context: object) -> bytes:
        del context
        return request

    server = grpc.aio.server(interceptors=interceptors, options=[("grpc.so_reuseport", 0)])
    port = _add_echo(server, handler)
    await server.start()
    return server, port


def sync_echo(
    answer: Connection, store_url: str, data: Path, *, guard: Guard = Guard.NONE, algorithm: str = "ES256"
) -> None:
    """An echo on ``grpc.server`` and threads."""
    del store_url
    end_with_parent()

    def handler(request: bytes, context: object) -> bytes:
        del context
        return request

    issuer = InMemoryIssuer(audience=AUDIENCE, algorithm=algorithm)
    tokens = _tokens(guard, issuer)
    server = grpc.server(
        futures.ThreadPoolExecutor(SYNC_THREADS),
        interceptors=_sync_interceptors(guard, issuer, data),
        options=[("grpc.so_reuseport", 0)],
    )
    port = _add_echo(server, handler)
    server.start()
    answer.send({"target": f"127.0.0.1:{port}", "tokens": tokens})
    server.wait_for_termination()


def _add_echo(server: Any, handler: Any) -> int:
    methods = {"Echo": grpc.unary_unary_rpc_method_handler(handler)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("benchmarks.Echo", methods),))
    port: int = server.add_insecure_port("127.0.0.1:0")
    return port


def _tokens(guard: Guard, issuer: InMemoryIssuer) -> list[str]:
    return [
        issuer.mint(scopes=["a.read"])
        for _ in itertools.repeat(None, UNSEEN_TOKENS if guard is Guard.UNSEEN else 1)
    ]


def _recorded(guard: Guard, data: Path) -> dict[str, Any]:
    """Where uses are recorded, reported to a receiver that is another process; nothing for the other guards."""
    if guard not in {Guard.USE, Guard.MUST}:
        return {}
    usage = UsageRecorder(
        os.environ[USAGE_RECEIVER_VARIABLE], client_id="orders", client_secret="s3cret", directory=data
    )
    usage.start()
    audit = UsageAudit.USE if guard is Guard.USE else UsageAudit.MUST
    return {"policy": Policy().require("/benchmarks.Echo/Echo", audit=audit), "usage": usage}


def _aio_interceptors(guard: Guard, issuer: InMemoryIssuer, data: Path) -> list[Any]:
    match guard:
        case Guard.NONE:
            return []
        case Guard.NOTHING:
            return [AioNothing()]
        case Guard.PLAIN_PYJWT:
            return [AioPyJwt(issuer)]
        case Guard.REMEMBERED | Guard.UNSEEN | Guard.USE | Guard.MUST:
            verifier = Verifier(issuer.trusted(), max_remembered=MAX_REMEMBERED)
            return [grpc_identity.aio.AuthInterceptor(verifier, **_recorded(guard, data))]


def _sync_interceptors(guard: Guard, issuer: InMemoryIssuer, data: Path) -> list[Any]:
    match guard:
        case Guard.NONE:
            return []
        case Guard.NOTHING:
            return [SyncNothing()]
        case Guard.PLAIN_PYJWT:
            return [SyncPyJwt(issuer)]
        case Guard.REMEMBERED | Guard.UNSEEN | Guard.USE | Guard.MUST:
            verifier = Verifier(issuer.trusted(), max_remembered=MAX_REMEMBERED)
            return [grpc_identity.sync.AuthInterceptor(verifier, **_recorded(guard, data))]
