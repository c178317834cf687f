"""``RevocationFeed`` and ``InstanceBoard`` on Redis or Valkey.

Following blocks a connection, so it has one of its own. The feed of a bucket is a stream whose entry ids start with
the sequence number of the event; questions are a stream, and each question's answers a hash.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from identity.errors import store_unavailable
from identity.store.redis.connection import BatchingConnection
from identity.store.redis.keys import KeySpace
from identity.tokens.access_token import MAX_TTL_SECONDS
from identity.verifiers.ports import FeedStep, Question
from identity.verifiers.revocations import FeedPlace, Revocation, RevokedThing

# As in prelude.lua: no access token lives longer, two minutes of skew included.
ACCESS_TOKENS_OUT_MS = (MAX_TTL_SECONDS + 120) * 1000
ENTRIES_AT_ONCE = 1000
QUESTIONS_KEPT = 1000
ANSWERS_KEPT_MS = 120_000
INSTANCE_DEAD_AFTER_MS = 10_000


class RedisRevocationFeed:
    """Follows the feeds of all buckets. ``redis`` is for this alone: reading blocks it."""

    def __init__(self, redis: Redis, keys: KeySpace) -> None:
        self._redis = redis
        self._keys = keys
        self._by_stream = {bucket.revocations: bucket.index for bucket in keys.buckets}

    async def epoch(self) -> str:
        """See ``RevocationFeed``: the store's replication id, which a failover or a restart changes."""
        try:
            info: Mapping[str, Any] = await self._redis.info("replication")
        except (RedisError, OSError, TimeoutError) as error:
            raise store_unavailable() from error
        return hashlib.sha256(str(info.get("master_replid")).encode()).hexdigest()[:8]

    async def read(self, places: Mapping[int, FeedPlace], last_question: str, *, wait_ms: int) -> FeedStep:
        """See ``RevocationFeed``."""
        places, found = dict(places), list[Revocation]()
        revocations, questions = await self._read(places, last_question, wait_ms or None)
        found += revocations
        while questions or revocations:
            # What was recorded before a question is read before the question is answered, and a full answer may
            # have left something behind.
            places |= {entry.bucket: entry.place for entry in revocations}
            revocations, _ = await self._read(places, "", None)
            found += revocations
            if not revocations:
                break
        return FeedStep(found, questions, await self._now_ms())

    async def last_question(self) -> str:
        """See ``RevocationFeed``."""
        try:
            newest: Any = await self._redis.xrevrange(self._keys.questions, count=1)
        except (RedisError, OSError, TimeoutError) as error:
            raise store_unavailable() from error
        return newest[0][0].decode() if newest else "0-0"

    async def _read(
        self, places: Mapping[int, FeedPlace], last_question: str, wait_ms: int | None
    ) -> tuple[list[Revocation], list[Question]]:
        streams: dict[Any, Any] = {
            stream: _entry_id(places.get(index)) for stream, index in self._by_stream.items()
        }
        if last_question:
            streams[self._keys.questions] = last_question
        try:
            answer: Any = await self._redis.xread(streams, count=ENTRIES_AT_ONCE, block=wait_ms)
        except (RedisError, OSError, TimeoutError) as error:
            raise store_unavailable() from error
        revocations, questions = list[Revocation](), list[Question]()
        for stream, chunks in answer.items() if isinstance(answer, dict) else answer:
            index = self._by_stream.get(stream.decode())
            for entry_id, fields in _entries(chunks):
                if index is None:
                    questions.append(Question(entry_id.decode(), int(fields[b"wait_ms"])))
                else:
                    revocations.append(_revocation(index, entry_id, fields))
        return revocations, questions

    async def _now_ms(self) -> int:
        try:
            seconds, microseconds = await self._redis.time()
        except (RedisError, OSError, TimeoutError) as error:
            raise store_unavailable() from error
        return int(seconds) * 1000 + int(microseconds) // 1000


class RedisInstanceBoard:
    """A hash of heartbeats, a stream of questions, a hash of answers for each."""

    def __init__(self, connection: BatchingConnection, keys: KeySpace) -> None:
        self._connection = connection
        self._keys = keys

    async def beat(self, instance_id: str) -> None:
        """See ``InstanceBoard``."""
        await self._connection.command("HSET", self._keys.instances, instance_id, await self._now_ms())

    async def leave(self, instance_id: str) -> None:
        """See ``InstanceBoard``."""
        await self._connection.command("HDEL", self._keys.instances, instance_id)

    async def instances(self) -> frozenset[str]:
        """See ``InstanceBoard``. Those that have been silent for long are taken off."""
        beats, now_ms = await asyncio.gather(
            self._connection.command("HGETALL", self._keys.instances), self._now_ms()
        )
        pairs = beats.items() if isinstance(beats, dict) else zip(beats[::2], beats[1::2], strict=True)
        alive, dead = set[str](), list[bytes]()
        for name, beat in pairs:
            if now_ms - int(beat) < INSTANCE_DEAD_AFTER_MS:
                alive.add(name.decode())
            else:
                dead.append(name)
        if dead:
            await self._connection.command("HDEL", self._keys.instances, *dead)
        return frozenset(alive)

    async def ask(self, wait_ms: int) -> str:
        """See ``InstanceBoard``."""
        entry_id = await self._connection.command(
            "XADD", self._keys.questions, "MAXLEN", "~", QUESTIONS_KEPT, "*", "wait_ms", wait_ms
        )
        question_id: str = entry_id.decode()
        return question_id

    async def answer(self, question_id: str, instance_id: str, answer: bytes) -> None:
        """See ``InstanceBoard``."""
        key = self._keys.answers(question_id)
        await asyncio.gather(
            self._connection.command("HSET", key, instance_id, answer),
            self._connection.command("PEXPIRE", key, ANSWERS_KEPT_MS),
        )

    async def answers(self, question_id: str) -> Mapping[str, bytes]:
        """See ``InstanceBoard``."""
        found = await self._connection.command("HGETALL", self._keys.answers(question_id))
        pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
        return {name.decode(): answer for name, answer in pairs}

    async def _now_ms(self) -> int:
        seconds, microseconds = await self._connection.command("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000


def _entry_id(place: FeedPlace | None) -> str:
    # An entry without a count is every one of its sequence number, so that the one before it is asked from.
    return "0-0" if place is None or place.count < 0 else f"{place.sequence}-{place.count}"


def _entries(chunks: Any) -> Sequence[tuple[bytes, Mapping[bytes, bytes]]]:
    # RESP3 nests the entries of a stream in one more list than RESP2 does.
    entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]] = (
        [entry for chunk in chunks for entry in chunk] if chunks and isinstance(chunks[0], list) else chunks
    )
    return entries


def _revocation(bucket: int, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Revocation:
    sequence, _, count = entry_id.partition(b"-")
    return Revocation(
        thing=RevokedThing(fields[b"kind"].decode()),
        name=fields[b"name"].decode(),
        bucket=bucket,
        place=FeedPlace(int(sequence), int(count)),
        forget_at_ms=int(fields[b"at"]) + ACCESS_TOKENS_OUT_MS,
    )
