"""How events that go with no change of state are handed in, and where all of them wait for the backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from identity.audit.event import Event, RecordedEvent


class EventRecorder(Protocol):
    """Takes events without making the caller wait for the store."""

    def record(self, event: Event) -> None:
        """Queues an event for the outbox; bounded, and counts what had to be folded."""
        ...


class AuditOutbox(Protocol):
    """The events that have happened and are not yet with the backend."""

    async def append(self, events: Sequence[Event]) -> None:
        """Records events that go with no change of state."""
        ...

    async def prepare(self) -> None:
        """Makes reading possible; harmless when repeated."""
        ...

    async def read(self, consumer: str, *, batch: int, wait_ms: int) -> Sequence[RecordedEvent]:
        """New events in the order of their sequence within a bucket; empty when none came in ``wait_ms``.

        An event stays in the outbox, and is owned by ``consumer``, until it is removed.
        """
        ...

    async def take_over(self, consumer: str, *, batch: int, idle_ms: int) -> Sequence[RecordedEvent]:
        """Events somebody has read and left lying for ``idle_ms``."""
        ...

    async def remove(self, events: Sequence[RecordedEvent]) -> None:
        """Forgets events that the backend has acknowledged."""
        ...

    async def depth(self) -> int:
        """How many events wait."""
        ...
