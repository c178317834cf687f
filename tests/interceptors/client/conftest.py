"""An echo service behind the interceptor, a proxy before the identity service that misbehaves when told to, and callers
of both stacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
import pytest_asyncio

from grpc_identity import Issuer, Reason, TokenError, Verifier, current_principal
from grpc_identity.aio import AuthInterceptor
from grpc_identity.transport import to_status
from grpc_identity.v1 import clients_pb2

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
OPTIONS = (("grpc.so_reuseport", 0),)


@dataclass
class Echo(grpc.aio.ServerInterceptor):
    """Four methods that answer who calls and with what; ``refusals`` are given to the next calls in place of that."""

    target: str = ""
    tls_target: str = ""
    refusals: list[Reason] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)

    async def intercept_service(self, continuation: Any, call: Any) -> Any:
        self.authorizations.append(dict(call.invocation_metadata).get("authorization", ""))
        if not self.refusals:
            return await continuation(call)
        status = to_status(TokenError(self.refusals.pop(0), "told to"))

        async def refuse(_: Any, context: Any) -> None:
            await context.abort_with_status(status)

        return grpc.stream_stream_rpc_method_handler(refuse)

    def handlers(self) -> Any:
        async def unary(request: bytes, context: Any) -> bytes:
            return _echo(request)

        async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
            yield _echo(request)
            yield _echo(request)

        async def consuming(requests: Any, context: Any) -> bytes:
            return b",".join([_echo(request) async for request in requests])

        async def both(requests: Any, context: Any) -> AsyncIterator[bytes]:
            async for request in requests:
                yield _echo(request)

        async def roles(request: bytes, context: Any) -> bytes:
            return ",".join(sorted(current_principal().roles)).encode()

        methods = {
            "Roles": grpc.unary_unary_rpc_method_handler(roles),
            "unary_unary": grpc.unary_unary_rpc_method_handler(unary),
            "unary_stream": grpc.unary_stream_rpc_method_handler(stream),
            "stream_unary": grpc.stream_unary_rpc_method_handler(consuming),
            "stream_stream": grpc.stream_stream_rpc_method_handler(both),
        }
        return grpc.method_handlers_generic_handler("t.S", methods)


def _echo(request: bytes) -> bytes:
    return current_principal().subject.encode() + b":" + request


EXPECTED = {
    "unary_unary": [b"%s:1"],
    "unary_stream": [b"%s:1", b"%s:1"],
    "stream_unary": [b"%s:1,%s:2"],
    "stream_stream": [b"%s:1", b"%s:2"],
}


@pytest.fixture
def expected() -> Callable[[str, str], list[bytes]]:
    """What the echo answers to a call of this kind by this subject."""
    return lambda kind, subject: [item.replace(b"%s", subject.encode()) for item in EXPECTED[kind]]


@pytest_asyncio.fixture
async def echo(service: Any) -> AsyncIterator[Echo]:
    """The echo, following the keys and revocations of the identity service."""
    running = Echo()
    await service.new_client("echo", clients_pb2.ClientPolicy(grants=["GRANT_VERIFY"]))
    issuer = Issuer(
        "https://id.example",
        target=service.addresses.grpc_target,
        audience="orders",
        client_id="echo",
        client_secret=service.secrets["echo"],
    )
    async with Verifier(issuer) as verifier:
        server = grpc.aio.server(interceptors=[running, AuthInterceptor(verifier)], options=OPTIONS)
        server.add_generic_rpc_handlers((running.handlers(),))
        running.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        local = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
        running.tls_target = f"127.0.0.1:{local}"
        await server.start()
        yield running
        await server.stop(None)


@dataclass
class Proxy(grpc.GenericRpcHandler):
    """In front of the identity service. ``behaviours`` are for the next calls: ``lose`` the answer, answer ``late``
    (when ``release`` is set), be ``away``; afterwards it passes everything on."""

    upstream: grpc.aio.Channel
    target: str = ""
    behaviours: list[str] = field(default_factory=list)
    always: str = ""
    requests: list[bytes] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    answered: int = 0

    def service(self, details: Any) -> Any:
        async def handle(request: bytes, context: Any) -> bytes:
            self.requests.append(request)
            behaviour = self.behaviours.pop(0) if self.behaviours else self.always
            if behaviour == "away":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
            metadata = [item for item in details.invocation_metadata if item[0] == "authorization"]
            try:
                answer: bytes = await self.upstream.unary_unary(details.method)(request, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                context.set_trailing_metadata(error.trailing_metadata() or ())
                await context.abort(error.code(), error.details() or "")
            self.answered += 1
            if behaviour == "lose":
                await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")
            if behaviour == "late":
                await self.release.wait()
            return answer

        return grpc.unary_unary_rpc_method_handler(handle)


@pytest_asyncio.fixture
async def proxy(service: Any) -> AsyncIterator[Proxy]:
    """A proxy to the service."""
    async with grpc.aio.insecure_channel(service.addresses.grpc_target) as upstream:
        running = Proxy(upstream)
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((running,))
        running.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        yield running
        running.release.set()
        await server.stop(None)


async def _requests() -> AsyncIterator[bytes]:
    yield b"1"
    yield b"2"


async def call_aio(target: str, kind: str, interceptors: Any, **options: Any) -> list[bytes]:
    credentials = options.pop("credentials", None)
    channel = (
        grpc.aio.insecure_channel(target, interceptors=interceptors, **options)
        if credentials is None
        else grpc.aio.secure_channel(target, credentials, interceptors=interceptors, **options)
    )
    async with channel, asyncio.timeout(15):
        call = getattr(channel, kind)(f"/t.S/{kind}")(b"1" if kind.startswith("unary") else _requests())
        if kind.endswith("unary"):
            return [await call]
        return [answer async for answer in call]


def _call_sync(target: str, kind: str, interceptors: Any, **options: Any) -> list[bytes]:
    credentials = options.pop("credentials", None)
    plain = (
        grpc.insecure_channel(target, **options)
        if credentials is None
        else grpc.secure_channel(target, credentials, **options)
    )
    requests: Iterator[bytes] = iter((b"1", b"2"))
    with plain:
        channel = grpc.intercept_channel(plain, *interceptors)
        multi = getattr(channel, kind)(f"/t.S/{kind}")
        answers = multi(b"1" if kind.startswith("unary") else requests, timeout=10)
        return [answers] if kind.endswith("unary") else list(answers)


async def call_sync(target: str, kind: str, interceptors: Any, **options: Any) -> list[bytes]:
    return await asyncio.to_thread(_call_sync, target, kind, interceptors, **options)


@dataclass(frozen=True)
class Stack:
    """One of the two gRPC stacks, as a client."""

    name: str
    call: Callable[..., Awaitable[list[bytes]]]

    def interceptors(self, tokens: Any, **options: Any) -> Any:
        return getattr(tokens, f"{self.name}_interceptors")(**options)


@pytest.fixture(params=[Stack("aio", call_aio), Stack("sync", call_sync)], ids=lambda stack: stack.name)
def stack(request: pytest.FixtureRequest) -> Stack:
    """Each of the two."""
    return request.param  # type: ignore[no-any-return]
