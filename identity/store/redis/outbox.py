"""``AuditOutbox`` on Redis or Valkey: one stream a bucket, read by a consumer group.

An event leaves its stream only when the backend has acknowledged it. What a relay has read and not removed
stays pending under its name; when it dies, another takes its events over after ``TAKE_OVER_AFTER_MS``.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError, ResponseError

from identity.audit.event import Event, RecordedEvent
from identity.errors import audit_unavailable, store_unavailable
from identity.store.redis import scripts
from identity.store.redis.connection import BatchingConnection
from identity.store.redis.keys import BucketKeys, KeySpace

GROUP = "relay"
TAKE_OVER_AFTER_MS = 30_000
_FIRST_ENTRY = "0-0"


class RedisAuditOutbox:
    """The outbox of every bucket."""

    def __init__(self, connection: BatchingConnection, keys: KeySpace, *, max_events: int) -> None:
        self._connection = connection
        self._keys = keys
        self._max_events = max_events
        self._by_stream = {bucket.outbox: bucket for bucket in keys.buckets}

    async def append(self, events: Sequence[Event]) -> None:
        """See ``AuditOutbox``. Raises ``AUDIT_UNAVAILABLE`` when an outbox is full."""
        answers = await asyncio.gather(*(self._append(event) for event in events))
        if b"OUTBOX_FULL" in answers:
            raise audit_unavailable()

    async def prepare(self) -> None:
        """Creates the consumer groups; harmless where they exist."""
        await asyncio.gather(*(self._create_group(bucket) for bucket in self._keys.buckets))

    async def read(self, consumer: str, *, batch: int, wait_ms: int) -> Sequence[RecordedEvent]:
        """New events of any bucket, up to ``batch`` from each; empty when none came within ``wait_ms``."""
        answer = await self._read_new(consumer, batch)
        if not answer and wait_ms:
            await asyncio.sleep(wait_ms / 1000)
            answer = await self._read_new(consumer, batch)
        return [
            _recorded(self._by_stream[stream.decode()], entry_id, fields)
            for stream, chunks in answer.items()
            for entry_id, fields in _entries(chunks)
        ]

    async def take_over(self, consumer: str, *, batch: int, idle_ms: int) -> Sequence[RecordedEvent]:
        """Events that a relay has read and left lying for ``idle_ms``; ``0`` takes all, its own included."""
        answers = await asyncio.gather(
            *(
                self._connection.command(
                    "XAUTOCLAIM", bucket.outbox, GROUP, consumer, idle_ms, _FIRST_ENTRY, "COUNT", batch
                )
                for bucket in self._keys.buckets
            )
        )
        return [
            _recorded(bucket, entry_id, fields)
            for bucket, answer in zip(self._keys.buckets, answers, strict=True)
            for entry_id, fields in answer[1]
            if fields
        ]

    async def remove(self, events: Sequence[RecordedEvent]) -> None:
        """See ``AuditOutbox``."""
        by_bucket: dict[int, list[str]] = defaultdict(list)
        for event in events:
            by_bucket[event.bucket].append(event.entry_id)
        for index, entry_ids in by_bucket.items():
            stream = self._keys.buckets[index].outbox
            await asyncio.gather(
                self._connection.command("XACK", stream, GROUP, *entry_ids),
                self._connection.command("XDEL", stream, *entry_ids),
            )

    async def depth(self) -> int:
        """How many events wait, over all buckets."""
        lengths = await asyncio.gather(
            *(self._connection.command("XLEN", bucket.outbox) for bucket in self._keys.buckets)
        )
        return sum(lengths)

    async def _read_new(self, consumer: str, batch: int) -> Mapping[bytes, Any]:
        streams: dict[Any, Any] = dict.fromkeys(self._by_stream, ">")
        try:
            answer: Any = await self._connection.redis.xreadgroup(GROUP, consumer, streams, count=batch)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise store_unavailable() from error
            # The store was emptied, or has failed over to one that never had the groups.
            await self.prepare()
            return {}
        except (RedisError, OSError, TimeoutError) as error:
            raise store_unavailable() from error
        return answer if isinstance(answer, dict) else dict(answer)

    async def _append(self, event: Event) -> Any:
        bucket = self._keys.of_name(event.subject or event.circumstances.client_id)
        return await self._connection.run(
            scripts.RECORD,
            (bucket.outbox, bucket.sequence),
            (
                event.event_id.hex(),
                event.circumstances.serialised(),
                self._max_events,
                0,
                event.type.value,
                event.outcome.value,
                event.reason,
                event.subject,
                event.session_id,
            ),
        )

    async def _create_group(self, bucket: BucketKeys) -> None:
        try:
            await self._connection.redis.xgroup_create(bucket.outbox, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise store_unavailable() from error
        except (RedisError, OSError, TimeoutError) as error:
            raise store_unavailable() from error


def _entries(chunks: Any) -> Any:
    # RESP3 nests the entries of a stream in one more list than RESP2 does.
    if chunks and isinstance(chunks[0], list):
        return [entry for chunk in chunks for entry in chunk]
    return chunks


def _recorded(bucket: BucketKeys, entry_id: bytes, fields: Any) -> RecordedEvent:
    texts = _texts(fields)
    circumstances = json.loads(texts["circumstances"])
    return RecordedEvent(
        entry_id=entry_id.decode(),
        event_id=texts["id"],
        bucket=bucket.index,
        sequence=int(texts["seq"]),
        time_ms=int(texts["at"]),
        type=texts["type"],
        outcome=texts["outcome"],
        reason=texts["reason"],
        subject=texts["subject"],
        session_id=texts["session"],
        generation=int(texts["generation"]) if texts["generation"] else None,
        client_id=circumstances.get("client", ""),
        method=circumstances.get("method", ""),
        traceparent=circumstances.get("traceparent", ""),
        ip_address=circumstances.get("ip", ""),
        user_agent=circumstances.get("ua", ""),
        device_label=circumstances.get("device", ""),
        detail=circumstances.get("detail", ""),
        evidence=json.loads(texts.get("evidence") or "{}"),
    )


def _texts(fields: Any) -> Mapping[str, str]:
    pairs = fields.items() if isinstance(fields, dict) else zip(fields[::2], fields[1::2], strict=True)
    return {name.decode(): value.decode() for name, value in pairs}
