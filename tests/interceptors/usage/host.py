"""A host to be killed: an echo that records each use, and the tokens to call it with, told as JSON on its first line."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from typing import Any

import grpc

import grpc_identity.aio
import grpc_identity.sync
from grpc_identity import Policy, UsageAudit, UsageRecorder, Verifier
from grpc_identity.testing import InMemoryIssuer

METHODS = {"Use": UsageAudit.USE, "Must": UsageAudit.MUST}
STREAM = "Watch"


def main() -> None:
    """``stack target secret directory round tokens``"""
    stack, target, secret, directory, turn, tokens = sys.argv[1:]
    issuer = InMemoryIssuer(audience="orders")
    verifier = Verifier(issuer.trusted())
    policy = Policy()
    for method, audit in METHODS.items():
        policy.require(f"/t.Host/{method}", audit=audit)
    policy.require(f"/t.Host/{STREAM}", audit=UsageAudit.USE)
    usage = UsageRecorder(
        target, client_id="orders", client_secret=secret, directory=directory, linger_seconds=0.02
    )
    usage.start()
    subjects = [f"{turn}-{number}" for number in range(int(tokens))]
    said = {"tokens": {subject: issuer.mint(subject=subject) for subject in subjects}}
    if stack == "aio":
        asyncio.run(_serve_aio(said, grpc_identity.aio.AuthInterceptor(verifier, policy, usage=usage)))
    else:
        _serve_sync(said, grpc_identity.sync.AuthInterceptor(verifier, policy, usage=usage))


async def _serve_aio(said: dict[str, Any], interceptor: Any) -> None:
    async def echo(request: bytes, context: Any) -> bytes:
        await asyncio.sleep(0)
        return request

    async def watch(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"news"
        await asyncio.Event().wait()

    server = grpc.aio.server(interceptors=[interceptor], options=[("grpc.so_reuseport", 0)])
    said["port"] = _listen(server, echo, watch)
    await server.start()
    print(json.dumps(said), flush=True)
    await server.wait_for_termination()


def _serve_sync(said: dict[str, Any], interceptor: Any) -> None:
    def echo(request: bytes, context: Any) -> bytes:
        return request

    def watch(request: bytes, context: Any) -> Iterator[bytes]:
        for _ in range(3):
            yield b"news"
        threading.Event().wait()

    server = grpc.server(
        futures.ThreadPoolExecutor(8), interceptors=[interceptor], options=[("grpc.so_reuseport", 0)]
    )
    said["port"] = _listen(server, echo, watch)
    server.start()
    print(json.dumps(said), flush=True)
    server.wait_for_termination()


def _listen(server: Any, echo: Any, watch: Any) -> int:
    handlers = {method: grpc.unary_unary_rpc_method_handler(echo) for method in METHODS}
    handlers[STREAM] = grpc.unary_stream_rpc_method_handler(watch)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Host", handlers),))
    return int(server.add_insecure_port("127.0.0.1:0"))


if __name__ == "__main__":
    main()
