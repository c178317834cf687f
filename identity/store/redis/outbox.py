"""``EventOutbox`` and ``OutboxGauge`` on Redis or Valkey: one stream a bucket.

Events that go with a change of state are appended by the script that makes it; here are those that go with none. A relay
reads them through ``identity.store.redis.relay_outbox``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from identity.audit.chain import ChainHead
from identity.audit.event import Event
from identity.audit.ports import Backlog, Oldest, SinkHeads
from identity.store.redis import scripts
from identity.store.redis.keys import BucketKeys
from identity.store.redis.partial import where_it_is_there
from identity.store.redis.relay_outbox import cursor_of
from identity.store.redis.scripted import ScriptedStore, recording


class RedisEventOutbox(ScriptedStore):
    """The outbox of every bucket, as those see it who fill it or look at it."""

    async def append(self, events: Sequence[Event]) -> Sequence[Event]:
        """See ``EventOutbox``."""
        answers = await asyncio.gather(*(self._append(event) for event in events))
        return [event for event, answer in zip(events, answers, strict=True) if answer == b"OUTBOX_FULL"]

    async def backlog(self, sinks: Sequence[str]) -> Backlog:
        """See ``OutboxGauge``."""
        answers = where_it_is_there(
            await asyncio.gather(
                *(self._look(bucket, sinks) for bucket in self._keys.buckets), return_exceptions=True
            )
        )
        behind = dict.fromkeys(sinks, 0)
        oldest: dict[int, Oldest] = {}
        oldest_of: dict[str, dict[int, Oldest]] = {sink: {} for sink in sinks}
        for bucket, (events, _, sequence, _, place, age_ms, *of_sinks) in answers:
            if place:
                oldest[bucket.index] = Oldest(place.decode(), age_ms)
            for sink, (cursor, unread, unread_age_ms) in zip(sinks, _by_sink(of_sinks), strict=True):
                # Refusals that made room are in the sequence, and not in the outbox.
                behind[sink] += min(events, sequence - cursor_of(cursor).head.sequence)
                if unread:
                    oldest_of[sink][bucket.index] = Oldest(unread.decode(), unread_age_ms)
        return Backlog(
            events=sum(answer[0] for _, answer in answers),
            fullest=max(answer[0] for _, answer in answers) / self._max_events,
            oldest=oldest,
            dead_letters=sum(answer[1] for _, answer in answers),
            behind=behind,
            oldest_of=oldest_of,
        )

    async def heads(self, sinks: Sequence[str]) -> Mapping[str, SinkHeads]:
        """See ``OutboxGauge``."""
        answers = await asyncio.gather(*(self._look(bucket, sinks) for bucket in self._keys.buckets))
        heads: dict[str, dict[int, ChainHead]] = {sink: {} for sink in sinks}
        until_ms = dict.fromkeys(sinks, min(int(answer[3]) for _, answer in answers))
        for bucket, (_, _, _, now_ms, _, _, *of_sinks) in answers:
            for sink, (cursor, unread, age_ms) in zip(sinks, _by_sink(of_sinks), strict=True):
                if cursor:
                    heads[sink][bucket.index] = cursor_of(cursor).head
                if unread:
                    until_ms[sink] = min(until_ms[sink], int(now_ms) - age_ms)
        return {sink: SinkHeads(heads[sink], until_ms[sink]) for sink in sinks}

    @property
    def _max_events(self) -> int:
        return int(self._outbox_bound.rstrip("~"))

    async def _look(self, bucket: BucketKeys, sinks: Sequence[str]) -> tuple[BucketKeys, Any]:
        answer = await self._connection.run(
            scripts.BACKLOG,
            (*recording(bucket), bucket.relays, bucket.dead_letters),
            (*self._no_event(), " ".join(sinks)),
        )
        return bucket, answer

    async def _append(self, event: Event) -> Any:
        bucket = self._keys.of_name(event.subject or event.circumstances.client_id)
        return await self._connection.run(
            scripts.RECORD,
            recording(bucket),
            (
                *self._event(event.event_id, event.circumstances),
                event.type.value,
                event.outcome.value,
                event.reason,
                event.subject,
                event.session_id,
            ),
        )


def _by_sink(of_sinks: Sequence[Any]) -> Sequence[tuple[bytes, bytes, int]]:
    """Cursor, place of the oldest event after it, and its age."""
    return list(zip(of_sinks[::3], of_sinks[1::3], of_sinks[2::3], strict=True))
