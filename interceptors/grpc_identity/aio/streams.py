"""Calls that may outlive their token, on ``grpc.aio``: they end with ``UNAUTHENTICATED`` when it expires or is revoked.

A coroutine or an async generator is ended wherever it waits. A plain function runs in a thread, where nothing can
interrupt it: it is ended when it next hands over a response or asks for a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from math import inf
from typing import Any, Self, TypeAlias

import grpc

from grpc_identity.clock import monotonic_clock
from grpc_identity.errors import TokenError
from grpc_identity.leases import Lease
from grpc_identity.transport import Admitted, behaviour_of

__all__ = ["limited"]

_END = object()

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def limited(method: str, handler: _Handler, admitted: Admitted, *, grace_seconds: float) -> _Handler:
    """The handler of a streaming method, for one call."""
    behaviour = behaviour_of(handler)

    wrapped: Callable[..., Any]
    if inspect.isasyncgenfunction(behaviour):

        async def generated(request: Any, context: Any) -> AsyncIterator[Any]:
            with _TokenLimit(admitted, grace_seconds) as limit:
                responses = behaviour(request, _Context(context, limit))
                try:
                    while (response := await limit.wait_for(anext(responses, _END))) is not _END:
                        yield response
                except _OverError:
                    await responses.aclose()
                    await limit.refuse(method, context)

        wrapped = generated
    elif inspect.iscoroutinefunction(behaviour):

        async def awaited(request: Any, context: Any) -> Any:
            with _TokenLimit(admitted, grace_seconds) as limit:
                try:
                    return await limit.wait_for(behaviour(request, _Context(context, limit)))
                except _OverError:
                    await limit.refuse(method, context)

        wrapped = awaited
    else:
        wrapped = _plain(method, handler, behaviour, admitted, grace_seconds)
    return _constructor(handler)(wrapped, handler.request_deserializer, handler.response_serializer)


class _OverError(Exception):
    """The token is no longer good."""


class _TokenLimit:
    """The time for which a call may go on.

    Only what the handler awaits is interrupted. While gRPC itself awaits in the task of the call, as it does between
    two responses of a generator, a cancellation would end the call without a status, and its caller would wait for ever.
    """

    def __init__(self, admitted: Admitted, grace_seconds: float) -> None:
        self._admitted = admitted
        self._grace_seconds = grace_seconds
        self._loop = asyncio.get_running_loop()
        self._over_at = self._loop.time() + admitted.seconds_left() + grace_seconds
        self._waiting: asyncio.Timeout | None = None
        self._uninterrupted = 0
        self._lease: Lease | None = None

    def __enter__(self) -> Self:
        self._lease = self._admitted.lease(self._on_end)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lease is not None:
            self._admitted.release(self._lease)

    async def wait_for(self, awaitable: Awaitable[Any]) -> Any:
        """What the handler awaits. Raises ``_OverError``."""
        timeout = asyncio.timeout_at(self._over_at)
        try:
            async with timeout:
                self._waiting = timeout
                result = await awaitable
        except TimeoutError:
            if timeout.expired():
                raise _OverError from None
            raise
        finally:
            self._waiting = None
        if self._loop.time() >= self._over_at:
            raise _OverError
        return result

    @contextlib.contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """What is done meanwhile comes to its end, however long that takes."""
        self._uninterrupted += 1
        self._interrupt_at(None)
        try:
            yield
        finally:
            self._uninterrupted -= 1
            if not self._uninterrupted:
                self._interrupt_at(self._over_at)

    async def refuse(self, method: str, context: Any) -> None:
        """Ends the call."""
        lease = self._lease
        assert lease is not None  # noqa: S101 - a limit is entered before it is over
        lease.expire()
        refused = self._admitted.refusal(method, lease.ended or TimeoutError())
        await context.abort_with_status(refused.reported(context))

    def _on_end(self, error: TokenError) -> None:
        # The feed has a thread of its own, and the loop may have been closed meanwhile.
        del error
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._shorten)

    def _shorten(self) -> None:
        self._over_at = min(self._over_at, self._loop.time() + self._grace_seconds)
        if not self._uninterrupted:
            self._interrupt_at(self._over_at)

    def _interrupt_at(self, when: float | None) -> None:
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(when)


class _Context:
    """The context of a coroutine or an async generator. What gRPC does once in a call is not interrupted here.

    It takes note that the metadata have left only afterwards. If it is interrupted before, it sends them again with the status,
    which is an error: the status never leaves, and the caller waits for ever.
    """

    def __init__(self, context: Any, limit: _TokenLimit) -> None:
        self._context = context
        self._limit = limit
        self._has_begun = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def send_initial_metadata(self, metadata: Any) -> None:
        """As gRPC has it."""
        with self._limit.uninterrupted():
            await self._context.send_initial_metadata(metadata)

    async def write(self, message: Any) -> None:
        """As gRPC has it."""
        if self._has_begun:
            await self._context.write(message)
            return
        with self._limit.uninterrupted():
            await self._context.write(message)
        self._has_begun = True

    async def abort(self, code: Any, *details: Any, **more: Any) -> None:
        """As gRPC has it."""
        with self._limit.uninterrupted():
            await self._context.abort(code, *details, **more)

    async def abort_with_status(self, status: Any) -> None:
        """As gRPC has it."""
        with self._limit.uninterrupted():
            await self._context.abort_with_status(status)


class _PlainLimit:
    """The time for which a plain function may go on; its thread asks."""

    def __init__(self, admitted: Admitted, grace_seconds: float) -> None:
        self._admitted = admitted
        self._grace_seconds = grace_seconds
        self._over_at = inf
        self._lease: Lease = admitted.lease(self._on_end)

    def _on_end(self, error: TokenError) -> None:
        del error
        self._over_at = monotonic_clock() + self._grace_seconds

    def check(self) -> None:
        """Raises ``_OverError``."""
        if self._admitted.seconds_left() <= 0:
            self._lease.expire()
        if monotonic_clock() >= self._over_at:
            raise _OverError

    def checked(self, requests: Iterator[Any]) -> Iterator[Any]:
        """The requests, until the time is over."""
        for request in requests:
            self.check()
            yield request

    def refusal(self, method: str, context: Any) -> grpc.Status:
        """What the caller is told."""
        return self._admitted.refusal(method, self._lease.ended or TimeoutError()).reported(context)

    def release(self) -> None:
        """The call has ended."""
        self._admitted.release(self._lease)


def _plain(
    method: str, handler: _Handler, behaviour: Callable[..., Any], admitted: Admitted, grace_seconds: float
) -> Callable[..., Any]:
    """A plain function, run in a copy of the context that the call has now."""
    variables = contextvars.copy_context()

    def answer(requests: Any, context: Any) -> Any:
        limit = _PlainLimit(admitted, grace_seconds)
        try:
            return variables.run(behaviour, limit.checked(requests), context)
        except _OverError:
            # The context that plain functions get on this stack has no `abort_with_status`.
            status = limit.refusal(method, context)
            return context.abort(status.code, status.details, status.trailing_metadata)
        finally:
            limit.release()

    def answers(request: Any, context: Any) -> Iterator[Any]:
        limit = _PlainLimit(admitted, grace_seconds)
        argument = limit.checked(request) if handler.request_streaming else request
        try:
            responses = iter(variables.run(behaviour, argument, context))
            # Each step may be run by another thread.
            while (response := variables.run(next, responses, _END)) is not _END:
                limit.check()
                yield response
        except _OverError:
            # Not `abort`: from a thread, while the response before is on its way, it leaves the call hanging now and
            # then.
            status = limit.refusal(method, context)
            context.set_code(status.code)
            context.set_details(status.details)
            context.set_trailing_metadata(status.trailing_metadata)
        finally:
            limit.release()

    return answers if handler.response_streaming else answer


def _constructor(handler: _Handler) -> Callable[..., _Handler]:
    if handler.request_streaming:
        return (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
    return grpc.unary_stream_rpc_method_handler
