"""Questions to the claims source, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from identity.claims_source.ports import Failure, Occasion

ACTIVE, DISABLED = "active", "disabled"
OUTCOMES = (ACTIVE, DISABLED, *(failure.value for failure in Failure))
_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class SourceMetrics:
    """``circuit_open`` counts among the outcomes what was not even asked; ``seconds`` is of what was."""

    def __init__(self, registry: CollectorRegistry) -> None:
        questions = Counter(
            "identity_claims_source_questions",
            "Questions to the claims source, by what came of them.",
            labelnames=("occasion", "outcome"),
            registry=registry,
        )
        # All of them from the start: a rate needs a zero to rise from.
        self._questions = {
            (occasion, outcome): questions.labels(occasion.value, outcome)
            for occasion in Occasion
            for outcome in OUTCOMES
        }
        self._seconds = Histogram(
            "identity_claims_source_seconds",
            "How long the claims source took to answer, or to fail.",
            buckets=_BUCKETS_SECONDS,
            registry=registry,
        )
        self._circuit_open = Gauge(
            "identity_claims_source_circuit_open",
            "1 while the claims source is left alone because it did not answer.",
            registry=registry,
        )

    def outcome(self, occasion: Occasion, outcome: str) -> None:
        """Counts a question."""
        self._questions[occasion, outcome].inc()

    def took(self, seconds: float) -> None:
        """Notes how long one took that was asked."""
        self._seconds.observe(seconds)

    def circuit(self, *, is_open: bool) -> None:
        """Notes the state of the circuit."""
        self._circuit_open.set(is_open)
