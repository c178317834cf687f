"""Where events go. A sink acknowledges what it has for good; the relay removes only that from the outbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from identity.audit.event import RecordedEvent


class AuditSink(Protocol):
    """A backend for events."""

    async def deliver(self, events: Sequence[RecordedEvent]) -> bool:
        """``True`` when the backend has acknowledged all of them; ``False``: none may be removed, try again.

        Delivering an event twice must do no harm: its id is the same both times.
        """
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...
