"""A call that goes on does not outlive its token: both stacks, every shape of streaming handler."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from grpc_identity import Verifier
from grpc_identity.aio import AuthInterceptor as AioAuthInterceptor
from grpc_identity.revocation_guard import RevocationGuard
from grpc_identity.revocations import RevocationView, Revoked
from grpc_identity.sync import AuthInterceptor
from grpc_identity.testing import InMemoryIssuer

FOREVER = 1e12
AIO_SHAPES = ("generator", "writing", "consuming", "both", "plain_generator")
SYNC_SHAPES = ("generator", "consuming", "both", "silent")


class Stopped:
    """Lets handlers wait, and lets the test end those that nothing has ended."""

    def __init__(self) -> None:
        self.event = threading.Event()


class RevocableVerifier(Verifier):
    """A verifier whose one issuer can revoke, without a server."""

    def __init__(self, issuer: InMemoryIssuer, **options: Any) -> None:
        super().__init__(issuer.trusted(), **options)
        self.view = RevocationView()
        self._guards[issuer.issuer] = RevocationGuard(issuer.issuer, self.view)

    def revoke(self, session_id: str) -> None:
        self.view.apply([Revoked(session_id=session_id, forget_at_seconds=FOREVER)])
        self.leases.revoked()


def aio_handlers(stopped: Stopped) -> dict[str, Any]:
    async def generator(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    async def writing(request: bytes, context: Any) -> None:
        await context.write(b"first")
        await asyncio.Event().wait()

    async def consuming(requests: Any, context: Any) -> bytes:
        async for _ in requests:
            pass
        return b"done"

    async def both(requests: Any, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        async for request in requests:
            yield request

    def plain_generator(request: bytes, context: Any) -> Iterator[bytes]:
        yield b"first"
        while not stopped.event.wait(0.02):
            yield b"more"

    return {
        "generator": grpc.unary_stream_rpc_method_handler(generator),
        "writing": grpc.unary_stream_rpc_method_handler(writing),
        "consuming": grpc.stream_unary_rpc_method_handler(consuming),
        "both": grpc.stream_stream_rpc_method_handler(both),
        "plain_generator": grpc.unary_stream_rpc_method_handler(plain_generator),
    }


def sync_handlers(stopped: Stopped) -> dict[str, Any]:
    def generator(request: bytes, context: Any) -> Iterator[bytes]:
        yield b"first"
        while not stopped.event.wait(0.02):
            yield b"more"

    def consuming(requests: Iterator[bytes], context: Any) -> bytes:
        return b"%d" % sum(1 for _ in requests)

    def both(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield b"first"
        yield from requests

    def silent(request: bytes, context: Any) -> Iterator[bytes]:
        yield b"first"
        stopped.event.wait(30)

    return {
        "generator": grpc.unary_stream_rpc_method_handler(generator),
        "consuming": grpc.stream_unary_rpc_method_handler(consuming),
        "both": grpc.stream_stream_rpc_method_handler(both),
        "silent": grpc.unary_stream_rpc_method_handler(silent),
    }


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """Starts a server of either stack with these handlers, and returns a channel to it."""
    stopped, ends = Stopped(), []

    async def start(stack: str, verifier: Verifier, **options: Any) -> grpc.aio.Channel:
        server: Any
        if stack == "aio":
            server = grpc.aio.server(
                interceptors=[AioAuthInterceptor(verifier, **options)], options=[("grpc.so_reuseport", 0)]
            )
            handlers = aio_handlers(stopped)
        else:
            server = grpc.server(
                ThreadPoolExecutor(4),
                interceptors=[AuthInterceptor(verifier, **options)],
                options=[("grpc.so_reuseport", 0)],
            )
            handlers = sync_handlers(stopped)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.S", handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        started = server.start()
        if stack == "aio":
            await started
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")

        async def end() -> None:
            stopped.event.set()
            await channel.close()
            ending = server.stop(0)
            if stack == "aio":
                await ending
            else:
                ending.wait()

        ends.append(end)
        return channel

    yield start
    for end in ends:
        await end()


def open_call(channel: grpc.aio.Channel, shape: str, token: str, requests: asyncio.Queue[bytes]) -> Any:
    metadata = (("authorization", f"Bearer {token}"),)
    path = f"/t.S/{shape}"

    async def sent() -> AsyncIterator[bytes]:
        while True:
            yield await requests.get()

    if shape == "consuming":
        return channel.stream_unary(path)(sent(), metadata=metadata)
    if shape == "both":
        return channel.stream_stream(path)(sent(), metadata=metadata)
    return channel.unary_stream(path)(b"", metadata=metadata)


async def outcome(call: Any, requests: asyncio.Queue[bytes]) -> tuple[grpc.StatusCode, str]:
    """How the call ends; keeps it busy until then, as a caller would."""

    async def busy() -> None:
        while True:
            await requests.put(b"more")
            await asyncio.sleep(0.02)

    sending = asyncio.create_task(busy())
    try:
        async with asyncio.timeout(20):
            if hasattr(call, "read"):
                async for _ in call:
                    pass
            else:
                await call
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        info = error_details_pb2.ErrorInfo()
        for detail in status.details if status else ():
            detail.Unpack(info)
        return error.code(), info.reason
    finally:
        sending.cancel()
    return grpc.StatusCode.OK, ""


CASES = [("aio", shape) for shape in AIO_SHAPES] + [("sync", shape) for shape in SYNC_SHAPES]


def expected(stack: str, shape: str, reason: str) -> tuple[grpc.StatusCode, str]:
    # A sync handler that neither reads nor writes can only be cancelled; see `grpc_identity.sync.streams`.
    if (stack, shape) == ("sync", "silent"):
        return grpc.StatusCode.CANCELLED, ""
    return grpc.StatusCode.UNAUTHENTICATED, reason


@pytest.mark.parametrize(("stack", "shape"), CASES)
async def test_a_stream_ends_when_its_token_is_revoked(
    serve: Any, wait_until: Any, stack: str, shape: str
) -> None:
    issuer = InMemoryIssuer(audience="test")
    verifier = RevocableVerifier(issuer)
    channel = await serve(stack, verifier)
    requests: asyncio.Queue[bytes] = asyncio.Queue()
    call = open_call(channel, shape, issuer.mint(session_id="s-1"), requests)
    other = open_call(channel, shape, issuer.mint(session_id="s-2"), requests)
    await wait_until(lambda: len(verifier.leases) == 2)
    verifier.revoke("s-1")
    assert await outcome(call, requests) == expected(stack, shape, "TOKEN_REVOKED")
    assert not other.done()
    # Not by cancelling: on grpc.aio that leaves the thread of a plain generator waiting for ever.
    verifier.revoke("s-2")
    assert await outcome(other, requests) == expected(stack, shape, "TOKEN_REVOKED")
    await wait_until(lambda: len(verifier.leases) == 0)


@pytest.mark.parametrize(("stack", "shape"), CASES)
async def test_a_stream_ends_when_its_token_expires(serve: Any, stack: str, shape: str) -> None:
    issuer = InMemoryIssuer(audience="test")
    channel = await serve(stack, Verifier(issuer.trusted(), leeway_seconds=0))
    requests: asyncio.Queue[bytes] = asyncio.Queue()
    call = open_call(channel, shape, issuer.mint(ttl_seconds=2), requests)
    assert await outcome(call, requests) == expected(stack, shape, "TOKEN_EXPIRED")


@pytest.mark.parametrize("stack", ["aio", "sync"])
async def test_a_grace_lets_a_revoked_stream_go_on_for_a_moment(
    serve: Any, wait_until: Any, stack: str
) -> None:
    issuer = InMemoryIssuer(audience="test")
    verifier = RevocableVerifier(issuer)
    channel = await serve(stack, verifier, stream_grace_seconds=1.5)
    requests: asyncio.Queue[bytes] = asyncio.Queue()
    call = open_call(channel, "both", issuer.mint(session_id="s-1"), requests)
    await wait_until(lambda: len(verifier.leases) == 1)
    revoked_at = asyncio.get_running_loop().time()
    verifier.revoke("s-1")
    assert (await outcome(call, requests))[1] == "TOKEN_REVOKED"
    assert asyncio.get_running_loop().time() - revoked_at >= 1.5
