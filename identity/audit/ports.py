"""How other parts hand in events that go with no change of state."""

from __future__ import annotations

from typing import Protocol

from identity.audit.event import Event


class EventRecorder(Protocol):
    """Takes events without making the caller wait for the store."""

    def record(self, event: Event) -> None:
        """Queues an event for the outbox; bounded, and counts what had to be folded."""
        ...
