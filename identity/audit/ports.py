"""How events that go with no change of state are handed in, and where all of them wait for the backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from identity.audit.chain import GENESIS, ChainedEvent, ChainHead
from identity.audit.event import Event
from identity.audit.recorded_event import RecordedEvent


class EventRecorder(Protocol):
    """Takes events without making the caller wait for the store."""

    def record(self, event: Event) -> None:
        """Queues an event for the outbox; bounded, and counts what had to be folded."""
        ...


class EventOutbox(Protocol):
    """Takes events that go with no change of state."""

    async def append(self, events: Sequence[Event]) -> Sequence[Event]:
        """Records them; gives back those for which there is no room. Raises ``STORE_UNAVAILABLE``: some may be recorded."""
        ...


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Uses of tokens on servers of the client ``reported_by``, by their rising numbers in the spool that kept them there."""

    reported_by: str
    spool_id: bytes
    uses: Sequence[tuple[int, Event]]


@dataclass(frozen=True, slots=True)
class UsageTaken:
    """How many uses of a report were new, how many were there already, and how many found no room. ``lost``: how many others the
    new ones say are missing."""

    recorded: int
    already_recorded: int
    left: int
    lost: int


class UsageOutbox(Protocol):
    """Takes reports of how tokens were used."""

    async def record_uses(self, report: UsageReport) -> UsageTaken:
        """Records what is not recorded yet, as far as there is room. Raises ``STORE_UNAVAILABLE``: some may be recorded. Whatever
        is left, all of it can be reported again."""
        ...


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a sink has got in a bucket. ``entry`` is the place in the outbox, opaque to all but that."""

    head: ChainHead = GENESIS
    entry: str = ""


@dataclass(frozen=True, slots=True)
class Unread:
    """What a bucket has for a sink, after its cursor; ``entries`` are the events' places, in the same order."""

    bucket: int
    cursor: Cursor
    events: Sequence[RecordedEvent]
    entries: Sequence[str]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a sink will never take, with its place in the chain of that, and what the sink has said."""

    item: ChainedEvent
    problem: str


class LeaseLostError(Exception):
    """Another relay has the bucket now; what was delivered meanwhile is delivered again by that."""


@dataclass(frozen=True, slots=True)
class LiveRelay:
    """A relay that lives, and the sinks that its settings name."""

    name: str
    sinks: tuple[str, ...]


class RelayRoster(Protocol):
    """Knows which relays live."""

    async def living(self) -> Sequence[LiveRelay]:
        """In a stable order. Raises ``STORE_UNAVAILABLE``."""
        ...


class RelayOutbox(Protocol):
    """The events that have happened and are not yet with every sink.

    A bucket is leased to one relay at a time for each sink, so that its events go out in their order.
    """

    async def relays(self, relay: str, sinks: Sequence[str]) -> Sequence[LiveRelay]:
        """Says that ``relay`` lives and relays to these sinks, and names those that live, in a stable order."""
        ...

    async def read(
        self,
        sink: str,
        relay: str,
        buckets: Sequence[int],
        *,
        alive: Sequence[str],
        sinks: Sequence[str],
        batch: int,
    ) -> Sequence[Unread]:
        """Leases these buckets and reads what they have for the sink, up to ``batch`` events of each. What a relay has that
        is not among those ``alive`` is free. Where there is nothing for this sink, events leave as with ``advance``.

        Buckets that another relay has, that have nothing, or whose part of the store is away are not among the answers.
        Raises ``STORE_UNAVAILABLE`` where all of the store is away.
        """
        ...

    async def advance(
        self,
        sink: str,
        relay: str,
        bucket: int,
        cursor: Cursor,
        dead: Sequence[DeadLetter],
        sinks: Sequence[str],
    ) -> None:
        """The sink has everything up to ``cursor`` but the dead letters, which are kept aside and told of in an event.

        Events leave the outbox that every one of ``sinks`` has, and every other that somebody reads for. Raises ``LeaseLostError``, ``AUDIT_UNAVAILABLE`` when there is
        no room for more dead letters, and ``STORE_UNAVAILABLE``.
        """
        ...

    async def release(self, sink: str, relay: str, buckets: Sequence[int]) -> None:
        """Lets others have the buckets at once."""
        ...

    async def leave(self, relay: str) -> None:
        """Says that ``relay`` has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Oldest:
    """The oldest event that waits in a bucket. ``place`` is opaque to all but the outbox; ``age_ms`` is by the store's clock, and says nothing
    where it is below 0: the clock has gone back since."""

    place: str
    age_ms: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits. ``fullest`` is the share of the fullest bucket's room that is taken; 1.0 or more: nothing is issued there.

    ``oldest``: the oldest events, by bucket. ``behind``: events waiting, by sink; ``oldest_of``: the oldest of those, by bucket.
    """

    events: int
    fullest: float
    oldest: Mapping[int, Oldest] = field(default_factory=dict)
    dead_letters: int = 0
    behind: Mapping[str, int] = field(default_factory=dict)
    oldest_of: Mapping[str, Mapping[int, Oldest]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SinkHeads:
    """How far the chain of a sink has got in each bucket; those that never had an event are left out.

    ``until_ms``: everything that was recorded before that moment, by the clock of the store, the sink had then.
    """

    heads: Mapping[int, ChainHead]
    until_ms: int


class OutboxGauge(Protocol):
    """Looks at how much waits."""

    async def backlog(self, sinks: Sequence[str]) -> Backlog:
        """Over all buckets. Raises ``STORE_UNAVAILABLE``."""
        ...

    async def heads(self, sinks: Sequence[str]) -> Mapping[str, SinkHeads]:
        """How far the chain of each sink has got. Raises ``STORE_UNAVAILABLE`` where a bucket cannot be asked."""
        ...


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that is in the outbox. ``place`` is its place in its bucket, opaque to all but that."""

    place: str
    event: RecordedEvent


class OutboxView(Protocol):
    """Looks at the events that wait, and leaves them as they are."""

    async def after(self, places: Mapping[int, str], *, at_most: int) -> Sequence[Waiting]:
        """Those after these places, up to ``at_most`` of each bucket; of a bucket that is not named, from its first.

        By time. Buckets whose part of the store is away are left out. Raises ``STORE_UNAVAILABLE`` where all of it is.
        """
        ...


@dataclass(frozen=True, slots=True)
class KeptLetter:
    """A dead letter as it was kept; ``entry`` is its place, opaque to all but the box."""

    sink: str
    bucket: int
    entry: str
    letter: DeadLetter


class DeadLetterBox(Protocol):
    """Where dead letters are kept until somebody sees to them."""

    async def letters(self) -> Sequence[KeptLetter]:
        """All of them, by bucket, the oldest first. Raises ``STORE_UNAVAILABLE``."""
        ...

    async def remove(self, letters: Sequence[KeptLetter]) -> None:
        """Forgets these. Raises ``STORE_UNAVAILABLE``."""
        ...
