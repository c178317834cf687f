"""One way to the store: calls in flight share a round trip.

While one batch is on its way, the next one gathers; when the answer comes, all its callers wake in the same
turn of the event loop. Alone, a call waits for nobody. Under load, the cost of a round trip (a system call, a
wake-up, a parse) is shared by all who wait. Where the way is long, the next batch does not wait for the answer: after
``IMPATIENT_SECONDS`` it sets off beside it, so that distance costs each call one round trip and takes no throughput.

- A batch is a pipeline, not a transaction: calls are independent and fail alone.
- Nothing is retried by itself: whether a script ran before a connection broke is unknown here, and only the
  caller's idempotency key can tell. The one exception is NOSCRIPT, which says that nothing ran.
- A caller that gives up leaves the batch on its way; its answer is dropped, nobody else gets it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeAlias

from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
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
_AWAY = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)

_Argument: TypeAlias = str | bytes | int
_Call: TypeAlias = tuple[Script | None, tuple[_Argument, ...], Durability, asyncio.Future[Any]]


def connect(url: str, *, timeout_seconds: float, max_connections: int = 16) -> Redis:
    """A client for ``redis://``, ``rediss://`` or ``unix://``; connects when first used."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=timeout_seconds,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        protocol=3,
        client_name="grpc-identity",
    )
    return Redis.from_pool(pool)


class BatchingConnection:
    """Runs scripts and commands, gathering those that come while a round trip is under way."""

    def __init__(self, redis: Redis, *, max_batch: int, timeout_seconds: float) -> None:
        self.redis = redis
        self._max_batch = max_batch
        self._timeout_seconds = timeout_seconds
        # Half of what a round trip may take in all, so that the answer is still heard.
        self._wait_ms = int(timeout_seconds * 500)
        self._waiting: deque[_Call] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._counted_since = 0.0
        self._sent_calls = 0
        self._calls_per_second = 0.0

    async def run(
        self,
        script: Script,
        keys: Sequence[str | bytes],
        arguments: Sequence[_Argument],
        durability: Durability = Durability.NONE,
    ) -> Any:
        """The result of a script, once what it wrote is as durable as it has to be.

        Raises ``IdentityError`` when the store is away or too many calls wait.
        """
        return await self._enqueue(script, (len(keys), *keys, *arguments), durability)

    async def command(self, *command: _Argument, durability: Durability = Durability.NONE) -> Any:
        """The result of a plain command; as ``run``."""
        return await self._enqueue(None, command, durability)

    async def close(self) -> None:
        """Waits for what is on its way, then disconnects."""
        while self._flusher is not None or self._under_way:
            await asyncio.wait({*self._under_way, *([self._flusher] if self._flusher else [])})
        await self.redis.aclose()

    def _enqueue(
        self, script: Script | None, arguments: tuple[_Argument, ...], durability: Durability
    ) -> asyncio.Future[Any]:
        if len(self._waiting) >= MAX_WAITING_CALLS:
            raise IdentityError(
                Reason.RATE_LIMITED, "Too many calls wait for the session store.", retry_after_seconds=1.0
            )
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((script, arguments, durability, future))
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        return future

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                if self._is_busy(loop.time()):
                    await asyncio.sleep(GATHER_SECONDS)
                await self._until_it_may_set_off()
                size = min(len(self._waiting), self._max_batch)
                self._sent_calls += size
                batch = [self._waiting.popleft() for _ in range(size)]
                exchange = asyncio.create_task(self._exchange(batch))
                self._under_way.add(exchange)
                exchange.add_done_callback(self._under_way.discard)
        finally:
            self._flusher = None

    async def _until_it_may_set_off(self) -> None:
        """Until no batch is under way, or those that are take long and are not too many."""
        while self._under_way:
            is_full = len(self._under_way) >= MAX_ROUND_TRIPS
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

    async def _exchange(self, batch: Sequence[_Call]) -> None:
        try:
            answers = await self._send(batch)
            unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                # With their text, which the store keeps from then on; a hash might be forgotten once more meanwhile.
                again = await self._send([batch[place] for place in unknown], by_hash=False)
                for place, answer in zip(unknown, again, strict=True):
                    answers[place] = answer
        except (RedisError, *_AWAY):
            answers = [store_unavailable()] * len(batch)
        except Exception as error:
            # Whatever it is, those who wait must hear of it.
            answers = [error] * len(batch)
        for (*_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(_as_refusal(answer))
            else:
                future.set_result(answer)

    async def _send(self, batch: Sequence[_Call], *, by_hash: bool = True) -> list[Any]:
        request = b"".join(_packed(script, arguments, by_hash) for script, arguments, *_ in batch)
        questions = _questions(batch, self._wait_ms)
        request += b"".join(_packed(None, question) for question in questions.values())
        pool: Any = self.redis.connection_pool
        async with asyncio.timeout(self._timeout_seconds):
            connection = await pool.get_connection()
            try:
                await connection.send_packed_command(request, check_health=False)
                answers = [await _answer(connection) for _ in batch]
                reached = {kind: kind.is_reached(await _answer(connection)) for kind in questions}
            except BaseException:
                # Answers that are still to come would be taken for those of the next batch.
                await connection.disconnect(nowait=True)
                raise
            finally:
                await pool.release(connection)
        return [
            answer if reached.get(call[2], True) or isinstance(answer, NoScriptError) else not_durable()
            for call, answer in zip(batch, answers, strict=True)
        ]


def _questions(batch: Sequence[_Call], timeout_ms: int) -> dict[Durability, tuple[_Argument, ...]]:
    """What has to be waited for, each kind once for all calls."""
    kinds = sorted({call[2] for call in batch})
    return {kind: question for kind in kinds if (question := kind.question(timeout_ms)) is not None}


def _packed(script: Script | None, arguments: tuple[_Argument, ...], by_hash: bool = True) -> bytes:
    command: Any = arguments
    if script is not None:
        command = ("EVALSHA", script.sha, *arguments) if by_hash else ("EVAL", script.source, *arguments)
    packed: bytes = pack_command(command)
    return packed


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _as_refusal(error: BaseException) -> IdentityError:
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
