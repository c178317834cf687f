"""Where measurements are kept until somebody asks for them: Prometheus scrapes them, OTLP pushes the same numbers.

Counters and histograms are prometheus_client's, and cost a call a fraction of what the SDK's cost (docs/decisions/0021). What can be
looked at is not counted: it is observed at the moment of the question, from what the process has in memory, so that asking
waits for nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from identity.telemetry.instruments import Instrument, Kind

Labels: TypeAlias = tuple[str, ...]
Observation: TypeAlias = Callable[[], Mapping[Labels, float]]
"""What is so now: a number for each combination of attributes, in the order that the instrument has them."""

_log = logging.getLogger(__name__)


class Meters:
    """The instruments of one process. ``registry`` is what ``/metrics`` shows."""

    def __init__(self) -> None:
        # When a series began is told to OTLP; to Prometheus it would be as many series again, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=False)
        self._collectors: dict[Instrument, Collector] = {}

    def counter(self, instrument: Instrument) -> Counter:
        """Where to count. Each instrument is asked for once."""
        counter = Counter(
            instrument.prometheus_base, instrument.description, instrument.labels, registry=self.registry
        )
        self._collectors[instrument] = counter
        return counter

    def histogram(self, instrument: Instrument) -> Histogram:
        """Where to note how long something took, in seconds."""
        histogram = Histogram(
            instrument.prometheus_base,
            instrument.description,
            instrument.labels,
            buckets=instrument.buckets,
            registry=self.registry,
        )
        self._collectors[instrument] = histogram
        return histogram

    def observe(self, instrument: Instrument, observation: Observation) -> None:
        """Has it looked at whenever somebody asks."""
        observed = _Observed(instrument, observation)
        self._collectors[instrument] = observed
        self.registry.register(observed)

    def observe_one(self, instrument: Instrument, observation: Callable[[], float | None]) -> None:
        """The same for an instrument without attributes; ``None``: there is nothing to tell."""

        def labelled() -> Mapping[Labels, float]:
            value = observation()
            return {} if value is None else {(): value}

        self.observe(instrument, labelled)

    def collected(self) -> Iterator[tuple[Instrument, Metric]]:
        """What is so now, of every instrument that is in use."""
        for instrument, collector in list(self._collectors.items()):
            for metric in collector.collect():
                yield instrument, metric


class _Observed(Collector):
    def __init__(self, instrument: Instrument, observation: Observation) -> None:
        self._instrument = instrument
        self._observation = observation

    def describe(self) -> Iterable[Metric]:
        """Its name, so that no other takes it."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """The family of its series. What cannot be found out is left out: the others are still of use."""
        family = self._family()
        try:
            seen = self._observation()
        except Exception:
            _log.exception("%s could not be observed", self._instrument.name)
            return []
        for labels, value in seen.items():
            family.add_metric(labels, value)
        return [family]

    def _family(self) -> CounterMetricFamily | GaugeMetricFamily:
        of_kind = CounterMetricFamily if self._instrument.kind is Kind.COUNTER else GaugeMetricFamily
        return of_kind(
            self._instrument.prometheus_base, self._instrument.description, labels=self._instrument.labels
        )
