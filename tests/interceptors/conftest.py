"""Guarded servers of both stacks on real sockets, callers of them, and a verifier that can revoke without a server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
import pytest_asyncio
from loops import pytest_asyncio_loop_factories

from grpc_identity import Policy, Verifier
from grpc_identity.aio import AuthInterceptor as AioAuthInterceptor
from grpc_identity.sync import AuthInterceptor
from grpc_identity.testing import InMemoryIssuer

__all__ = ["pytest_asyncio_loop_factories"]


class RevocableVerifier(Verifier):
    """A verifier whose one issuer can revoke, without a server."""

    def __init__(self, issuer: InMemoryIssuer, **options: Any) -> None:
        super().__init__(issuer.trusted(), **options)
        self._issuer_in_memory = issuer

    def revoke(self, session_id: str) -> None:
        """Ends the tokens and the calls of a session."""
        self._issuer_in_memory.revoke(session_id=session_id)


@pytest.fixture
def revocable() -> type[RevocableVerifier]:
    """The class of such verifiers."""
    return RevocableVerifier


@pytest.fixture
def issuer() -> InMemoryIssuer:
    """An issuer for the audience ``orders``."""
    return InMemoryIssuer(audience="orders")


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Starts a guarded server of either stack with these handlers of the service ``t.S``, and returns its address."""
    ends: list[Callable[[], Awaitable[None]]] = []

    async def start(
        stack: str,
        handlers: Any,
        verifier: Verifier,
        policy: Policy | None = None,
        *,
        threads: int = 8,
        port: int = 0,
        **options: Any,
    ) -> str:
        pool = ThreadPoolExecutor(threads)
        generic = [handlers] if not isinstance(handlers, list) else handlers
        if isinstance(handlers, dict):
            generic = [grpc.method_handlers_generic_handler("t.S", handlers)]
        one_server_a_port = [("grpc.so_reuseport", 0)]
        server: Any
        if stack == "sync":
            server = grpc.server(
                pool, interceptors=[AuthInterceptor(verifier, policy, **options)], options=one_server_a_port
            )
        else:
            server = grpc.aio.server(
                pool,
                interceptors=[AioAuthInterceptor(verifier, policy, **options)],
                options=one_server_a_port,
            )
        server.add_generic_rpc_handlers(tuple(generic))
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        started = server.start()
        if started is not None:
            await started

        async def end() -> None:
            ending = server.stop(0)
            if stack == "sync":
                await asyncio.to_thread(ending.wait)
            else:
                await ending
            pool.shutdown(wait=False)

        ends.append(end)
        return f"127.0.0.1:{port}"

    yield start
    for end in ends:
        await end()


Call = Callable[..., Awaitable[list[bytes]]]


class _Requests:
    """No generator: one that waits cannot be closed when the loop is."""

    def __init__(self, *, is_silent: bool) -> None:
        self._is_silent = is_silent
        self._left = [b"2", b"1"]

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> bytes:
        if self._is_silent:
            await asyncio.Event().wait()
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


@pytest.fixture
def call() -> Call:
    """Makes one call and returns its answers. Of a stream of requests two are sent; none if ``is_silent``, since a
    client that is refused while it writes may report INTERNAL in place of the status it was sent (grpc/grpc#36066).
    """

    async def make(
        target: str,
        kind: str,
        token: str | None,
        *,
        path: str = "",
        is_silent: bool = False,
        seconds: float = 20,
    ) -> list[bytes]:
        metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        async with grpc.aio.insecure_channel(target) as channel:
            multi = getattr(channel, kind)(path or f"/t.S/{kind}")
            argument = b"1" if kind.startswith("unary") else _Requests(is_silent=is_silent)
            started = multi(argument, metadata=metadata, timeout=seconds)
            if kind.endswith("unary"):
                return [await started]
            return [answer async for answer in started]

    return make


class Document:
    """What a real HTTP server on loopback answers, and how often it was asked."""

    def __init__(self, issuer: InMemoryIssuer) -> None:
        self.body = json.dumps(issuer.jwks()).encode()
        self.status = 200
        self.headers: dict[str, str] = {}
        self.requests = 0
        self.hold = threading.Event()
        self.hold.set()
        self.url = ""


@pytest.fixture
def document(issuer: InMemoryIssuer) -> Iterator[Document]:
    """The keys of the issuer at a URL."""
    served = Document(issuer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests += 1
            served.hold.wait(10)
            body = b"" if served.status == 304 else served.body
            self.send_response(served.status)
            for name, value in served.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/jwks.json"
    yield served
    served.hold.set()
    server.shutdown()
    thread.join()
    server.server_close()
