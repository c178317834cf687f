"""Calls by method and status, and refreshes by verdict, for Prometheus. One dictionary look-up a call."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter

from identity.store.ports import SpendVerdict


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


class RefreshMetrics:
    """Counts what became of presented refresh tokens."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = Counter(
            "identity_refreshes",
            "Refresh tokens presented, by verdict. REPORTED is a reuse that the client's policy lets live; RECOVERED says that "
            "the store has lost writes.",
            labelnames=("verdict",),
            registry=registry,
        )
        self._children = {verdict: counter.labels(verdict.value) for verdict in SpendVerdict}

    def count(self, verdict: SpendVerdict) -> None:
        """One more of these."""
        self._children[verdict].inc()
