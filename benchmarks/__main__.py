"""``python -m benchmarks``: interleaved rounds, medians, a table, and the figures as JSON.

Each case is a server process of its own (one worker). In each round every case answers the same number
of calls at the same concurrency, one case after the other and in another order each time, so that a machine whose speed
drifts slows all of them alike; a case's ratio is taken against the bare echo of its own stack in its own round. After some
rounds all processes are started anew: where a process's code and data happen to lie is worth some hundredths. What is
counted is the CPU time of the case's process, and of Envoy's where it stands before it: not Valkey's, not that of the load
generator.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
from pathlib import Path

import uvloop

from benchmarks import audit, distance, revocation, signing
from benchmarks.cases import CASES, Case, chosen_cases, is_chosen, running_cases
from benchmarks.load import Measurement, measure
from benchmarks.memory import FIGURES, measure_memory
from benchmarks.report import (
    Result,
    as_json,
    print_distance,
    print_memory,
    print_relay,
    print_revocation,
    print_signing,
    print_table,
    summarise,
)
from grpc_identity._version import __version__


def main() -> None:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=32, help="counted rounds (default 32)")
    parser.add_argument(
        "--fleets", type=int, default=4, help="how often all processes are started (default 4)"
    )
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
    with_distance = is_chosen(distance.NAME, arguments.only)
    with_signing = is_chosen(signing.NAME, arguments.only)
    with_relay = is_chosen(audit.NAME, arguments.only)
    if not (cases or figures or with_revocation or with_distance or with_signing or with_relay):
        others = (revocation.NAME, distance.NAME, signing.NAME, audit.NAME)
        names = (*(item.name for item in (*CASES, *FIGURES)), *others)
        parser.error(f"nothing fits; there are: {' '.join(names)}")
    results = uvloop.run(_run(cases, arguments)) if cases else []
    memory = measure_memory(figures)
    latency = revocation.measure_revocation() if with_revocation else {}
    far = distance.measure_distance() if with_distance else {}
    signatures = signing.measure_signing() if with_signing else {}
    relay = audit.measure_relay() if with_relay else {}
    if results:
        print_table(results, arguments.concurrency)
    print_memory(memory)
    print_revocation(latency)
    print_distance(far)
    print_signing(signatures)
    print_relay(relay)
    arguments.output.write_text(
        json.dumps(
            as_json(results)
            | {
                "memory": memory,
                "revocation": latency,
                "distance": far,
                "signing": signatures,
                "relay": relay,
                "version": __version__,
                "python": platform.python_version(),
                "cores": os.cpu_count(),
                "rounds": arguments.rounds,
                "fleets": arguments.fleets,
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


async def _run(chosen: list[Case], how: argparse.Namespace) -> list[Result]:
    measured: dict[str, list[Measurement]] = {case.name: [] for case in chosen}
    for fleet in range(how.fleets):
        async with running_cases(chosen) as running:
            for case in running:  # warms up, and is not counted
                await case.prepare()
                await measure(case, how.calls, how.concurrency)
            for _ in range(fleet, how.rounds, how.fleets):
                for case in random.sample(running, len(running)):
                    await case.prepare()
                    measured[case.case.name].append(await measure(case, how.calls, how.concurrency))
                await asyncio.to_thread(print, ".", end=" ", flush=True)
    return summarise(chosen, measured)


if __name__ == "__main__":
    main()
