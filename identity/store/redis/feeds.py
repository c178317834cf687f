"""``RevocationFeed`` on Redis or Valkey. The feed of a bucket is a stream whose entry ids start with the sequence number of
the event; questions are a stream beside that of the first bucket.

One command may read all streams of one server, and wait for news; it has a connection of its own, which it blocks. In
a cluster a command may read those of one slot, so there all are looked at every ``POLL_SECONDS``.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from identity.errors import IdentityError, store_unavailable
from identity.store.redis.cluster import ClusterConnection
from identity.store.redis.connection import Argument
from identity.store.redis.keys import KeySpace
from identity.store.redis.topology import Server
from identity.tokens.access_token import MAX_TTL_SECONDS
from identity.verifiers.ports import FeedStep, Question
from identity.verifiers.revocations import FeedPlace, Revocation, RevokedThing

# As in prelude.lua: no access token lives longer, two minutes of skew included.
ACCESS_TOKENS_OUT_MS = (MAX_TTL_SECONDS + 120) * 1000
ENTRIES_AT_ONCE = 1000
POLL_SECONDS = 0.1
# A server that takes longer counts as away for this look: the revocations of the others must not wait for it.
MAX_ANSWER_SECONDS = 0.4
# How often a look is repeated because slots have moved while it was taken.
MAX_LOOKS = 5

T = TypeVar("T")


class BlockingRevocationFeed:
    """Follows the feeds of all buckets on one server. ``redis`` is for this alone: reading blocks it."""

    def __init__(self, redis: Redis, keys: KeySpace, sentinel: Sentinel | None = None) -> None:
        self._redis = redis
        self._sentinel = sentinel
        self._keys = keys
        self._by_stream = {bucket.revocations: bucket.index for bucket in keys.buckets}
        self._epoch = ""

    async def read(self, places: Mapping[int, FeedPlace], last_question: str, *, wait_ms: int) -> FeedStep:
        """See ``RevocationFeed``."""
        try:
            if not self._epoch:
                self._epoch, _ = await self._state()
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
            # Asked afterwards: what was read is of this epoch, or the step says that it is another one by now.
            self._epoch, now_ms = await self._state()
        except (RedisError, OSError, TimeoutError) as error:
            self._epoch = ""
            raise store_unavailable() from error
        return FeedStep(found, questions, now_ms, self._epoch)

    async def last_question(self) -> str:
        """See ``RevocationFeed``."""
        try:
            newest: Any = await self._redis.xrevrange(self._keys.questions, count=1)
        except (RedisError, OSError, TimeoutError) as error:
            raise store_unavailable() from error
        return newest[0][0].decode() if newest else "0-0"

    async def close(self) -> None:
        """Disconnects."""
        await self._redis.aclose()
        if self._sentinel is not None:
            await self._sentinel.aclose()

    async def _state(self) -> tuple[str, int]:
        """The epoch, and the time (ms)."""
        pipeline: Any = self._redis.pipeline(transaction=False)
        info, time = await pipeline.info("replication").time().execute()
        if info.get("role") == "slave":
            # It may be far behind, and would not say so. The next connection goes where the name leads to by then.
            await self._redis.connection_pool.disconnect(inuse_connections=False)
            self._epoch = ""
            raise store_unavailable()
        return _epoch_of([str(info.get("master_replid"))]), _milliseconds(*time)

    async def _read(
        self, places: Mapping[int, FeedPlace], last_question: str, wait_ms: int | None
    ) -> tuple[list[Revocation], list[Question]]:
        streams: dict[Any, Any] = {
            stream: _entry_id(places.get(index)) for stream, index in self._by_stream.items()
        }
        if last_question:
            streams[self._keys.questions] = last_question
        answer: Any = await self._redis.xread(streams, count=ENTRIES_AT_ONCE, block=wait_ms)
        revocations, questions = list[Revocation](), list[Question]()
        for stream, chunks in answer.items() if isinstance(answer, dict) else answer:
            _sort(self._by_stream.get(stream.decode()), _entries(chunks), revocations, questions)
        return revocations, questions


class PollingRevocationFeed:
    """Follows the feeds of all buckets in a cluster. Those of servers that do not answer are left out until they do."""

    def __init__(self, connection: ClusterConnection, keys: KeySpace) -> None:
        self._connection = connection
        self._keys = keys
        self._by_stream = {bucket.revocations: bucket.index for bucket in keys.buckets}
        self._epoch = ""

    async def read(self, places: Mapping[int, FeedPlace], last_question: str, *, wait_ms: int) -> FeedStep:
        """See ``RevocationFeed``."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_ms / 1000
        while True:
            step = await self._look(places, last_question)
            is_news = step.revocations or step.questions or not step.is_complete or step.epoch != self._epoch
            self._epoch = step.epoch
            if is_news or loop.time() >= until:
                return step
            await asyncio.sleep(POLL_SECONDS)

    async def last_question(self) -> str:
        """See ``RevocationFeed``."""
        newest = await self._connection.command(
            "XREVRANGE", self._keys.questions, "+", "-", "COUNT", 1, background=True
        )
        return newest[0][0].decode() if newest else "0-0"

    async def close(self) -> None:
        """The connection is others', too."""

    async def _look(self, places: Mapping[int, FeedPlace], last_question: str) -> FeedStep:
        """What stands after these places, all of it, at servers that have stayed what they were meanwhile."""
        for _ in range(MAX_LOOKS):
            changes = self._connection.changes
            servers, answered = await self._states()
            revocations, questions, is_complete = await self._read_on(places, last_question)
            if changes == self._connection.changes:
                break
        else:
            is_complete = False
        is_complete = is_complete and len(answered) == len(servers)
        return FeedStep(
            revocations,
            questions if is_complete else [],
            # Nothing is forgotten too early because one clock is fast.
            min(now_ms for _, now_ms in answered),
            _epoch_of([replication_id for replication_id, _ in answered]) if is_complete else self._epoch,
            is_complete,
        )

    async def _states(self) -> tuple[Sequence[Server], Sequence[tuple[str, int]]]:
        """The primaries; and of those that answer what they call their history, and their time (ms)."""
        try:
            servers = await self._connection.primaries()
        except (RedisError, OSError, TimeoutError) as error:
            raise store_unavailable() from error
        answers = await _answers_in_time([_state(server) for server in servers])
        answered = [answer for answer in answers if answer is not None]
        if not answered:
            raise store_unavailable()
        return servers, answered

    async def _read_on(
        self, places: Mapping[int, FeedPlace], last_question: str
    ) -> tuple[list[Revocation], list[Question], bool]:
        places = dict(places)
        found, questions, is_complete = await self._read(places, last_question)
        revocations = found
        while is_complete and (questions or revocations):
            # As on one server: what was recorded before a question is read before it is answered.
            places |= {entry.bucket: entry.place for entry in revocations}
            revocations, _, is_complete = await self._read(places, "")
            found = found + revocations
            if not revocations:
                break
        return found, questions, is_complete

    async def _read(
        self, places: Mapping[int, FeedPlace], last_question: str
    ) -> tuple[list[Revocation], list[Question], bool]:
        wanted = {stream: _entry_id(places.get(index)) for stream, index in self._by_stream.items()}
        if last_question:
            wanted[self._keys.questions] = last_question
        groups = self._connection.together(list(wanted))
        answers = await _answers_in_time(
            [self._read_group(group, [wanted[stream] for stream in group]) for group in groups]
        )
        revocations, questions = list[Revocation](), list[Question]()
        for answer in answers:
            for stream, entries in (answer or {}).items():
                _sort(self._by_stream.get(stream.decode()), _pairs(entries), revocations, questions)
        return revocations, questions, None not in answers

    async def _read_group(self, streams: Sequence[str], after: Sequence[str]) -> Mapping[bytes, Any]:
        command: tuple[Argument, ...] = ("XREAD", "COUNT", ENTRIES_AT_ONCE, "STREAMS", *streams, *after)
        return await self._connection.command(*command, key=streams[0], background=True) or {}


async def _state(server: Server) -> tuple[str, int]:
    info: Any = await server.command("INFO", "replication")
    seconds, microseconds = await server.command("TIME")
    fields = dict(line.partition(":")[::2] for line in info.decode().splitlines())
    if fields["role"] != "master":
        raise store_unavailable()
    return fields["master_replid"], _milliseconds(seconds, microseconds)


async def _answers_in_time(questions: Sequence[Coroutine[Any, Any, T]]) -> list[T | None]:
    """The answers in the same order; ``None`` where the store was away, or took longer than ``MAX_ANSWER_SECONDS``."""
    tasks = [asyncio.create_task(question) for question in questions]
    try:
        await asyncio.wait(tasks, timeout=MAX_ANSWER_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, Exception) and not isinstance(answer, IdentityError):
            raise answer
    return [None if isinstance(answer, BaseException) else answer for answer in answers]


def _epoch_of(replication_ids: Sequence[str]) -> str:
    return hashlib.sha256(" ".join(sorted(replication_ids)).encode()).hexdigest()[:8]


def _milliseconds(seconds: Any, microseconds: Any) -> int:
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


def _pairs(entries: Any) -> Sequence[tuple[bytes, Mapping[bytes, bytes]]]:
    """As the protocol has them, with the fields in one flat list."""
    return [(entry_id, dict(zip(fields[::2], fields[1::2], strict=True))) for entry_id, fields in entries]


def _sort(
    bucket: int | None,
    entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]],
    revocations: list[Revocation],
    questions: list[Question],
) -> None:
    """Adds the entries of one stream to the list they belong to: without a bucket, they are questions."""
    for entry_id, fields in entries:
        if bucket is None:
            questions.append(Question(entry_id.decode(), int(fields[b"wait_ms"])))
        else:
            revocations.append(_revocation(bucket, entry_id, fields))


def _revocation(bucket: int, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Revocation:
    sequence, _, count = entry_id.partition(b"-")
    return Revocation(
        thing=RevokedThing(fields[b"kind"].decode()),
        name=fields[b"name"].decode(),
        bucket=bucket,
        place=FeedPlace(int(sequence), int(count)),
        forget_at_ms=int(fields[b"at"]) + ACCESS_TOKENS_OUT_MS,
    )
