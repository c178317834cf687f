"""Calls by method and status, for Prometheus. One dictionary look-up a call."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter


class CallMetrics:
    """Counts answered calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = Counter(
            "identity_rpc_calls", "Calls answered.", labelnames=("method", "code"), registry=registry
        )
        self._children: dict[tuple[str, str], Counter] = {}

    def counter(self, method: str) -> Callable[[str], None]:
        """Counts calls of one method by the name of their status code."""

        def count(code: str) -> None:
            child = self._children.get((method, code))
            if child is None:
                child = self._children[(method, code)] = self._calls.labels(method, code)
            child.inc()

        return count
