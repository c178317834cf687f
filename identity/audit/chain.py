"""The chain that proves a range of exported events complete and unaltered.

Each bucket has one for each sink, over the events in the order in which that sink got them::

    digest(event) = SHA-256(canonical form of the event)
    link(event)   = SHA-256(link of the event before || digest(event))

The first link follows 32 zero bytes. An event is exported with its own link and the one before, so that whoever holds two
neighbours can see that nothing is missing between them, and whoever holds one link that was signed (a checkpoint) can see
that everything before it is as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from identity.audit.recorded_event import RecordedEvent, canonical

DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class ChainHead:
    """How far a chain has got: the last event in it, and its link."""

    sequence: int = 0
    link: bytes = bytes(DIGEST_BYTES)


GENESIS = ChainHead()


@dataclass(frozen=True, slots=True)
class ChainedEvent:
    """An event with its place in the chain; ``canonical`` is what its digest is made of."""

    event: RecordedEvent
    canonical: bytes
    previous: bytes
    link: bytes

    @property
    def digest(self) -> bytes:
        """What stands for the event in the link."""
        return sha256(self.canonical).digest()


def link_after(previous: bytes, digest: bytes) -> bytes:
    """The next link of a chain."""
    return sha256(previous + digest).digest()


def digest_of(event: RecordedEvent) -> bytes:
    """What stands for the event in a link."""
    return sha256(canonical(event)).digest()


def chained(head: ChainHead, events: Iterable[RecordedEvent]) -> Iterator[ChainedEvent]:
    """Events that follow ``head``, in their order."""
    previous = head.link
    for event in events:
        text = canonical(event)
        link = link_after(previous, sha256(text).digest())
        yield ChainedEvent(event, text, previous, link)
        previous = link
