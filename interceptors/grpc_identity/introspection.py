"""Asking the issuer about one token (``Introspect``, RFC 7662), for while nothing is heard of revocations.

One question for a token at a time, however many callers; the answer is used for a few seconds. An issuer that does not
answer makes the token refused, for a second, and is then asked again. Bounded in threads and in what is remembered.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc

from grpc_identity.channels import ChannelFactory
from grpc_identity.clock import Clock, monotonic_clock
from grpc_identity.v1.identity_service_pb2 import IntrospectRequest
from grpc_identity.v1.identity_service_pb2_grpc import IdentityServiceStub

__all__ = ["Introspector"]

MAX_QUESTIONS = 4
MAX_REMEMBERED = 10_000
ANSWER_GOOD_FOR_SECONDS = 5.0
FAILURE_GOOD_FOR_SECONDS = 1.0
TIMEOUT_SECONDS = 2.0


class Introspector:
    """Asks one issuer."""

    def __init__(
        self,
        channel: ChannelFactory,
        metadata: Sequence[tuple[str, str]],
        *,
        monotonic: Clock = monotonic_clock,
    ) -> None:
        self._channel = channel
        self._metadata = tuple(metadata)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._answers: dict[bytes, tuple[bool | None, float]] = {}
        self._under_way: dict[bytes, Future[None]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def answer(self, digest: bytes) -> tuple[bool, bool | None]:
        """Whether there is an answer about the token with this digest, and which; ``None``: the issuer is away."""
        active, until = self._answers.get(digest, (None, 0.0))
        return (True, active) if until > self._monotonic() else (False, None)

    def ask(self, token: str, digest: bytes) -> Future[None]:
        """Asks, or joins who asks; never raises through the future."""
        with self._lock:
            flight = self._under_way.get(digest)
            if flight is None:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(MAX_QUESTIONS, "grpc_identity introspection")
                flight = self._under_way[digest] = Future()
                flight.set_running_or_notify_cancel()
                self._pool.submit(self._run, token, digest, flight)
            return flight

    def close(self) -> None:
        """Ends the threads."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, token: str, digest: bytes, flight: Future[None]) -> None:
        active: bool | None = None
        try:
            with self._channel.open((("grpc.enable_retries", 0),)) as channel:
                stub: Any = IdentityServiceStub(channel)
                request = IntrospectRequest(token=token)
                active = stub.Introspect(request, timeout=TIMEOUT_SECONDS, metadata=self._metadata).active
        except grpc.RpcError:
            active = None
        finally:
            good_for = FAILURE_GOOD_FOR_SECONDS if active is None else ANSWER_GOOD_FOR_SECONDS
            with self._lock:
                if len(self._answers) >= MAX_REMEMBERED:
                    self._answers.clear()
                self._answers[digest] = (active, self._monotonic() + good_for)
                self._under_way.pop(digest, None)
            flight.set_result(None)
