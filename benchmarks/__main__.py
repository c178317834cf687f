"""``python -m benchmarks``: interleaved rounds, medians, a table, and the figures as JSON.

Each case is a server process of its own (one worker). In each round every case answers the same number
of calls at the same concurrency, one case after the other, so that a machine whose speed drifts slows all of them
alike; a case's ratio is taken against the bare echo of its own stack in its own round. What is counted is the CPU time of the
case's process, and of Envoy's where it stands before it: not Valkey's, not that of the load generator.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
from pathlib import Path

import uvloop

from benchmarks import revocation
from benchmarks.cases import CASES, Case, chosen_cases, is_chosen, running_cases
from benchmarks.load import Measurement, measure
from benchmarks.memory import FIGURES, measure_memory
from benchmarks.report import Result, as_json, print_memory, print_revocation, print_table, summarise
from grpc_identity._version import __version__


def main() -> None:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25, help="counted rounds (default 25)")
    parser.add_argument(
        "--calls", type=int, default=1000, help="calls a case answers in a round (default 1000)"
    )
    parser.add_argument("--concurrency", type=int, default=32, help="calls under way at a time (default 32)")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results.json", help="JSON file"
    )
    parser.add_argument("--only", nargs="*", default=[], help="names of cases and figures, * fits any text")
    parser.add_argument("--check", action="store_true", help="fail where a ratio is above what is promised")
    arguments = parser.parse_args()
    cases = chosen_cases(arguments.only)
    figures = [figure for figure in FIGURES if is_chosen(figure.name, arguments.only)]
    with_revocation = is_chosen(revocation.NAME, arguments.only)
    if not cases and not figures and not with_revocation:
        names = (*(item.name for item in (*CASES, *FIGURES)), revocation.NAME)
        parser.error(f"nothing fits; there are: {' '.join(names)}")
    results = (
        uvloop.run(_run(cases, arguments.rounds, arguments.calls, arguments.concurrency)) if cases else []
    )
    memory = measure_memory(figures)
    latency = revocation.measure_revocation() if with_revocation else {}
    if results:
        print_table(results, arguments.concurrency)
    print_memory(memory)
    print_revocation(latency)
    arguments.output.write_text(
        json.dumps(
            as_json(results)
            | {
                "memory": memory,
                "revocation": latency,
                "version": __version__,
                "python": platform.python_version(),
                "cores": os.cpu_count(),
                "rounds": arguments.rounds,
                "calls_per_round": arguments.calls,
                "concurrency": arguments.concurrency,
            },
            indent=2,
        )
        + "\n"
    )
    print(f"\nwritten to {arguments.output}")
    if arguments.check and not all(result.keeps_promise for result in results):
        raise SystemExit("a ratio is above what is promised")


async def _run(chosen: list[Case], rounds: int, calls: int, concurrency: int) -> list[Result]:
    measured: dict[str, list[Measurement]] = {case.name: [] for case in chosen}
    async with running_cases(chosen) as running:
        for number in range(-1, rounds):  # the first round warms up and is not counted
            for case in running:
                await case.prepare()
                measurement = await measure(case, calls, concurrency)
                if number >= 0:
                    measured[case.case.name].append(measurement)
            await asyncio.to_thread(print, "." if number >= 0 else "warm-up", end=" ", flush=True)
    return summarise(chosen, measured)


if __name__ == "__main__":
    main()
