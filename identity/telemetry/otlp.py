"""What the meters hold as OTLP has it: the same numbers that ``/metrics`` shows, under their own names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramPoints
from opentelemetry.sdk.metrics.export import Metric as OtelMetric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from identity.telemetry.instruments import Instrument, Kind, label_of
from identity.telemetry.meters import Meters

SCOPE = "grpc-identity"
_CUMULATIVE = AggregationTemporality.CUMULATIVE


def metrics_data(
    meters: Meters, resource: Resource, version: str, *, began_ns: int, now_ns: int
) -> MetricsData:
    """All that the meters hold at a moment; ``began_ns``: since when they count."""
    metrics = [
        OtelMetric(instrument.name, instrument.description, instrument.unit, data)
        for instrument, metric in meters.collected()
        if (data := _points(instrument, metric, began_ns, now_ns)) is not None
    ]
    scope = ScopeMetrics(InstrumentationScope(SCOPE, version), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _points(
    instrument: Instrument, metric: Metric, began_ns: int, now_ns: int
) -> Sum | Gauge | HistogramPoints | None:
    if instrument.kind is Kind.HISTOGRAM:
        histogram = list(_histogram_points(instrument, metric.samples, began_ns, now_ns))
        return HistogramPoints(histogram, _CUMULATIVE) if histogram else None
    # A gauge has no beginning: it is what it is.
    start_ns = 0 if instrument.kind is Kind.GAUGE else began_ns
    numbers = [
        NumberDataPoint(_attributes(instrument, sample), start_ns, now_ns, sample.value)
        for sample in metric.samples
        if sample.name == instrument.prometheus_name
    ]
    if not numbers:
        return None
    if instrument.kind is Kind.GAUGE:
        return Gauge(numbers)
    return Sum(numbers, _CUMULATIVE, is_monotonic=instrument.kind is Kind.COUNTER)


def _histogram_points(
    instrument: Instrument, samples: Sequence[Sample], began_ns: int, now_ns: int
) -> Iterator[HistogramDataPoint]:
    # Prometheus counts what is up to a bound, OTLP what is between two. Series follow one another, each from its first bucket on.
    base = instrument.prometheus_base
    counts: list[int] = []
    for sample in samples:
        if sample.name == base + "_bucket":
            counts.append(int(sample.value))
        elif sample.name == base + "_sum" and counts:
            yield HistogramDataPoint(
                attributes=_attributes(instrument, sample),
                start_time_unix_nano=began_ns,
                time_unix_nano=now_ns,
                count=counts[-1],
                sum=sample.value,
                bucket_counts=[upto - before for upto, before in zip(counts, [0, *counts[:-1]], strict=True)],
                explicit_bounds=instrument.buckets,
                # Not kept. They are optional in OTLP, which the SDK's types do not say.
                min=None,  # type: ignore[arg-type]
                max=None,  # type: ignore[arg-type]
            )
            counts = []


def _attributes(instrument: Instrument, sample: Sample) -> Mapping[str, str]:
    """Under their own names; one that does not apply is empty for Prometheus, and not there for OTLP."""
    return {name: value for name in instrument.attributes if (value := sample.labels[label_of(name)])}
