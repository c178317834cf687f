"""What two looks at ``/metrics`` say together."""

from __future__ import annotations

import contextlib
import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from identity.cli.top_metrics import Interval, Look, NotMetricsError, quantile, quantiles, rates


def look(at: float, *lines: str) -> Look:
    return Look.read("".join(f"{line}\n" for line in lines), at)


def test_a_rate_is_of_all_processes_together_by_label() -> None:
    first = Interval(
        look(0, 'calls_total{method="A",code="OK"} 10', 'calls_total{method="B",code="OK"} 5'),
        look(2, 'calls_total{method="A",code="OK"} 14', 'calls_total{method="B",code="OK"} 5'),
    )
    second = Interval(
        look(0, 'calls_total{method="A",code="INTERNAL"} 0'),
        look(4, 'calls_total{method="A",code="INTERNAL"} 4'),
    )
    assert rates([first, second], "calls_total") == {(): 3.0}
    assert rates([first, second], "calls_total", "method") == {("A",): 3.0, ("B",): 0.0}
    assert rates([first, second], "calls_total", "method", where=lambda labels: labels["code"] == "OK") == {
        ("A",): 2.0,
        ("B",): 0.0,
    }
    assert rates([first, second], "calls_total", "no_such_label") == {("",): 3.0}


def test_a_counter_that_has_fallen_counts_from_zero() -> None:
    restarted = Interval(look(10, "calls_total 1000"), look(12, "calls_total 6"))
    assert rates([restarted], "calls_total") == {(): 3.0}


def test_a_series_that_appears_counts_in_full_and_one_that_goes_counts_nothing() -> None:
    interval = Interval(look(0, 'c_total{x="gone"} 7'), look(1, 'c_total{x="new"} 3'))
    assert rates([interval], "c_total", "x") == {("new",): 3.0}


def test_nothing_is_known_of_a_missing_metric_or_in_no_time() -> None:
    assert rates([Interval(look(0, "a 1"), look(1, "a 2"))], "b_total") == {}
    assert rates([Interval(look(3, "a_total 1"), look(3, "a_total 2"))], "a_total") == {}
    assert quantiles([], "a_seconds", [0.5]) == [None]
    assert look(0, "a NaN", 'a{x="y"} 2').values("a") == [2.0]


def test_quantiles_are_of_what_was_observed_in_between() -> None:
    registry = CollectorRegistry()
    seconds = Histogram("calls_seconds", ".", ("method",), registry=registry, buckets=(0.1, 0.2, 0.4))

    def page(at: float) -> Look:
        return Look.read(generate_latest(registry).decode(), at)

    for _ in range(100):
        seconds.labels("A").observe(0.35)
    before = page(0)
    assert quantiles([Interval(before, page(1))], "calls_seconds", [0.5]) == [None]
    for _ in range(4):
        seconds.labels("A").observe(0.05)
        seconds.labels("B").observe(9)
    both = [Interval(before, page(1))]
    assert quantiles(both, "calls_seconds", [0.5, 1.0], lambda labels: labels["method"] == "A") == [0.05, 0.1]
    assert quantiles(both, "calls_seconds", [0.25, 0.99]) == [0.05, 0.4]


def test_what_the_library_writes_is_read() -> None:
    registry = CollectorRegistry()
    Counter("odd", "With\nnewline and \\ in it.", ("x",), registry=registry).labels('a"b\\n').inc(2)
    read = Look.read(generate_latest(registry).decode(), 0)
    assert [(labels["x"], value) for labels, value in read.of("odd_total")] == [('a"b\\n', 2.0)]


@pytest.mark.parametrize("text", ["", "<html><body>Not found</body></html>", "a{", 'a{x="} 1', "a b c d e"])
def test_other_pages_are_told_from_metrics(text: str) -> None:
    with pytest.raises(NotMetricsError):
        Look.read(text, 0)


@given(st.text())
def test_no_page_does_worse_than_that(text: str) -> None:
    with contextlib.suppress(NotMetricsError):
        assert Look.read(text, 0).samples


counts = st.lists(st.integers(0, 1000), min_size=2, max_size=8)


@given(counts)
def test_quantiles_rise_and_stay_within_the_finite_bounds(steps: list[int]) -> None:
    bounds = [*(float(at + 1) for at in range(len(steps) - 1)), math.inf]
    buckets = {bound: float(sum(steps[: at + 1])) for at, bound in enumerate(bounds)}
    found = [quantile(each / 20, buckets) for each in range(21)]
    if not sum(steps):
        assert found == [None] * 21
        return
    known = [each for each in found if each is not None]
    assert len(known) == 21
    assert all(0 <= low <= high <= bounds[-2] for low, high in pairwise(known))


def test_what_is_without_end_is_no_value_and_no_increase() -> None:
    strange = Interval(look(0, "a_total +Inf", "b_total 1"), look(1, "a_total +Inf", "b_total +Inf"))
    assert rates([strange], "a_total") == rates([strange], "b_total") == {}
    assert look(0, "a +Inf", 'a{x="y"} -Inf', 'a{x="z"} 2').values("a") == [2.0]
