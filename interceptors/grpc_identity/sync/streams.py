"""Calls that may outlive their token, on ``grpc.server``: they end with ``UNAUTHENTICATED`` when it expires or is revoked.

A handler runs in a thread, where nothing can interrupt it: it is ended when it next hands over a response or asks for
a request. One that does neither is cancelled a moment later, which the caller sees as ``CANCELLED``; aborting from
another thread would leave the call hanging.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc

from grpc_identity.clock import Clock, monotonic_clock
from grpc_identity.leases import Lease
from grpc_identity.transport import Admitted, behaviour_of

__all__ = ["Alarms", "limited"]

# How long a call has to notice by itself, before it is cancelled.
NOTICE_SECONDS = 1.0

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Alarm:
    """A function that is to be called, unless it is cancelled before."""

    __slots__ = ("_function", "_on_cancel")

    def __init__(self, function: Callable[[], object], on_cancel: Callable[[], object]) -> None:
        self._function: Callable[[], object] | None = function
        self._on_cancel = on_cancel

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._function is None

    def cancel(self) -> None:
        """Lets go of the function."""
        if self._function is not None:
            self._function = None
            self._on_cancel()

    def ring(self) -> None:
        """Its time has come."""
        function = self._function
        if function is not None:
            function()


class Alarms:
    """Calls functions at their time, all from one thread, which is there only while there is something to wait for."""

    def __init__(self, monotonic: Clock = monotonic_clock) -> None:
        self._monotonic = monotonic
        self._condition = threading.Condition()
        self._due: list[tuple[float, int, Alarm]] = []
        self._count = itertools.count()
        self._cancelled = 0
        self._thread: threading.Thread | None = None

    def set(self, seconds: float, function: Callable[[], object]) -> Alarm:
        """Calls ``function`` after that time. It should be quick."""
        alarm = Alarm(function, self._forget)
        with self._condition:
            heapq.heappush(self._due, (self._monotonic() + seconds, next(self._count), alarm))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="grpc_identity alarms", daemon=True)
                self._thread.start()
            self._condition.notify_all()
        return alarm

    def __len__(self) -> int:
        return len(self._due)

    def _forget(self) -> None:
        # Calls end long before their tokens do. What is cancelled is swept out when it is half of all, which costs
        # each alarm a constant share.
        with self._condition:
            self._cancelled += 1
            if self._cancelled * 2 >= len(self._due):
                self._due = [entry for entry in self._due if not entry[2].is_cancelled]
                heapq.heapify(self._due)
                self._cancelled = 0
                self._condition.notify_all()

    def _run(self) -> None:
        while True:
            with self._condition:
                if not self._due:
                    self._thread = None
                    return
                left_seconds = self._due[0][0] - self._monotonic()
                if left_seconds > 0:
                    self._condition.wait(min(left_seconds, threading.TIMEOUT_MAX))
                    continue
                _, _, alarm = heapq.heappop(self._due)
            alarm.ring()


class _Limit:
    """The time for which a call may go on."""

    def __init__(
        self, method: str, admitted: Admitted, context: Any, grace_seconds: float, alarms: Alarms
    ) -> None:
        self._method = method
        self._admitted = admitted
        self._context = context
        self._alarms = alarms
        self._over = False
        self._set: list[Alarm] = []
        self._lease: Lease = admitted.lease(lambda _: self._later(grace_seconds, self._end))
        self._later(max(0.0, admitted.seconds_left()), self._lease.expire)
        if not context.add_callback(self._release):
            # The call was over before its handler began.
            self._release()

    def check(self) -> None:
        """Aborts the call if its time is over; for the thread of the handler."""
        if self._over and self._lease.ended is not None:
            refused = self._admitted.refusal(self._method, self._lease.ended)
            self._context.abort_with_status(refused.reported(self._context))

    def _end(self) -> None:
        self._over = True
        self._later(NOTICE_SECONDS, self._context.cancel)

    def _later(self, seconds: float, function: Callable[[], object]) -> None:
        self._set.append(self._alarms.set(seconds, function))

    def _release(self) -> None:
        self._admitted.release(self._lease)
        for alarm in self._set:
            alarm.cancel()


def limited(
    method: str, handler: _Handler, admitted: Admitted, *, grace_seconds: float, alarms: Alarms
) -> _Handler:
    """The handler of a streaming method, for one call."""
    behaviour = behaviour_of(handler)

    def answers(request: Any, context: Any) -> Iterator[Any]:
        limit = _Limit(method, admitted, context, grace_seconds, alarms)
        for response in behaviour(
            _checked(request, limit) if handler.request_streaming else request, context
        ):
            limit.check()
            yield response

    def answer(requests: Any, context: Any) -> Any:
        limit = _Limit(method, admitted, context, grace_seconds, alarms)
        return behaviour(_checked(requests, limit), context)

    if not handler.response_streaming:
        constructor: Callable[..., _Handler] = grpc.stream_unary_rpc_method_handler
    elif handler.request_streaming:
        constructor = grpc.stream_stream_rpc_method_handler
    else:
        constructor = grpc.unary_stream_rpc_method_handler
    return constructor(
        answers if handler.response_streaming else answer,
        handler.request_deserializer,
        handler.response_serializer,
    )


def _checked(requests: Iterator[Any], limit: _Limit) -> Iterator[Any]:
    for request in requests:
        limit.check()
        yield request
