"""What a sink has to have got: every bucket from its first event, in order, each event a link of the chain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from identity.audit.chain import GENESIS, ChainedEvent, digest_of, link_after


def by_bucket(taken: Iterable[ChainedEvent]) -> dict[int, list[ChainedEvent]]:
    """In the order in which a sink got them, without what it got again."""
    found: dict[int, dict[str, ChainedEvent]] = defaultdict(dict)
    for each in taken:
        found[each.event.bucket].setdefault(each.event.event_id, each)
    return {bucket: list(events.values()) for bucket, events in found.items()}


def assert_chained_in_order(taken: Iterable[ChainedEvent]) -> int:
    """Every bucket from its first event, without a gap; gives how many events that are."""
    count = 0
    for events in by_bucket(taken).values():
        link = GENESIS.link
        for number, each in enumerate(events, start=1):
            assert each.event.sequence == number
            assert each.previous == link
            assert each.link == link_after(link, digest_of(each.event))
            link = each.link
            count += 1
    return count
