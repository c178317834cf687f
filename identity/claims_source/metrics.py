"""Questions to the claims source, counted."""

from __future__ import annotations

from identity.claims_source.ports import Failure, Occasion
from identity.telemetry.instruments import CLAIMS_CIRCUIT_OPEN, CLAIMS_DURATION, CLAIMS_QUESTIONS
from identity.telemetry.meters import Meters

ACTIVE, DISABLED = "active", "disabled"
OUTCOMES = (ACTIVE, DISABLED, *(failure.value for failure in Failure))


class SourceMetrics:
    """``circuit_open`` counts among the outcomes what was not even asked; ``seconds`` is of what was."""

    def __init__(self, meters: Meters) -> None:
        questions = meters.counter(CLAIMS_QUESTIONS)
        # All of them from the start: a rate needs a zero to rise from.
        self._questions = {
            (occasion, outcome): questions.labels(occasion.value, outcome)
            for occasion in Occasion
            for outcome in OUTCOMES
        }
        self._seconds = meters.histogram(CLAIMS_DURATION)
        self._is_open = False
        meters.observe_one(CLAIMS_CIRCUIT_OPEN, lambda: float(self._is_open))

    def outcome(self, occasion: Occasion, outcome: str) -> None:
        """Counts a question."""
        self._questions[occasion, outcome].inc()

    def took(self, seconds: float) -> None:
        """Notes how long one took that was asked."""
        self._seconds.observe(seconds)

    def circuit(self, *, is_open: bool) -> None:
        """Notes the state of the circuit."""
        self._is_open = is_open
