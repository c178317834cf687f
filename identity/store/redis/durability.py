"""How much of a store may die before an acknowledged write is lost.

A replica answers for what it has received, a disk for what was synced; both are asked on the connection that has just
written (``WAIT``, ``WAITAOF``), once for all calls that share a round trip. A call whose write is not as durable in time
as it has to be is not acknowledged: its caller hears ``STORE_UNAVAILABLE`` and repeats it, with its idempotency key.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Durability(IntEnum):
    """The greater, the more survives."""

    NONE = 0
    """The primary's memory. What it has not passed on is lost with it."""
    REPLICA = 1
    """The memory of one replica, too."""
    DISK = 2
    """The primary's disk, too (``appendonly yes``)."""

    @classmethod
    def named(cls, name: str) -> Durability:
        """As the settings name it."""
        return cls[name.upper()]

    def question(self, timeout_ms: int) -> tuple[str | int, ...] | None:
        """The command that waits for it; ``None`` where nothing has to be waited for."""
        match self:
            case Durability.NONE:
                return None
            case Durability.REPLICA:
                return ("WAIT", 1, timeout_ms)
            case Durability.DISK:
                return ("WAITAOF", 1, 0, timeout_ms)

    def is_reached(self, answer: Any) -> bool:
        """Whether the answer to ``question`` says so. An error does not."""
        match self:
            case Durability.NONE:
                return True
            case Durability.REPLICA:
                return isinstance(answer, int) and answer >= 1
            case Durability.DISK:
                return isinstance(answer, list) and bool(answer) and answer[0] >= 1
