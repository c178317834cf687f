"""One way to one server: calls in flight share a round trip.

While one batch is on its way, the next one gathers; when the answer comes, all its callers wake in the same
turn of the event loop. Alone, a call waits for nobody. Under load, the cost of a round trip (a system call, a
wake-up, a parse) is shared by all who wait. Where the way is long, the next batch does not wait for the answer: after
``IMPATIENT_SECONDS`` it sets off beside it, so that distance costs each call one round trip and takes no throughput.

- A batch is a pipeline, not a transaction: calls are independent and fail alone.
- Nothing is retried by itself: whether a script ran before a connection broke is unknown here, and only the
  caller's idempotency key can tell. The one exception is NOSCRIPT, which says that nothing ran. What else says so, on a
  cluster, is for the ``Overseer`` to pass on.
- A server that says READONLY is no primary any more. Its connections are dropped, so that the next ones go where the
  name, the proxy or the sentinels lead to by now.
- What a caller gives up before it has set off is not sent. Afterwards the batch stays on its way; the answer is dropped, nobody else
  gets it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, TypeAlias

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from identity.errors import IdentityError, Reason, not_durable, store_unavailable
from identity.store.redis.durability import Durability
from identity.store.redis.scripts import Script

MAX_WAITING_CALLS = 10_000
MAX_ROUND_TRIPS = 12
IMPATIENT_SECONDS = 0.002
# Beyond this rate a call waits for company: a burst of answers wakes gRPC's threads once and not once a call.
GATHER_SECONDS = 0.004
MIN_GATHERED_CALLS = 2
RATE_WINDOW_SECONDS = 0.05
_ASKING: bytes = pack_command(("ASKING",))
_AWAY = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)

Argument: TypeAlias = str | bytes | int


@dataclass(slots=True, eq=False)
class Call:
    """A script, or a plain command, and who waits for its answer. The rest is for where there are several servers:
    the slot of its keys, whether the server has to be told that it was sent on (``ASKING``), and how often and until when it
    may be."""

    script: Script | None
    arguments: tuple[Argument, ...]
    durability: Durability
    future: asyncio.Future[Any]
    slot: int = -1
    is_background: bool = False
    is_asking: bool = False
    redirections: int = 0
    pauses: int = 0
    give_up_at: float | None = None


class Overseer(Protocol):
    """Knows the other servers."""

    def takes_over(self, call: Call, error: BaseException, host: str) -> bool:
        """Whether it sees to it that this call is answered, which ``host`` has refused to run."""
        ...

    def on_lost(self) -> None:
        """A server does not answer. The callers have been told."""
        ...


class LaneWatch(Protocol):
    """Counts what goes over a lane."""

    def __call__(self, calls: int, seconds: float, failure: str) -> None:
        """A round trip of so many calls is over; ``failure`` says what has gone wrong with it, if anything has."""
        ...


def unwatched(calls: int, seconds: float, failure: str) -> None:
    """Counts nothing."""


class BatchingConnection:
    """Runs scripts and commands on one server, gathering those that come while a round trip is under way.

    ``enqueue`` raises ``IdentityError`` when too many calls wait. An answer is the result, once what was written is as
    durable as it has to be, or an ``IdentityError``.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        max_batch: int,
        timeout_seconds: float,
        max_round_trips: int = MAX_ROUND_TRIPS,
        overseer: Overseer | None = None,
        host: str = "",
        watch: LaneWatch = unwatched,
    ) -> None:
        self._redis = redis
        self._watch = watch
        self._max_batch = max_batch
        self._max_round_trips = max_round_trips
        self._timeout_seconds = timeout_seconds
        # Half of what a round trip may take in all, so that the answer is still heard.
        self._wait_ms = int(timeout_seconds * 500)
        self._overseer = overseer
        self._host = host
        self._waiting: deque[Call] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._counted_since = 0.0
        self._sent_calls = 0
        self._calls_per_second = 0.0

    @property
    def waiting(self) -> int:
        """How many calls wait for a round trip."""
        return len(self._waiting)

    def enqueue(self, call: Call) -> None:
        """Sends it with the next batch. Its future gets the answer."""
        if len(self._waiting) >= MAX_WAITING_CALLS:
            raise IdentityError(
                Reason.RATE_LIMITED, "Too many calls wait for the session store.", retry_after_seconds=1.0
            )
        self._waiting.append(call)
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())

    async def drained(self) -> None:
        """Waits for what is on its way."""
        while self._flusher is not None or self._under_way:
            await asyncio.wait({*self._under_way, *([self._flusher] if self._flusher else [])})

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                if self._is_busy(loop.time()):
                    await asyncio.sleep(GATHER_SECONDS)
                await self._until_it_may_set_off()
                size = min(len(self._waiting), self._max_batch)
                self._sent_calls += size
                # Nobody waits any more for what was given up before it set off.
                taken = [self._waiting.popleft() for _ in range(size)]
                batch = [call for call in taken if not call.future.done()]
                if not batch:
                    continue
                exchange = asyncio.create_task(self._exchange(batch))
                self._under_way.add(exchange)
                exchange.add_done_callback(self._under_way.discard)
        finally:
            self._flusher = None

    async def _until_it_may_set_off(self) -> None:
        """Until no batch is under way, or those that are take long and are not too many."""
        while self._under_way:
            is_full = len(self._under_way) >= self._max_round_trips
            timeout = None if is_full else IMPATIENT_SECONDS
            await asyncio.wait(self._under_way, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not is_full:
                return

    def _is_busy(self, now: float) -> bool:
        """Whether waiting ``GATHER_SECONDS`` can be expected to bring others along."""
        if now - self._counted_since >= RATE_WINDOW_SECONDS:
            self._calls_per_second = self._sent_calls / (now - self._counted_since)
            self._counted_since, self._sent_calls = now, 0
        return self._calls_per_second * GATHER_SECONDS >= MIN_GATHERED_CALLS

    async def _exchange(self, batch: Sequence[Call]) -> None:
        began, failure = perf_counter(), ""
        try:
            answers = await self._send(batch)
            unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                # With their text, which the store keeps from then on; a hash might be forgotten once more meanwhile.
                again = await self._send([batch[place] for place in unknown], by_hash=False)
                for place, answer in zip(unknown, again, strict=True):
                    answers[place] = answer
        except (RedisError, *_AWAY) as error:
            failure = type(error).__name__
            answers = [store_unavailable()] * len(batch)
            if self._overseer is not None:
                self._overseer.on_lost()
        except Exception as error:
            # Whatever it is, those who wait must hear of it.
            failure = type(error).__name__
            answers = [error] * len(batch)
        self._watch(len(batch), perf_counter() - began, failure)
        for call, answer in zip(batch, answers, strict=True):
            if call.future.done():
                continue
            if not isinstance(answer, BaseException):
                call.future.set_result(answer)
            elif self._overseer is None or not self._overseer.takes_over(call, answer, self._host):
                call.future.set_exception(as_refusal(answer))

    async def _send(self, batch: Sequence[Call], *, by_hash: bool = True) -> list[Any]:
        request = b"".join(_packed(call, by_hash) for call in batch)
        questions = _questions(batch, self._wait_ms)
        request += b"".join(_pack(question) for question in questions.values())
        pool: Any = self._redis.connection_pool
        async with asyncio.timeout(self._timeout_seconds):
            connection = await pool.get_connection()
            try:
                await connection.send_packed_command(request, check_health=False)
                answers = [await _answer(connection, call) for call in batch]
                reached = {kind: kind.is_reached(await _response(connection)) for kind in questions}
                if any(isinstance(answer, ReadOnlyError) for answer in answers):
                    await connection.disconnect(nowait=True)
                    await pool.disconnect(inuse_connections=False)
            except BaseException:
                # Answers that are still to come would be taken for those of the next batch.
                await connection.disconnect(nowait=True)
                raise
            finally:
                await pool.release(connection)
        return [
            answer
            if isinstance(answer, ResponseError) or reached.get(call.durability, True)
            else not_durable()
            for call, answer in zip(batch, answers, strict=True)
        ]


def _questions(batch: Sequence[Call], timeout_ms: int) -> dict[Durability, tuple[Argument, ...]]:
    """What has to be waited for, each kind once for all calls."""
    kinds = sorted({call.durability for call in batch})
    return {kind: question for kind in kinds if (question := kind.question(timeout_ms)) is not None}


def _packed(call: Call, by_hash: bool) -> bytes:
    command = call.arguments
    if call.script is not None:
        command = (
            ("EVALSHA", call.script.sha, *command) if by_hash else ("EVAL", call.script.source, *command)
        )
    return _ASKING + _pack(command) if call.is_asking else _pack(command)


def _pack(command: Any) -> bytes:
    packed: bytes = pack_command(command)
    return packed


async def _answer(connection: AbstractConnection, call: Call) -> Any:
    if call.is_asking:
        await _response(connection)
    return await _response(connection)


async def _response(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def as_refusal(error: BaseException) -> IdentityError:
    """What the callers see of an error. A failing script is a defect of ours, all else a state of the store: away, full,
    read-only, loading. Those have types of their own also where a script ran into them."""
    if isinstance(error, IdentityError):
        # One instance must not be raised by many tasks: each would add to the same traceback.
        return IdentityError(error.reason, error.message, retry_after_seconds=error.retry_after_seconds)
    if type(error) is ResponseError and "user_script" in str(error):
        refusal = IdentityError(
            Reason.INTERNAL, "The session store could not decide; the failure was logged."
        )
        refusal.__cause__ = error
        return refusal
    refusal = store_unavailable()
    refusal.__cause__ = error
    return refusal
