"""What two looks at ``/metrics`` say together: increases, rates, quantiles. Pure; ``identity top`` draws it.

Rules are those of Prometheus: a counter that has fallen was reset and counts from zero, a quantile is interpolated
within its bucket. Unlike there, a series that appears between two looks counts in full: the process was looked at
before, and had counted nothing there.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]
Chooses = Callable[[Labels], bool]
# One series: label names and values, sorted.
Series = tuple[tuple[str, str], ...]


class NotMetricsError(ValueError):
    """The text is not what a ``/metrics`` page has."""


@dataclass(frozen=True, slots=True)
class Look:
    """One page, read at ``at`` (monotonic seconds): the value of each series, by the name of its samples."""

    at: float
    samples: Mapping[str, Mapping[Series, float]]

    @classmethod
    def read(cls, text: str, at: float) -> Look:
        """Reads the text format. Raises ``NotMetricsError``."""
        samples: defaultdict[str, dict[Series, float]] = defaultdict(dict)
        try:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    samples[sample.name][tuple(sorted(sample.labels.items()))] = float(sample.value)
        except (ValueError, KeyError, IndexError) as error:
            raise NotMetricsError("not a page of metrics") from error
        if not samples:
            raise NotMetricsError("a page without any metric")
        return cls(at, dict(samples))

    def of(self, name: str) -> Iterator[tuple[Labels, float]]:
        """The series of that name; those whose value is no number, or without end, left out."""
        for series, value in self.samples.get(name, {}).items():
            if math.isfinite(value):
                yield dict(series), value

    def values(self, name: str) -> Sequence[float]:
        """Their values."""
        return [value for _, value in self.of(name)]


@dataclass(frozen=True, slots=True)
class Interval:
    """Two looks at one process, the later one last."""

    earlier: Look
    later: Look

    @property
    def seconds(self) -> float:
        """How far apart they are."""
        return self.later.at - self.earlier.at

    def increases(self, name: str) -> Iterator[tuple[Labels, float]]:
        """By how much each series of a counter has grown."""
        before = self.earlier.samples.get(name, {})
        for series, value in self.later.samples.get(name, {}).items():
            was = before.get(series, 0.0)
            grown = value if value < was else value - was
            if math.isfinite(grown):
                yield dict(series), grown


def every(labels: Labels) -> bool:
    """Chooses every series."""
    del labels
    return True


def rates(
    intervals: Sequence[Interval], name: str, *by: str, where: Chooses = every
) -> Mapping[tuple[str, ...], float]:
    """Increases per second of all processes together, by the values of the labels ``by``."""
    found_rates: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for interval in intervals:
        if interval.seconds <= 0:
            continue
        for found, grown in interval.increases(name):
            if where(found):
                found_rates[tuple(found.get(label, "") for label in by)] += grown / interval.seconds
    return dict(found_rates)


def quantiles(
    intervals: Sequence[Interval], name: str, wanted: Sequence[float], where: Chooses = every
) -> Sequence[float | None]:
    """Of what a histogram has observed in these intervals; ``None`` where it has observed nothing."""
    buckets: defaultdict[float, float] = defaultdict(float)
    for interval in intervals:
        for found, grown in interval.increases(f"{name}_bucket"):
            bound = _bound(found.get("le", ""))
            if not math.isnan(bound) and where(found):
                buckets[bound] += grown
    return [quantile(each, buckets) for each in wanted]


def quantile(wanted: float, buckets: Mapping[float, float]) -> float | None:
    """As PromQL's ``histogram_quantile`` has it. ``buckets``: counts up to each bound, cumulative.

    >>> quantile(0.5, {0.1: 10.0, 0.2: 20.0, math.inf: 20.0})
    0.1
    """
    bounds = sorted(buckets)
    total = buckets.get(math.inf, 0.0)
    if total <= 0:
        return None
    rank = wanted * total
    below, floor = 0.0, 0.0
    for bound in bounds:
        count = max(buckets[bound], below)
        if count >= rank and count > below:
            # Beyond the last finite bound nothing is known but that.
            return floor if math.isinf(bound) else floor + (bound - floor) * (rank - below) / (count - below)
        below, floor = count, bound
    return floor


def _bound(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
