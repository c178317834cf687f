"""The load: a fixed number of calls at a fixed concurrency, and what they cost the server's process."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import psutil

from benchmarks.cases import RunningCase


@dataclass(frozen=True)
class Measurement:
    """One round of one case."""

    cpu_microseconds_per_call: float
    calls_per_second: float


async def measure(case: RunningCase, calls: int, concurrency: int) -> Measurement:
    """Makes the calls."""
    process = psutil.Process(case.pid)
    remaining = iter(range(calls))

    async def worker() -> None:
        for _ in remaining:
            await case.call()

    before, started = process.cpu_times(), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    after, seconds = process.cpu_times(), time.perf_counter() - started
    cpu_seconds = after.user + after.system - before.user - before.system
    return Measurement(cpu_seconds / calls * 1e6, calls / seconds)
