"""What a verifier has decided, in plain numbers, so that counting costs next to nothing; ``telemetry`` reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

__all__ = ["Tally"]


class Tally:
    """``remembered``: tokens seen before; ``unseen``: tokens verified in full; ``admitted``: calls let in;
    ``refused``: calls refused, by reason. Decisions are made by one thread a server, so nothing is locked."""

    __slots__ = ("admitted", "on_verified", "refused", "remembered", "unseen")

    def __init__(self) -> None:
        self.admitted = 0
        self.remembered = 0
        self.unseen = 0
        self.refused: Counter[str] = Counter()
        self.on_verified: Callable[[float], None] | None = None

    def verified(self, seconds: float) -> None:
        """A token was verified in full, and that took so long."""
        self.unseen += 1
        if self.on_verified is not None:
            self.on_verified(seconds)
