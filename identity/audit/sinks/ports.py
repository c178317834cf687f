"""Where events go. A sink acknowledges what it has for good; the relay moves on after that only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from identity.audit.chain import ChainedEvent


@dataclass(frozen=True, slots=True)
class Delivered:
    """The backend has every event for good, but those that it will never take: event id to what it has said of it.

    What it has said may be shown to operators; it has no more than ``MAX_REFUSAL_CHARS``.
    """

    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Undelivered:
    """None may count as delivered: the backend is away, or does not want them now. ``retry_after_seconds``: if it has said when."""

    problem: str
    retry_after_seconds: float | None = None


MAX_REFUSAL_CHARS = 200
Delivery = Delivered | Undelivered


class AuditSink(Protocol):
    """A backend for events. ``name`` is that of its cursor, and of the chain that it gets."""

    @property
    def name(self) -> str:
        """As the settings have it: ``otlp``, ``file``, ``syslog``."""
        ...

    async def deliver(self, events: Sequence[ChainedEvent]) -> Delivery:
        """In the order given. Delivering an event twice must do no harm: its id is the same both times.

        May take as long as it likes; the relay gives up on it after a while and asks again.
        """
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...
