"""The caller a handler sees is its own: in every thread and task of the call, and in no other call."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from grpc_identity import Policy, Verifier, current_principal_or_none
from grpc_identity.testing import InMemoryIssuer

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

SUBJECTS = 40
ROUNDS = 8
THREADS = 3


def who() -> bytes:
    principal = current_principal_or_none()
    return principal.subject.encode() if principal else b"nobody"


def plain_handlers() -> dict[str, Any]:
    def unary(request: bytes, context: Any) -> bytes:
        return who()

    def stream(request: bytes, context: Any) -> Iterator[bytes]:
        for _ in range(3):
            yield who()

    def both(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        for _ in requests:
            yield who()

    return of_kinds(unary, stream, both)


def async_handlers() -> dict[str, Any]:
    async def unary(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0.001)
        return who()

    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield who()

    async def both(requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield who()

    return of_kinds(unary, stream, both)


def of_kinds(unary: Any, stream: Any, both: Any) -> dict[str, Any]:
    return {
        "unary_unary": grpc.unary_unary_rpc_method_handler(unary),
        "unary_stream": grpc.unary_stream_rpc_method_handler(stream),
        "stream_stream": grpc.stream_stream_rpc_method_handler(both),
        "public": grpc.unary_unary_rpc_method_handler(unary),
    }


SERVERS = [("sync", plain_handlers), ("aio", async_handlers), ("aio", plain_handlers)]


@pytest.mark.parametrize(("stack", "make"), SERVERS, ids=["sync", "aio", "aio-plain-functions"])
async def test_hundreds_of_interleaved_calls_of_many_callers_are_never_mixed_up(
    serve: Any, issuer: InMemoryIssuer, stack: str, make: Any
) -> None:
    policy = Policy().public("/t.S/public")
    # Few threads, so that each serves many callers, and strangers after callers.
    target = await serve(stack, make(), Verifier(issuer.trusted()), policy, threads=THREADS)
    tokens = {f"user-{n}": issuer.mint(subject=f"user-{n}") for n in range(SUBJECTS)}
    async with grpc.aio.insecure_channel(target) as channel:

        async def both() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"?"
                await asyncio.sleep(0)

        async def one(subject: str, token: str) -> None:
            metadata = (("authorization", f"Bearer {token}"),)
            mine = subject.encode()
            assert await channel.unary_unary("/t.S/unary_unary")(b"", metadata=metadata) == mine
            assert await channel.unary_unary("/t.S/public")(b"") == b"nobody"
            stream = channel.unary_stream("/t.S/unary_stream")(b"", metadata=metadata)
            assert [item async for item in stream] == [mine] * 3
            call = channel.stream_stream("/t.S/stream_stream")(both(), metadata=metadata)
            assert [item async for item in call] == [mine] * 3

        async with asyncio.timeout(50):
            await asyncio.gather(*(one(*caller) for _ in range(ROUNDS) for caller in tokens.items()))
    assert current_principal_or_none() is None


async def test_tasks_of_a_handler_know_the_caller_and_so_do_threads_given_its_context(
    serve: Any, call: Any, issuer: InMemoryIssuer
) -> None:
    async def aio(request: bytes, context: Any) -> bytes:
        in_task = await asyncio.create_task(asyncio.sleep(0, who()))
        return b",".join([in_task, await asyncio.to_thread(who)])

    def sync(request: bytes, context: Any) -> bytes:
        with ThreadPoolExecutor(1) as pool:
            copied = pool.submit(contextvars.copy_context().run, who).result()
            bare = pool.submit(who).result()
        return b",".join([copied, bare])

    verifier, token = Verifier(issuer.trusted()), issuer.mint()
    for stack, handler, expected in (
        ("aio", aio, b"alice,alice"),
        ("sync", sync, b"alice,nobody"),
        ("aio", sync, b"alice,nobody"),
    ):
        method = grpc.unary_unary_rpc_method_handler(handler)
        target = await serve(stack, {"unary_unary": method}, verifier)
        assert await call(target, "unary_unary", token) == [expected]


async def test_a_plain_function_on_aio_runs_in_a_thread_and_sees_its_caller_there(
    serve: Any, call: Any, issuer: InMemoryIssuer
) -> None:
    threads = set()

    def plain(request: bytes, context: Any) -> bytes:
        threads.add(threading.current_thread())
        return who()

    target = await serve(
        "aio", {"unary_unary": grpc.unary_unary_rpc_method_handler(plain)}, Verifier(issuer.trusted())
    )
    assert await call(target, "unary_unary", issuer.mint(subject="bob")) == [b"bob"]
    assert threads
    assert threading.main_thread() not in threads


class Signing(grpc.aio.ServerInterceptor):
    """An interceptor of somebody else, behind ours."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        SEEN.append(who())
        return await continuation(details)


SEEN: list[bytes] = []


async def test_an_interceptor_behind_ours_and_its_handler_know_the_caller(issuer: InMemoryIssuer) -> None:
    from grpc_identity.aio import AuthInterceptor

    SEEN.clear()
    server = grpc.aio.server(
        interceptors=[AuthInterceptor(Verifier(issuer.trusted())), Signing()],
        options=[("grpc.so_reuseport", 0)],
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.S", async_handlers()),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary("/t.S/unary_unary")
        with pytest.raises(grpc.aio.AioRpcError):
            await method(b"")
        assert await method(b"", metadata=(("authorization", f"Bearer {issuer.mint()}"),)) == b"alice"
    await server.stop(None)
    assert SEEN == [b"alice"]  # nothing is done for strangers


async def test_the_caller_is_no_attribute_of_the_context_which_takes_none_on_aio(
    serve: Any, call: Any, issuer: InMemoryIssuer
) -> None:
    async def on_aio(request: bytes, context: Any) -> bytes:
        with pytest.raises(AttributeError):
            context.principal = "somebody"
        return who()

    def on_sync(request: bytes, context: Any) -> bytes:
        # Where attributes are taken, one that a handler sets itself changes nothing about who calls.
        context.principal = "somebody"
        return who()

    for stack, handler in (("aio", on_aio), ("sync", on_sync)):
        handlers = {"unary_unary": grpc.unary_unary_rpc_method_handler(handler)}
        target = await serve(stack, handlers, Verifier(issuer.trusted()))
        assert await call(target, "unary_unary", issuer.mint(subject="alice")) == [b"alice"]
