"""PromQL over the table of instruments: a name or a label that is not there cannot be written."""

from __future__ import annotations

from collections.abc import Sequence

from identity.telemetry.instruments import Instrument, Kind, label_of

# Of the scraped process, in every series.
TARGET_LABELS = ("job", "instance")
CHOSEN = 'job=~"$job", instance=~"$instance"'

Where = tuple[str, str, str]
"""Attribute, operator, value: ``("rpc.method", "!~", ".*/Watch.*")``."""


def rate(instrument: Instrument, *by: str, where: Sequence[Where] = (), suffix: str = "") -> str:
    """Increases per second, summed. ``suffix``: ``_count`` or ``_sum`` of a histogram."""
    return _aggregated("sum", by, instrument, f"rate({_series(instrument, where, suffix)}[$__rate_interval])")


def increase(instrument: Instrument, *by: str, window: str, where: Sequence[Where] = ()) -> str:
    """Increases over a window, summed."""
    return _aggregated("sum", by, instrument, f"increase({_series(instrument, where)}[{window}])")


def value(combine: str, instrument: Instrument, *by: str, where: Sequence[Where] = ()) -> str:
    """A gauge, over processes. Those that all read off one store are combined by ``max``."""
    return _aggregated(combine, by, instrument, _series(instrument, where))


def quantile(share: float, instrument: Instrument, *by: str, where: Sequence[Where] = ()) -> str:
    """Of a histogram, in its unit."""
    buckets = f"rate({_series(instrument, where, '_bucket')}[$__rate_interval])"
    return f"histogram_quantile({share:g}, {_aggregated('sum', (*by, 'le'), instrument, buckets)})"


def _aggregated(combine: str, by: Sequence[str], instrument: Instrument, inner: str) -> str:
    labels = ", ".join(_label(instrument, name) for name in by)
    return f"{combine} by ({labels}) ({inner})" if labels else f"{combine}({inner})"


def _series(instrument: Instrument, where: Sequence[Where], suffix: str = "") -> str:
    if (instrument.kind is Kind.HISTOGRAM) is not bool(suffix):
        raise ValueError(f"{instrument.name} is queried as another kind than it is")
    chosen = "".join(f', {_label(instrument, name)}{operator}"{text}"' for name, operator, text in where)
    return f"{instrument.prometheus_name}{suffix}{{{CHOSEN}{chosen}}}"


def _label(instrument: Instrument, name: str) -> str:
    if name in TARGET_LABELS or (name == "le" and instrument.kind is Kind.HISTOGRAM):
        return name
    if name not in instrument.attributes:
        raise ValueError(f"{instrument.name} has no attribute {name}")
    return label_of(name)
