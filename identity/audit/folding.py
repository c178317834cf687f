"""What comes in floods is told one by one at first, then counted, and told as one when a window is over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

MAX_CAUSES = 500
FOLD_BEYOND = 20
FOLD_WINDOW_SECONDS = 10.0
BEYOND = f"beyond the first {FOLD_BEYOND} of {FOLD_WINDOW_SECONDS:.0f} s"

Cause = TypeVar("Cause")


@dataclass(slots=True)
class _Window:
    began: float
    seen: int = 0
    folded: int = 0


class Folding(Generic[Cause]):
    """Of each cause the first ``FOLD_BEYOND`` of a window are told by themselves. ``tell`` gets a cause and how many were counted; causes beyond
    ``MAX_CAUSES`` are all ``other``. ``monotonic`` in seconds."""

    def __init__(
        self, other: Cause, tell: Callable[[Cause, int], None], monotonic: Callable[[], float]
    ) -> None:
        self._other = other
        self._tell = tell
        self._monotonic = monotonic
        self._windows: dict[Cause, _Window] = {}
        self.folded = 0
        """How many were counted since the start."""

    @property
    def is_open(self) -> bool:
        """Whether something may have to be told later."""
        return bool(self._windows)

    def folds(self, cause: Cause, *, always: bool = False) -> bool:
        """Counts one, and says whether it is told with others; with ``always`` it is in any case."""
        window = self._window(cause)
        window.seen += 1
        if not always and window.seen <= FOLD_BEYOND:
            return False
        window.folded += 1
        self.folded += 1
        return True

    def unfold(self, *, everything: bool = False) -> None:
        """Tells what was counted in the windows that are over, or in all."""
        now = self._monotonic()
        for cause, window in list(self._windows.items()):
            if everything or now >= window.began + FOLD_WINDOW_SECONDS:
                del self._windows[cause]
                if window.folded:
                    self._tell(cause, window.folded)

    def _window(self, cause: Cause) -> _Window:
        if cause not in self._windows and len(self._windows) >= MAX_CAUSES:
            cause = self._other
        now = self._monotonic()
        window = self._windows.get(cause)
        if window is None or now >= window.began + FOLD_WINDOW_SECONDS:
            if window is not None and window.folded:
                self._tell(cause, window.folded)
            window = self._windows[cause] = _Window(now)
        return window
