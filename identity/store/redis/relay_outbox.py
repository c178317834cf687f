"""``RelayOutbox`` on Redis or Valkey.

In each bucket a hash has, for every sink, how far it has got (its cursor) and which relay reads for it (a lease). There is no
consumer group: events of a bucket have to go out in their order, and their chain has to be continued, so one reader at a time
is what is wanted (docs/decisions/0019). Where a part of the store is away, the events of the others are relayed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from identity.audit.chain import ChainHead
from identity.audit.event import new_event_id
from identity.audit.event_types import EventType
from identity.audit.line import line_of
from identity.audit.ports import Cursor, DeadLetter, LeaseLostError, LiveRelay, Unread
from identity.errors import audit_unavailable
from identity.store.redis import scripts
from identity.store.redis.connection import Argument
from identity.store.redis.keys import BucketKeys
from identity.store.redis.outbox_entries import recorded_event
from identity.store.redis.partial import where_it_is_there
from identity.store.redis.scripted import ScriptedStore, recording
from identity.store.redis.scripts import Script

MAX_DEAD_LETTERS = 1_000
"""Of a bucket. Beyond them the backend is taken to be wrong, and not the events: they wait."""


class RedisRelayOutbox(ScriptedStore):
    """The outbox of every bucket, as relays see it."""

    async def relays(self, relay: str, sinks: Sequence[str]) -> Sequence[LiveRelay]:
        """See ``RelayOutbox``."""
        return await self._alive(relay, "LIVES", sinks)

    async def living(self) -> Sequence[LiveRelay]:
        """See ``RelayRoster``."""
        return await self._alive("", "LIVES")

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
        """See ``RelayOutbox``."""
        arguments = (sink, relay, batch, " ".join(alive), " ".join(sinks))
        answers = await asyncio.gather(
            *(self._read(self._keys.buckets[index], arguments) for index in buckets),
            return_exceptions=True,
        )
        return [unread for unread in where_it_is_there(answers) if unread is not None]

    async def advance(
        self,
        sink: str,
        relay: str,
        bucket: int,
        cursor: Cursor,
        dead: Sequence[DeadLetter],
        sinks: Sequence[str],
    ) -> None:
        """See ``RelayOutbox``."""
        keys = self._keys.buckets[bucket]
        written = f"{cursor.head.sequence} {cursor.head.link.hex()} {cursor.entry}"
        letters = [part for letter in dead for part in _arguments(sink, letter)]
        answer = await self._run(
            scripts.RELAY_ADVANCE,
            keys,
            (keys.relays, keys.dead_letters),
            (sink, relay, written, " ".join(sinks), MAX_DEAD_LETTERS, *letters),
        )
        match answer:
            case b"LOST":
                raise LeaseLostError
            case b"DEAD_LETTERS_FULL":
                raise audit_unavailable()

    async def release(self, sink: str, relay: str, buckets: Sequence[int]) -> None:
        """See ``RelayOutbox``."""
        found = [self._keys.buckets[index] for index in buckets]
        answers = await asyncio.gather(
            *(self._run(scripts.RELAY_RELEASE, keys, (keys.relays,), (sink, relay)) for keys in found),
            return_exceptions=True,
        )
        if answers:
            where_it_is_there(answers)

    async def leave(self, relay: str) -> None:
        """See ``RelayOutbox``."""
        await self._alive(relay, "ENDS")

    async def _alive(self, relay: str, state: str, sinks: Sequence[str] = ()) -> Sequence[LiveRelay]:
        members = await self._run(
            scripts.RELAY_ALIVE,
            self._keys.buckets[0],
            (self._keys.relays_alive,),
            (relay, state, " ".join(sinks)),
        )
        parts = [member.decode().split() for member in members]
        return [LiveRelay(name, tuple(sinks)) for name, *sinks in parts]

    async def _read(self, keys: BucketKeys, arguments: Sequence[Argument]) -> Unread | None:
        answer = await self._run(scripts.RELAY_READ, keys, (keys.relays,), arguments)
        if not answer:
            return None
        cursor, entries = answer
        return Unread(
            bucket=keys.index,
            cursor=cursor_of(cursor),
            events=[recorded_event(keys.index, fields) for _, fields in entries],
            entries=[entry.decode() for entry, _ in entries],
        )

    async def _run(
        self, script: Script, bucket: BucketKeys, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Any:
        return await self._connection.run(
            script,
            (*recording(bucket), *keys),
            (*self._no_event(), *arguments),
            background=True,
        )


def cursor_of(written: bytes) -> Cursor:
    """The cursor that the store has; the beginning where it has none."""
    if not written:
        return Cursor()
    sequence, link, entry = written.decode().split(" ")
    return Cursor(ChainHead(int(sequence), bytes.fromhex(link)), entry)


def _arguments(sink: str, letter: DeadLetter) -> tuple[str | bytes, ...]:
    event = letter.item.event
    told = ("", "")
    # Of a dead letter that tells of one nothing is told: a backend that takes nothing would never be done with it.
    if event.type != EventType.DEAD_LETTERED:
        digest = letter.item.digest.hex()
        detail = f"sink {sink}, bucket {event.bucket}, sequence {event.sequence}, digest {digest}"
        told = (new_event_id().hex(), json.dumps({"client": "", "method": "", "detail": detail}))
    return (*told, line_of(letter.item, sink), letter.problem)
