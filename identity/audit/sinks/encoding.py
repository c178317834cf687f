"""From events to what a sink sends, one by one: what cannot be said of one event is no reason to keep the others waiting.

An event that cannot be encoded will not be encodable tomorrow either, so it is refused for good, as a backend might have refused it.
A defect that is not the event's own refuses none: before the first is refused, an everyday event is encoded, as before the first
that a backend refuses it is asked with an empty request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from identity.audit.chain import GENESIS, ChainedEvent, chained
from identity.audit.event_types import EventType, Outcome
from identity.audit.recorded_event import RecordedEvent

T = TypeVar("T")

_EVERYDAY = RecordedEvent(
    event_id="0" * 20,
    bucket=0,
    sequence=1,
    time_ms=1_700_000_000_000,
    type=EventType.REVOCATION_OF_UNKNOWN,
    outcome=Outcome.SUCCESS,
)


def encoded_or_refused(
    events: Iterable[ChainedEvent], encode: Callable[[ChainedEvent], T]
) -> tuple[list[T], dict[str, str]]:
    """What can be encoded, in its order, and event id to problem of what cannot. Raises what ``encode`` raises for any event."""
    items: list[T] = []
    refused: dict[str, str] = {}
    for item in events:
        try:
            items.append(encode(item))
        except MemoryError:
            raise  # the machine's, not the event's
        except Exception as error:
            if not refused:
                _try_an_everyday_event(encode)
            # No more than the name: the text may have anything of the event in it.
            refused[item.event.event_id] = f"it cannot be encoded: {type(error).__name__}"
    return items, refused


def _try_an_everyday_event(encode: Callable[[ChainedEvent], object]) -> None:
    (everyday,) = chained(GENESIS, [_EVERYDAY])
    encode(everyday)
