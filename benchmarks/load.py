"""The load: a fixed number of calls at a fixed concurrency, and what they cost the server's process."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
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
    remaining = iter(range(calls))

    async def worker() -> None:
        for _ in remaining:
            await case.call()

    before, started = cpu_seconds(case.pids), time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    after, seconds = cpu_seconds(case.pids), time.perf_counter() - started
    return Measurement((after - before) / calls * 1e6, calls / seconds)


def cpu_seconds(pids: Sequence[int]) -> float:
    """The CPU time of these processes so far.

    From the clock that Linux keeps for each process, which counts nanoseconds; ``/proc`` counts hundredths of a
    second, a twentieth of what a round takes.
    """
    if sys.platform == "linux":
        # <linux/posix-timers.h>: the clock of a process is its id, inverted, with CPUCLOCK_SCHED in the low bits.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(item.user + item.system for item in times)
