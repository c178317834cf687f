"""The interceptors over real sockets: both stacks, all four kinds of RPC, every shape of handler."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from grpc_identity import Policy, PolicyError, Verifier, current_principal, current_principal_or_none, scope
from grpc_identity.aio import AuthInterceptor as AioAuthInterceptor
from grpc_identity.sync import AuthInterceptor
from grpc_identity.testing import InMemoryIssuer

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
POLICY = Policy().public("/t.S/Public").require("/t.S/Guarded", scope("orders.read"))


def who() -> bytes:
    principal = current_principal_or_none()
    return principal.subject.encode() if principal else b"nobody"


class Deserialised:
    """Counts the messages a server has looked at."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, raw: bytes) -> bytes:
        self.count += 1
        return raw


def sync_handlers(deserialise: Callable[[bytes], bytes]) -> dict[str, Any]:
    def unary(request: Any, context: Any) -> bytes:
        return who()

    def stream(request: Any, context: Any) -> Iterator[bytes]:
        yield who()
        yield who()

    def consuming(requests: Any, context: Any) -> bytes:
        return b",".join([who() for _ in requests])

    def both(requests: Any, context: Any) -> Iterator[bytes]:
        for _ in requests:
            yield who()

    return _handlers(unary, stream, consuming, both, deserialise)


def async_handlers(deserialise: Callable[[bytes], bytes]) -> dict[str, Any]:
    async def unary(request: Any, context: Any) -> bytes:
        await asyncio.sleep(0)
        return who()

    async def stream(request: Any, context: Any) -> AsyncIterator[bytes]:
        yield who()
        await asyncio.sleep(0)
        yield who()

    async def consuming(requests: Any, context: Any) -> bytes:
        return b",".join([who() async for _ in requests])

    async def both(requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield who()

    return _handlers(unary, stream, consuming, both, deserialise)


def reading_and_writing_handlers(deserialise: Callable[[bytes], bytes]) -> dict[str, Any]:
    async def unary(request: Any, context: Any) -> bytes:
        return who()

    async def stream(request: Any, context: Any) -> None:
        await context.write(who())
        await context.write(who())

    async def consuming(requests: Any, context: Any) -> bytes:
        seen = []
        while await context.read() is not grpc.aio.EOF:
            seen.append(who())
        return b",".join(seen)

    async def both(requests: Any, context: Any) -> None:
        while await context.read() is not grpc.aio.EOF:
            await context.write(who())

    return _handlers(unary, stream, consuming, both, deserialise)


def _handlers(unary: Any, stream: Any, consuming: Any, both: Any, deserialise: Any) -> dict[str, Any]:
    return {
        "unary_unary": grpc.unary_unary_rpc_method_handler(unary, deserialise),
        "unary_stream": grpc.unary_stream_rpc_method_handler(stream, deserialise),
        "stream_unary": grpc.stream_unary_rpc_method_handler(consuming, deserialise),
        "stream_stream": grpc.stream_stream_rpc_method_handler(both, deserialise),
        "Public": grpc.unary_unary_rpc_method_handler(unary, deserialise),
        "Guarded": grpc.unary_unary_rpc_method_handler(unary, deserialise),
    }


@pytest.fixture(scope="module")
def issuer() -> InMemoryIssuer:
    return InMemoryIssuer(audience="orders")


@pytest.fixture
def deserialised() -> Deserialised:
    return Deserialised()


@pytest_asyncio.fixture(params=["sync", "aio", "aio-read-write", "aio-plain-functions"])
async def target(request: Any, issuer: InMemoryIssuer, deserialised: Deserialised) -> AsyncIterator[str]:
    """A guarded server of each kind."""
    verifier = Verifier(issuer.trusted())
    make = {
        "sync": sync_handlers,
        "aio": async_handlers,
        "aio-read-write": reading_and_writing_handlers,
        "aio-plain-functions": sync_handlers,
    }[request.param]
    generic = grpc.method_handlers_generic_handler("t.S", make(deserialised))
    options = [("grpc.so_reuseport", 0)]
    if request.param == "sync":
        pool = ThreadPoolExecutor(8)
        server: Any = grpc.server(pool, interceptors=[AuthInterceptor(verifier, POLICY)], options=options)
        server.add_generic_rpc_handlers((generic,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        await asyncio.to_thread(server.stop(None).wait)
        pool.shutdown()
    else:
        server = grpc.aio.server(interceptors=[AioAuthInterceptor(verifier, POLICY)], options=options)
        server.add_generic_rpc_handlers((generic,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        yield f"127.0.0.1:{port}"
        await server.stop(None)


async def call(
    target: str, kind: str, authorization: str | None, *, method: str = "", wait: bool = True
) -> list[bytes]:
    """The answers of one call; of a stream of requests, two are sent."""
    metadata = (("authorization", authorization),) if authorization is not None else ()

    async def requests() -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"

    async def silent() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b"never"

    async with grpc.aio.insecure_channel(target) as channel, asyncio.timeout(10):
        multi = getattr(channel, kind)(f"/t.S/{method or kind}")
        argument = b"1" if kind.startswith("unary") else requests() if wait else silent()
        started = multi(argument, metadata=metadata)
        if kind.endswith("unary"):
            return [await started]
        return [answer async for answer in started]


def reason(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "grpc-identity"
    return str(info.reason)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_verified_caller_is_known_in_every_kind_of_rpc(
    target: str, issuer: InMemoryIssuer, kind: str
) -> None:
    answers = await call(target, kind, f"Bearer {issuer.mint(subject='alice')}")
    expected = {
        "unary_unary": [b"alice"],
        "unary_stream": [b"alice", b"alice"],
        "stream_unary": [b"alice,alice"],
        "stream_stream": [b"alice", b"alice"],
    }
    assert answers == expected[kind]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stranger_is_refused_before_a_message_is_read(
    target: str, kind: str, deserialised: Deserialised
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(target, kind, None, wait=False)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason(refused.value) == "TOKEN_MISSING"
    assert deserialised.count == 0


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic abc", "Bearer a.b.c", "bearer  x"])
async def test_what_is_no_bearer_token_is_invalid(target: str, authorization: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(target, "unary_unary", authorization)
    assert (refused.value.code(), reason(refused.value)) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID")


async def test_two_authorization_values_are_refused(target: str, issuer: InMemoryIssuer) -> None:
    value = ("authorization", f"Bearer {issuer.mint()}")
    async with grpc.aio.insecure_channel(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/t.S/unary_unary")(b"", metadata=(value, value))
    assert reason(refused.value) == "TOKEN_INVALID"


async def test_a_method_may_ask_for_a_scope_and_a_public_one_for_nothing(
    target: str, issuer: InMemoryIssuer
) -> None:
    assert await call(target, "unary_unary", None, method="Public") == [b"nobody"]
    assert await call(target, "unary_unary", f"Bearer {issuer.mint()}", method="Public") == [b"alice"]
    with pytest.raises(grpc.aio.AioRpcError):
        await call(target, "unary_unary", "Bearer a.b.c", method="Public")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(target, "unary_unary", f"Bearer {issuer.mint(scopes=['orders'])}", method="Guarded")
    assert (refused.value.code(), reason(refused.value)) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "SCOPE_MISSING",
    )
    token = issuer.mint(scopes=["orders.read"])
    assert await call(target, "unary_unary", f"Bearer {token}", method="Guarded") == [b"alice"]


@pytest.mark.parametrize(
    "path", ["/t.S/Unknown", "/t.S/Public/", "//t.S/Public", "/t.S/%50ublic", "/t.s/Public"]
)
async def test_an_unknown_method_is_unauthenticated_to_strangers_and_unimplemented_to_callers(
    target: str, issuer: InMemoryIssuer, path: str
) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        method = channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError) as stranger:
            await method(b"")
        assert stranger.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as caller:
            await method(b"", metadata=(("authorization", f"Bearer {issuer.mint()}"),))
        assert caller.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_callers_are_never_mixed_up(target: str, issuer: InMemoryIssuer) -> None:
    tokens = {f"user-{number}": issuer.mint(subject=f"user-{number}") for number in range(8)}
    async with grpc.aio.insecure_channel(target) as channel:
        methods = {kind: getattr(channel, kind)(f"/t.S/{kind}") for kind in ("unary_unary", "unary_stream")}

        async def one(subject: str, token: str | None) -> None:
            metadata = (("authorization", f"Bearer {token}"),) if token else ()
            if token is None:
                assert await channel.unary_unary("/t.S/Public")(b"") == b"nobody"
                return
            assert await methods["unary_unary"](b"", metadata=metadata) == subject.encode()
            streamed = [item async for item in methods["unary_stream"](b"", metadata=metadata)]
            assert streamed == [subject.encode()] * 2

        await asyncio.gather(
            *(
                one(subject, token)
                for _ in range(10)
                for subject, token in [*tokens.items(), ("nobody", None)]
            )
        )


def test_outside_of_a_call_there_is_no_principal() -> None:
    assert current_principal_or_none() is None
    with pytest.raises(LookupError, match="no verified caller"):
        current_principal()
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(current_principal_or_none()))
    thread.start()
    thread.join()
    assert seen == [None]
    assert contextvars.copy_context().run(current_principal_or_none) is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_aio_interceptor_in_a_sync_server_refuses_calls_in_place_of_hanging(
    issuer: InMemoryIssuer, kind: str
) -> None:
    pool = ThreadPoolExecutor(2)
    wrong: Any = AioAuthInterceptor(Verifier(issuer.trusted()))
    server = grpc.server(pool, interceptors=[wrong], options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.S", sync_handlers(bytes)),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refused:
        list(getattr(channel, kind)(f"/t.S/{kind}")(b"" if kind.startswith("unary") else iter(()), timeout=5))
    assert refused.value.code() is grpc.StatusCode.INTERNAL  # type: ignore[attr-defined]
    assert "needs grpc_identity.sync" in refused.value.details()  # type: ignore[attr-defined]
    server.stop(None).wait()
    pool.shutdown()


def test_a_sync_interceptor_in_an_aio_server_is_refused_at_construction(issuer: InMemoryIssuer) -> None:
    async def build() -> None:
        wrong: Any = AuthInterceptor(Verifier(issuer.trusted()))
        grpc.aio.server(interceptors=[wrong])

    with pytest.raises(ValueError, match="Interceptor"):
        asyncio.run(build())


@pytest.mark.parametrize(
    "build",
    [
        lambda: Policy().public("/t.S/A").require("/t.S/A", "x"),
        lambda: Policy().require("/t.S/A"),
        lambda: Policy().public("/t.S/A*"),
        lambda: Policy().public("t/S"),
        lambda: Policy().public(""),
        lambda: Policy().require("/t.S/A", scope("a b")),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(build: Callable[[], Policy]) -> None:
    with pytest.raises(PolicyError):
        build()
