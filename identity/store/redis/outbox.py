"""``AuditOutbox`` on Redis or Valkey: one stream a bucket, read by a consumer group.

An event leaves its stream only when the backend has acknowledged it. What a relay has read and not removed
stays pending under its name; when it dies, another takes its events over after ``TAKE_OVER_AFTER_MS``. Where a part of
the store is away, the events of the others are relayed; only where all is, that is an error.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from identity.audit.event import Event, RecordedEvent
from identity.errors import IdentityError, audit_unavailable
from identity.store.redis import scripts
from identity.store.redis.connection import Argument
from identity.store.redis.keys import BucketKeys, KeySpace
from identity.store.redis.topology import StoreConnection

GROUP = "relay"
TAKE_OVER_AFTER_MS = 30_000
_FIRST_ENTRY = "0-0"

T = TypeVar("T")


class RedisAuditOutbox:
    """The outbox of every bucket."""

    def __init__(self, connection: StoreConnection, keys: KeySpace, *, max_events: int) -> None:
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
        _where_it_is_there(
            await asyncio.gather(
                *(self._create_group(bucket) for bucket in self._keys.buckets), return_exceptions=True
            )
        )

    async def read(self, consumer: str, *, batch: int, wait_ms: int) -> Sequence[RecordedEvent]:
        """New events of any bucket, up to ``batch`` from each; empty when none came within ``wait_ms``."""
        answer = await self._read_new(consumer, batch)
        if not answer and wait_ms:
            await asyncio.sleep(wait_ms / 1000)
            answer = await self._read_new(consumer, batch)
        return [
            _recorded(self._by_stream[stream.decode()], entry_id, fields)
            for stream, entries in answer.items()
            for entry_id, fields in entries
        ]

    async def take_over(self, consumer: str, *, batch: int, idle_ms: int) -> Sequence[RecordedEvent]:
        """Events that a relay has read and left lying for ``idle_ms``; ``0`` takes all, its own included."""
        answers = await asyncio.gather(
            *(self._claim(bucket, consumer, batch, idle_ms) for bucket in self._keys.buckets),
            return_exceptions=True,
        )
        return [
            _recorded(bucket, entry_id, fields)
            for bucket, entries in _where_it_is_there(answers)
            for entry_id, fields in entries
            if fields
        ]

    async def remove(self, events: Sequence[RecordedEvent]) -> None:
        """See ``AuditOutbox``."""
        by_bucket: dict[int, list[str]] = defaultdict(list)
        for event in events:
            by_bucket[event.bucket].append(event.entry_id)
        removing: list[Awaitable[Any]] = []
        for index, entry_ids in by_bucket.items():
            stream = self._keys.buckets[index].outbox
            removing.append(self._connection.command("XACK", stream, GROUP, *entry_ids))
            removing.append(self._connection.command("XDEL", stream, *entry_ids))
        # What is not removed because its part of the store is away is taken over again when it is back.
        _where_it_is_there(await asyncio.gather(*removing, return_exceptions=True))

    async def depth(self) -> int:
        """How many events wait, over all buckets."""
        lengths = await asyncio.gather(
            *(self._connection.command("XLEN", bucket.outbox) for bucket in self._keys.buckets)
        )
        return sum(lengths)

    async def _read_new(self, consumer: str, batch: int) -> Mapping[bytes, Any]:
        groups = self._connection.together(list(self._by_stream))
        answers = await asyncio.gather(
            *(self._read_group(streams, consumer, batch) for streams in groups), return_exceptions=True
        )
        return {
            stream: entries for answer in _where_it_is_there(answers) for stream, entries in answer.items()
        }

    async def _read_group(self, streams: Sequence[str], consumer: str, batch: int) -> Mapping[bytes, Any]:
        command: tuple[Argument, ...] = (
            "XREADGROUP",
            "GROUP",
            GROUP,
            consumer,
            "COUNT",
            batch,
            "STREAMS",
            *streams,
        )
        try:
            news = [">"] * len(streams)
            return await self._connection.command(*command, *news, key=streams[0], background=True) or {}
        except IdentityError as error:
            if not _says(error, "NOGROUP"):
                raise
            # The store was emptied, or has failed over to one that never had the groups.
            await self.prepare()
            return {}

    async def _claim(
        self, bucket: BucketKeys, consumer: str, batch: int, idle_ms: int
    ) -> tuple[BucketKeys, Any]:
        answer = await self._connection.command(
            "XAUTOCLAIM", bucket.outbox, GROUP, consumer, idle_ms, _FIRST_ENTRY, "COUNT", batch
        )
        return bucket, answer[1]

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
        command = ("XGROUP", "CREATE", bucket.outbox, GROUP, "0", "MKSTREAM")
        try:
            await self._connection.command(*command, key=bucket.outbox, background=True)
        except IdentityError as error:
            if not _says(error, "BUSYGROUP"):
                raise


def _where_it_is_there(answers: Sequence[T | BaseException]) -> list[T]:
    """The answers of the parts of the store that are there. Raises what the first has said where none is, and defects."""
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    for error in errors:
        if not isinstance(error, IdentityError) or len(errors) == len(answers):
            raise error
    return [answer for answer in answers if not isinstance(answer, BaseException)]


def _says(error: IdentityError, code: str) -> bool:
    """Whether the store has answered that."""
    return str(error.__cause__).startswith(code)


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
