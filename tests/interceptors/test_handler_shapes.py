"""What a handler may be: every shape that the two stacks know gets its caller, and keeps its own statuses."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from grpc_identity import Policy, Verifier, current_principal, current_principal_or_none
from grpc_identity.testing import InMemoryIssuer

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

UNARY = grpc.unary_unary_rpc_method_handler
ANSWERING = grpc.unary_stream_rpc_method_handler
ASKING = grpc.stream_unary_rpc_method_handler
BOTH = grpc.stream_stream_rpc_method_handler


def who() -> bytes:
    return current_principal().subject.encode()


async def async_unary(request: bytes, context: Any) -> bytes:
    await asyncio.sleep(0)
    return who()


def plain_unary(request: bytes, context: Any) -> bytes:
    return who()


async def async_generator(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield who()
    await asyncio.sleep(0)
    yield who()


async def writing(request: bytes, context: Any) -> None:
    await context.write(who())
    await context.write(who())


def plain_generator(request: bytes, context: Any) -> Iterator[bytes]:
    yield who()
    yield who()


def plain_function_with_a_list(request: bytes, context: Any) -> list[bytes]:
    return [who(), who()]


async def async_iterating(requests: Any, context: Any) -> bytes:
    return b",".join([who() async for _ in requests])


async def reading(requests: Any, context: Any) -> bytes:
    seen = []
    while await context.read() is not grpc.aio.EOF:
        seen.append(who())
    return b",".join(seen)


def plain_iterating(requests: Iterator[bytes], context: Any) -> bytes:
    return b",".join([who() for _ in requests])


async def async_both(requests: Any, context: Any) -> AsyncIterator[bytes]:
    async for _ in requests:
        yield who()


async def generator_that_reads(requests: Any, context: Any) -> AsyncIterator[bytes]:
    while await context.read() is not grpc.aio.EOF:
        yield who()


async def reading_and_writing(requests: Any, context: Any) -> None:
    while await context.read() is not grpc.aio.EOF:
        await context.write(who())


async def iterating_and_writing(requests: Any, context: Any) -> None:
    async for _ in requests:
        await context.write(who())


def plain_both(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    for _ in requests:
        yield who()


class Bound:
    """Handlers are methods of a servicer, as a rule."""

    async def unary(self, request: bytes, context: Any) -> bytes:
        return who()

    async def stream(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield who()


PLAIN: dict[str, tuple[Any, Any]] = {
    "plain_unary": (UNARY, plain_unary),
    "plain_generator": (ANSWERING, plain_generator),
    "plain_iterating": (ASKING, plain_iterating),
    "plain_both": (BOTH, plain_both),
    "partial_of_a_plain_function": (UNARY, functools.partial(plain_unary)),
}
AIO_ONLY: dict[str, tuple[Any, Any]] = {
    "async_unary": (UNARY, async_unary),
    "async_generator": (ANSWERING, async_generator),
    "writing": (ANSWERING, writing),
    "async_iterating": (ASKING, async_iterating),
    "reading": (ASKING, reading),
    "async_both": (BOTH, async_both),
    "generator_that_reads": (BOTH, generator_that_reads),
    "reading_and_writing": (BOTH, reading_and_writing),
    "iterating_and_writing": (BOTH, iterating_and_writing),
    "partial_of_a_coroutine_function": (UNARY, functools.partial(async_unary)),
    "partial_of_an_async_generator": (ANSWERING, functools.partial(async_generator)),
    "method": (UNARY, Bound().unary),
    "streaming_method": (BOTH, Bound().stream),
}
SYNC_ONLY: dict[str, tuple[Any, Any]] = {"plain_list": (ANSWERING, plain_function_with_a_list)}
SHAPES = [("aio", name, *shape) for name, shape in (PLAIN | AIO_ONLY).items()]
SHAPES += [("sync", name, *shape) for name, shape in (PLAIN | SYNC_ONLY).items()]
KIND_OF = {UNARY: "unary_unary", ANSWERING: "unary_stream", ASKING: "stream_unary", BOTH: "stream_stream"}


@pytest.mark.parametrize("is_public", [False, True], ids=["guarded", "public"])
@pytest.mark.parametrize(
    ("stack", "name", "constructor", "behaviour"), SHAPES, ids=[f"{shape[0]}-{shape[1]}" for shape in SHAPES]
)
async def test_every_shape_of_handler_knows_its_caller_and_answers(
    serve: Any,
    call: Any,
    wait_until: Any,
    issuer: InMemoryIssuer,
    stack: str,
    name: str,
    constructor: Any,
    behaviour: Any,
    is_public: bool,
) -> None:
    verifier, policy = Verifier(issuer.trusted()), Policy()
    if is_public:
        policy.public("/t.S/Method")
    target = await serve(stack, {"Method": constructor(behaviour)}, verifier, policy)
    kind = KIND_OF[constructor]
    for subject in ("alice", "bob"):
        answers = await call(target, kind, issuer.mint(subject=subject), path="/t.S/Method")
        assert b",".join(answers).decode().split(",") == [subject] * (1 if kind == "unary_unary" else 2)
    await wait_until(lambda: len(verifier.leases) == 0)


class Anything(grpc.GenericRpcHandler):
    """Makes a handler of its own for each call, whatever the method."""

    def __init__(self, behaviour: Any) -> None:
        self.behaviour = behaviour

    def service(self, details: Any) -> Any:
        return None if details.method.endswith("Unknown") else UNARY(functools.partial(self.behaviour))


@pytest.mark.parametrize(
    ("stack", "behaviour"), [("sync", plain_unary), ("aio", async_unary), ("aio", plain_unary)]
)
async def test_generic_handlers_are_guarded_like_all_others(
    serve: Any, call: Any, refused: Any, issuer: InMemoryIssuer, stack: str, behaviour: Any
) -> None:
    target = await serve(stack, Anything(behaviour), Verifier(issuer.trusted()))
    for path in ("/any.Service/Method", "/other/thing"):
        assert await call(target, "unary_unary", issuer.mint(), path=path) == [b"alice"]
        assert (await refused(call(target, "unary_unary", None, path=path))).reason == "TOKEN_MISSING"


KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stack", ["sync", "aio"])
async def test_an_unknown_method_stays_unimplemented_to_callers_and_tells_strangers_nothing(
    serve: Any, call: Any, refused: Any, issuer: InMemoryIssuer, stack: str, kind: str
) -> None:
    target = await serve(stack, {}, Verifier(issuer.trusted()))
    known = await refused(call(target, kind, issuer.mint(), path="/t.S/Unknown", is_silent=True))
    assert (known.code, known.reason) == (grpc.StatusCode.UNIMPLEMENTED, "")
    stranger = await refused(call(target, kind, None, path="/t.S/Unknown", is_silent=True))
    assert (stranger.code, stranger.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_MISSING")


def aborting(stack: str) -> dict[str, Any]:
    status = (grpc.StatusCode.FAILED_PRECONDITION, "not today")

    def plain(_: Any, context: Any) -> bytes:
        context.set_trailing_metadata((("why", "closed"),))
        context.abort(*status)
        raise AssertionError("abort has returned")

    def plain_stream(_: Any, context: Any) -> Iterator[bytes]:
        yield b"one"
        plain(_, context)

    async def coroutine(_: Any, context: Any) -> bytes:
        context.set_trailing_metadata((("why", "closed"),))
        await context.abort(*status)
        raise AssertionError("abort has returned")

    async def generator(_: Any, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        await coroutine(_, context)

    async def write_then_abort(_: Any, context: Any) -> None:
        await context.write(b"one")
        await coroutine(_, context)

    shapes = {"plain-unary_unary": UNARY(plain), "plain-stream_unary": ASKING(plain)}
    if stack == "sync":
        # Not on grpc.aio, where a plain generator that aborts right after a response hangs now and then, with an
        # interceptor or without.
        shapes |= {"plain-unary_stream": ANSWERING(plain_stream), "plain-stream_stream": BOTH(plain_stream)}
    else:
        shapes |= {
            "coroutine-unary_unary": UNARY(coroutine),
            "coroutine-stream_unary": ASKING(coroutine),
            "generator-unary_stream": ANSWERING(generator),
            "generator-stream_stream": BOTH(generator),
            "writing-unary_stream": ANSWERING(write_then_abort),
            "writing-stream_stream": BOTH(write_then_abort),
        }
    return shapes


@pytest.mark.parametrize(
    ("stack", "shape"), [(stack, shape) for stack in ("sync", "aio") for shape in aborting(stack)]
)
async def test_an_abort_in_a_handler_keeps_its_own_status(
    serve: Any, wait_until: Any, issuer: InMemoryIssuer, stack: str, shape: str
) -> None:
    verifier = Verifier(issuer.trusted())
    target = await serve(stack, aborting(stack), verifier)
    kind = shape.partition("-")[2]
    metadata = (("authorization", f"Bearer {issuer.mint()}"),)
    async with grpc.aio.insecure_channel(target) as channel:
        started = getattr(channel, kind)(f"/t.S/{shape}")(
            b"1" if kind.startswith("unary") else None, metadata=metadata, timeout=20
        )
        if kind.endswith("stream"):
            assert await started.read() == b"one"
            with pytest.raises(grpc.aio.AioRpcError):
                await started.read()
        assert await started.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert await started.details() == "not today"
        assert dict(await started.trailing_metadata() or ()).get("why") == "closed"
    await wait_until(lambda: len(verifier.leases) == 0)


class Waiting:
    """Handlers that wait until the test lets them go, and say when they have begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = threading.Event()
        self.after: list[Any] = []

    def wait(self) -> None:
        self.begun += 1
        self.go.wait(30)

    async def forever(self) -> None:
        self.begun += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.after.append(current_principal_or_none())

    def handlers(self, stack: str) -> dict[str, Any]:
        async def unary(request: bytes, context: Any) -> bytes:
            await self.forever()
            return b""

        async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
            yield b"first"
            await self.forever()

        async def consuming(requests: Any, context: Any) -> bytes:
            await self.forever()
            return b""

        async def both(requests: Any, context: Any) -> AsyncIterator[bytes]:
            yield b"first"
            await self.forever()

        async def written(requests: Any, context: Any) -> None:
            await context.write(b"first")
            await self.forever()

        def plain(request: Any, context: Any) -> bytes:
            self.wait()
            return b""

        def plain_stream(request: Any, context: Any) -> Iterator[bytes]:
            yield b"first"
            self.wait()

        if stack == "sync":
            return {
                "unary_unary": UNARY(plain),
                "unary_stream": ANSWERING(plain_stream),
                "stream_unary": ASKING(plain),
                "stream_stream": BOTH(plain_stream),
            }
        return {
            "unary_unary": UNARY(unary),
            "unary_stream": ANSWERING(stream),
            "stream_unary": ASKING(consuming),
            "stream_stream": BOTH(both),
            "written-stream_stream": BOTH(written),
            "plain-unary_stream": ANSWERING(plain_stream),
            "plain-stream_unary": ASKING(plain),
            "plain-stream_stream": BOTH(plain_stream),
        }


ENDINGS = [
    (stack, shape, how)
    for stack in ("sync", "aio")
    for shape in Waiting().handlers(stack)
    for how in ("cancelled", "deadline")
]


@pytest.mark.parametrize(("stack", "shape", "how"), ENDINGS)
async def test_a_call_that_its_client_gives_up_leaves_nothing_behind(
    serve: Any, issuer: InMemoryIssuer, wait_until: Any, stack: str, shape: str, how: str
) -> None:
    verifier, waiting = Verifier(issuer.trusted()), Waiting()
    target = await serve(stack, waiting.handlers(stack), verifier)
    kind = shape.rpartition("-")[2]

    async def silent() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with grpc.aio.insecure_channel(target) as channel:
        started = getattr(channel, kind)(f"/t.S/{shape}")(
            b"1" if kind.startswith("unary") else silent(),
            metadata=(("authorization", f"Bearer {issuer.mint()}"),),
            timeout=0.5 if how == "deadline" else 20,
        )
        await wait_until(lambda: waiting.begun == 1)
        assert len(verifier.leases) == (0 if kind == "unary_unary" else 1)
        if how == "cancelled":
            started.cancel()
            with pytest.raises(asyncio.CancelledError):
                await (started if kind.endswith("unary") else _drain(started))
        else:
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await (started if kind.endswith("unary") else _drain(started))
            assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        if shape.startswith("plain"):
            # A thread that runs a plain function of grpc.aio cannot be interrupted.
            waiting.go.set()
        await wait_until(lambda: len(verifier.leases) == 0)
        waiting.go.set()
    assert current_principal_or_none() is None


async def _drain(started: Any) -> None:
    async for _ in started:
        pass
