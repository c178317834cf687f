"""A call that goes on does not outlive its token: both stacks, every shape of streaming handler."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from grpc_identity import Verifier
from grpc_identity.sync.streams import Alarms
from grpc_identity.testing import InMemoryIssuer

AIO_SHAPES = (
    "generator", "busy_generator", "writing", "busy_writing", "consuming", "both", "plain_generator",
    "busy_plain_generator", "plain_consuming", "plain_both",
)  # fmt: skip
LONG_BYTES = 20_000_000
SYNC_SHAPES = ("generator", "consuming", "both", "silent")


class Stopped:
    """Lets handlers wait, and lets the test end those that nothing has ended."""

    def __init__(self) -> None:
        self.event = threading.Event()


async def busy_generator(request: bytes, context: Any) -> AsyncIterator[bytes]:
    while True:
        yield b"first" * 1000


async def busy_writing(request: bytes, context: Any) -> None:
    while True:
        await context.write(b"first" * 1000)


async def long_writing(request: bytes, context: Any) -> None:
    # More than is sent to a caller who does not read, so that it is still on its way when the token ends.
    await context.write(bytes(LONG_BYTES))
    await asyncio.Event().wait()


def count(requests: Iterator[bytes], context: Any) -> bytes:
    return b"%d" % sum(1 for _ in requests)


def first_and_all(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    yield b"first"
    yield from requests


def hasty(stopped: Stopped, request: bytes, context: Any) -> Iterator[bytes]:
    while not stopped.event.is_set():
        yield b"more"


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
        "plain_consuming": grpc.stream_unary_rpc_method_handler(count),
        "plain_both": grpc.stream_stream_rpc_method_handler(first_and_all),
        "busy_plain_generator": grpc.unary_stream_rpc_method_handler(functools.partial(hasty, stopped)),
        "generator": grpc.unary_stream_rpc_method_handler(generator),
        "busy_generator": grpc.unary_stream_rpc_method_handler(busy_generator),
        "writing": grpc.unary_stream_rpc_method_handler(writing),
        "busy_writing": grpc.unary_stream_rpc_method_handler(busy_writing),
        "long_writing": grpc.unary_stream_rpc_method_handler(long_writing),
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
        # From the start: a response that is handed over after the token has ended would tell of it.
        stopped.event.wait(30)
        yield b"late"

    return {
        "generator": grpc.unary_stream_rpc_method_handler(generator),
        "consuming": grpc.stream_unary_rpc_method_handler(consuming),
        "both": grpc.stream_stream_rpc_method_handler(both),
        "silent": grpc.unary_stream_rpc_method_handler(silent),
    }


@pytest_asyncio.fixture
async def open_channel(serve: Callable[..., Any]) -> AsyncIterator[Callable[..., Any]]:
    """Starts a server of either stack with these handlers, and returns a channel to it."""
    stopped, channels = Stopped(), []

    async def start(stack: str, verifier: Verifier, **options: Any) -> grpc.Channel:
        handlers = aio_handlers(stopped) if stack == "aio" else sync_handlers(stopped)
        target = await serve(stack, handlers, verifier, **options)
        channels.append(grpc.insecure_channel(target, [("grpc.max_receive_message_length", LONG_BYTES)]))
        return channels[-1]

    yield start
    stopped.event.set()
    for channel in channels:
        channel.close()


class Busy:
    """Requests without end, as a caller sends who does not know that its token is no good any more."""

    def __init__(self) -> None:
        self._over = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        while not self._over.wait(0.02):
            yield b"more"

    def end(self) -> None:
        self._over.set()


class Call:
    """One call. The client is a sync one: on grpc.aio, a bidirectional call that is ended while it sends may be told
    INTERNAL, whatever the server has said."""

    def __init__(self, channel: grpc.Channel, shape: str, token: str) -> None:
        metadata = (("authorization", f"Bearer {token}"),)
        path = f"/t.S/{shape}"
        self._requests = Busy()
        self._answers_once = shape.endswith("consuming")
        self.rpc: Any
        if shape.endswith("consuming"):
            self.rpc = channel.stream_unary(path).future(iter(self._requests), metadata=metadata)
        elif shape.endswith("both"):
            self.rpc = channel.stream_stream(path)(iter(self._requests), metadata=metadata)
        else:
            self.rpc = channel.unary_stream(path)(b"", metadata=metadata)

    async def outcome(self) -> tuple[grpc.StatusCode, str]:
        """How it ends."""
        async with asyncio.timeout(20):
            return await asyncio.to_thread(self._outcome)

    def _outcome(self) -> tuple[grpc.StatusCode, str]:
        try:
            if self._answers_once:
                self.rpc.result()
            for _ in self.rpc if not self._answers_once else ():
                pass
        except grpc.RpcError:
            pass
        finally:
            self._requests.end()
        status = rpc_status.from_call(self.rpc)
        info = error_details_pb2.ErrorInfo()
        for detail in status.details if status else ():
            detail.Unpack(info)
        return self.rpc.code(), info.reason


CASES = [("aio", shape) for shape in AIO_SHAPES] + [("sync", shape) for shape in SYNC_SHAPES]


def expected(stack: str, shape: str, reason: str) -> tuple[grpc.StatusCode, str]:
    # A sync handler that neither reads nor writes can only be cancelled; see `grpc_identity.sync.streams`.
    if (stack, shape) == ("sync", "silent"):
        return grpc.StatusCode.CANCELLED, ""
    return grpc.StatusCode.UNAUTHENTICATED, reason


@pytest.mark.parametrize(("stack", "shape"), CASES)
async def test_a_stream_ends_when_its_token_is_revoked(
    open_channel: Any, wait_until: Any, revocable: Any, stack: str, shape: str
) -> None:
    issuer = InMemoryIssuer(audience="test")
    verifier = revocable(issuer)
    channel = await open_channel(stack, verifier)
    call = Call(channel, shape, issuer.mint(session_id="s-1"))
    other = Call(channel, shape, issuer.mint(session_id="s-2"))
    await wait_until(lambda: len(verifier.leases) == 2)
    verifier.revoke("s-1")
    assert await call.outcome() == expected(stack, shape, "TOKEN_REVOKED")
    assert not other.rpc.done()
    # Not by cancelling: on grpc.aio that leaves the thread of a plain generator waiting for ever.
    verifier.revoke("s-2")
    assert await other.outcome() == expected(stack, shape, "TOKEN_REVOKED")
    await wait_until(lambda: len(verifier.leases) == 0)


async def test_a_stream_ends_though_its_first_response_is_on_its_way(
    open_channel: Any, wait_until: Any, revocable: Any
) -> None:
    issuer = InMemoryIssuer(audience="test")
    verifier = revocable(issuer)
    call = Call(await open_channel("aio", verifier), "long_writing", issuer.mint(session_id="s-1"))
    await wait_until(lambda: len(verifier.leases) == 1)
    verifier.revoke("s-1")
    assert await call.outcome() == expected("aio", "long_writing", "TOKEN_REVOKED")
    await wait_until(lambda: len(verifier.leases) == 0)


@pytest.mark.parametrize(("stack", "shape"), CASES)
async def test_a_stream_ends_when_its_token_expires(open_channel: Any, stack: str, shape: str) -> None:
    issuer = InMemoryIssuer(audience="test")
    channel = await open_channel(stack, Verifier(issuer.trusted(), leeway_seconds=0))
    call = Call(channel, shape, issuer.mint(ttl_seconds=2))
    assert await call.outcome() == expected(stack, shape, "TOKEN_EXPIRED")


@pytest.mark.parametrize(("stack", "shape"), [("aio", "both"), ("aio", "plain_both"), ("sync", "both")])
async def test_a_grace_lets_a_revoked_stream_go_on_for_a_moment(
    open_channel: Any, wait_until: Any, revocable: Any, stack: str, shape: str
) -> None:
    issuer = InMemoryIssuer(audience="test")
    verifier = revocable(issuer)
    channel = await open_channel(stack, verifier, stream_grace_seconds=1.5)
    call = Call(channel, shape, issuer.mint(session_id="s-1"))
    await wait_until(lambda: len(verifier.leases) == 1)
    revoked_at = asyncio.get_running_loop().time()
    verifier.revoke("s-1")
    assert (await call.outcome())[1] == "TOKEN_REVOKED"
    assert asyncio.get_running_loop().time() - revoked_at >= 1.5


async def test_a_call_that_is_over_before_its_handler_begins_leaves_no_lease(
    serve: Any, wait_until: Any
) -> None:
    issuer = InMemoryIssuer(audience="test")
    verifier, busy, go, begun = Verifier(issuer.trusted()), threading.Event(), threading.Event(), []

    def blocking(request: bytes, context: Any) -> bytes:
        busy.set()
        go.wait(20)
        return b""

    def consuming(requests: Iterator[bytes], context: Any) -> bytes:
        begun.append(context.is_active())
        return b""

    async def silent() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    handlers = {
        "blocking": grpc.unary_unary_rpc_method_handler(blocking),
        "consuming": grpc.stream_unary_rpc_method_handler(consuming),
    }
    target = await serve("sync", handlers, verifier, threads=1)
    async with grpc.aio.insecure_channel(target) as channel:
        metadata = (("authorization", f"Bearer {issuer.mint()}"),)
        first = channel.unary_unary("/t.S/blocking")(b"", metadata=metadata)
        await asyncio.to_thread(busy.wait, 10)
        over = channel.stream_unary("/t.S/consuming")(silent(), metadata=metadata)
        await asyncio.wait([asyncio.ensure_future(over.wait_for_connection())])
        over.cancel()
        again = channel.unary_unary("/t.S/blocking")(b"", metadata=metadata, timeout=0.5)
        with pytest.raises(grpc.aio.AioRpcError):
            await again  # so the server has seen what was sent before it
        go.set()
        await first
        await wait_until(lambda: bool(begun))
    assert begun == [False]
    await wait_until(lambda: len(verifier.leases) == 0)


async def test_calls_that_have_ended_leave_neither_alarms_nor_the_thread_of_the_alarms(
    wait_until: Any,
) -> None:
    alarms, rung = Alarms(), []
    kept = alarms.set(3600, lambda: rung.append("kept"))
    for _ in range(1000):
        alarms.set(600, lambda: rung.append("never")).cancel()
        assert len(alarms) <= 3
    alarms.set(0.01, lambda: rung.append("soon"))
    await wait_until(lambda: rung == ["soon"])
    names = [thread.name for thread in threading.enumerate() if thread is alarms._thread]
    assert names == ["grpc_identity alarms"]
    kept.cancel()
    await wait_until(lambda: alarms._thread is None)
