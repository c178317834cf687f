"""The last rounds of ``identity top`` as small pictures. Bounded, however long it runs and whatever servers name."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from identity.cli.top_readings import Reading

POINTS = 30
MAX_TRENDS = 200
_LEVELS = "▁▂▃▄▅▆▇█"


class Trends:
    """Notes the rates of each round; ``line`` draws those of one name."""

    def __init__(self) -> None:
        self._points: dict[tuple[str, str], deque[float]] = {}

    def note(self, reading: Reading) -> None:
        """One more round; the first has no rates yet."""
        if not reading.has_rates:
            return
        self._add("calls", "", reading.calls)
        for method in reading.methods:
            self._add("method", method.name, method.calls)
        for verdict, counted in reading.refreshes.items():
            self._add("refresh", verdict, counted.rate)
        for sink in reading.sinks:
            self._add("sink", sink.name, sink.delivered)

    def line(self, kind: str, name: str = "", *, points: int = POINTS) -> str:
        """Up to so many characters, the newest last; none before there are two."""
        noted = [*self._points.get((kind, name), ())][-points:]
        return sparkline(noted) if len(noted) > 1 else ""

    def _add(self, kind: str, name: str, value: float) -> None:
        points = self._points.get((kind, name))
        if points is None:
            if len(self._points) >= MAX_TRENDS:
                return
            points = self._points[kind, name] = deque(maxlen=POINTS)
        points.append(value)


def sparkline(values: Sequence[float]) -> str:
    """A character a value, as high as it is beside the highest; what is 0 is a line on the ground.

    >>> sparkline([0, 1, 4, 8])
    '▁▂▅█'
    """
    highest = max(values, default=0.0)
    if highest <= 0:
        return _LEVELS[0] * len(values)
    return "".join(
        # What is more than nothing is never drawn as nothing.
        _LEVELS[max(round(value / highest * (len(_LEVELS) - 1)), 1 if value > 0 else 0)]
        for value in values
    )
