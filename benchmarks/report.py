"""From rounds to a table and to JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from rich.console import Console
from rich.table import Table

from benchmarks.cases import Case
from benchmarks.load import Measurement


@dataclass(frozen=True)
class Result:
    """``ratio`` is all the CPU time of the case to all of its echo's: single rounds of threads come in two kinds, by who wakes
    whom, and a median would jump between them. The quartiles of the rounds tell how much to believe it."""

    case: Case
    cpu_microseconds: float
    ratio: float
    ratio_quartiles: tuple[float, float]
    calls_per_second: float

    @property
    def keeps_promise(self) -> bool:
        """Whether the median is at most what the project promises."""
        return self.case.at_most is None or round(self.ratio, 2) <= self.case.at_most


def summarise(cases: Sequence[Case], measured: Mapping[str, Sequence[Measurement]]) -> list[Result]:
    """Each case against the bare echo of its own stack in its own round."""
    results = []
    for case in cases:
        rounds = measured[case.name]
        ratios = [
            item.cpu_microseconds_per_call / echo.cpu_microseconds_per_call
            for item, echo in zip(rounds, measured[case.baseline], strict=True)
        ]
        results.append(
            Result(
                case=case,
                cpu_microseconds=median(item.cpu_microseconds_per_call for item in rounds),
                ratio=_total(rounds) / _total(measured[case.baseline]),
                ratio_quartiles=_quartiles(ratios),
                calls_per_second=median(item.calls_per_second for item in rounds),
            )
        )
    return results


def _total(rounds: Sequence[Measurement]) -> float:
    return sum(item.cpu_microseconds_per_call for item in rounds)


def _quartiles(ratios: Sequence[float]) -> tuple[float, float]:
    if len(ratios) < 2:
        return ratios[0], ratios[0]
    lower, _, upper = quantiles(ratios, n=4)
    return lower, upper


def print_table(results: Sequence[Result], concurrency: int) -> None:
    """For people."""
    table = Table(title=f"CPU of the server per call, {concurrency} calls under way", title_justify="left")
    table.add_column("case", no_wrap=True)
    for column in ("CPU µs/call", "x bare echo", "middle half", "at most", "calls/s"):
        table.add_column(column, justify="right")
    for result in results:
        table.add_row(
            result.case.label,
            f"{result.cpu_microseconds:.0f}",
            f"{result.ratio:.2f}",
            "{:.2f} … {:.2f}".format(*result.ratio_quartiles),
            _promise(result),
            f"{result.calls_per_second:.0f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print()
    console.print(table)


def print_memory(measured: Mapping[str, Mapping[str, float | str]]) -> None:
    """For people."""
    print()
    for figure in measured.values():
        print(f"{figure['label']}: {figure['mebibytes']} MiB, {figure['bytes_each']} bytes each")


def print_revocation(measured: Mapping[str, float]) -> None:
    """For people."""
    for name, what in (
        ("refused", "to the first refusal"),
        ("waited", "to the answer of Revoke that waits for all"),
    ):
        if f"{name}_p99_ms" in measured:
            print(
                f"a revoked session at 20 verifiers, {what}: p50 {measured[f'{name}_p50_ms']} ms, "
                f"p99 {measured[f'{name}_p99_ms']} ms, slowest {measured[f'{name}_max_ms']} ms"
            )


def print_distance(measured: Mapping[str, float]) -> None:
    """For people."""
    if measured:
        print(
            f"with 20 ms more to the store: {measured['throughput_ratio']} of the refreshes a second, each takes "
            f"{measured['p50_longer_ms']} ms longer at the median and {measured['p99_longer_ms']} ms at the 99th percentile"
        )


def print_signing(measured: Mapping[str, Mapping[str, float]]) -> None:
    """For people."""
    if not measured:
        return
    table = Table(title="A signature, by where the key is", title_justify="left")
    table.add_column("place, algorithm", no_wrap=True)
    for column in ("CPU µs", "CPU µs there", "p50 ms", "p99 ms", "a second, 16 at a time"):
        table.add_column(column, justify="right")
    for name, figures in measured.items():
        table.add_row(name, *(f"{value:g}" for value in figures.values()))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print()
    console.print(table)


def print_relay(measured: Mapping[str, float]) -> None:
    """For people."""
    if measured:
        print(
            f"\nA relay exports {measured['events_per_cpu_second']:,} events per second of CPU "
            f"({measured['cpu_microseconds_per_event']} µs each) and takes {measured['memory_mb']} MB for it."
        )


def _promise(result: Result) -> str:
    if result.case.at_most is None:
        return ""
    return f"{result.case.at_most:.2f} {'kept' if result.keeps_promise else 'BROKEN'}"


def as_json(results: Sequence[Result]) -> dict[str, object]:
    """For machines."""
    return {
        "cases": {
            result.case.name: {
                "label": result.case.label,
                "baseline": result.case.baseline,
                "at_most": result.case.at_most,
                "cpu_microseconds_per_call": round(result.cpu_microseconds, 1),
                "ratio_to_echo": round(result.ratio, 3),
                "ratio_quartiles": [round(quartile, 3) for quartile in result.ratio_quartiles],
                "calls_per_second": round(result.calls_per_second),
            }
            for result in results
        }
    }
