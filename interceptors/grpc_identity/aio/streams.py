"""Calls that may outlive their token, on ``grpc.aio``: they end with ``UNAUTHENTICATED`` when it expires or is revoked.

A coroutine or an async generator is ended wherever it waits. A plain function runs in a thread, where nothing can
interrupt it: it is ended when it next hands over a response.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, TypeAlias

import grpc

from grpc_identity.errors import TokenError
from grpc_identity.leases import Lease
from grpc_identity.transport import Admitted, Refusal, behaviour_of

__all__ = ["limited"]

_END = object()

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def limited(method: str, handler: _Handler, admitted: Admitted, *, grace_seconds: float) -> _Handler:
    """The handler of a streaming method, for one call."""
    behaviour = behaviour_of(handler)

    def limit(context: Any) -> _TokenLimit:
        return _TokenLimit(method, admitted, context, grace_seconds)

    wrapped: Callable[..., Any]
    if inspect.isasyncgenfunction(behaviour):

        async def generated(request: Any, context: Any) -> AsyncIterator[Any]:
            async with limit(context):
                async for response in behaviour(request, context):
                    yield response

        wrapped = generated
    elif inspect.iscoroutinefunction(behaviour):

        async def awaited(request: Any, context: Any) -> Any:
            async with limit(context):
                return await behaviour(request, context)

        wrapped = awaited
    else:
        wrapped = _plain(method, handler, behaviour, admitted)
    return _constructor(handler)(wrapped, handler.request_deserializer, handler.response_serializer)


class _TokenLimit:
    """The time for which a call may go on."""

    def __init__(self, method: str, admitted: Admitted, context: Any, grace_seconds: float) -> None:
        self._method = method
        self._admitted = admitted
        self._context = context
        self._grace_seconds = grace_seconds
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(admitted.seconds_left() + grace_seconds)
        self._lease: Lease | None = None

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._lease = self._admitted.lease(self._on_end)

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lease = self._lease
        if lease is not None:
            self._admitted.release(lease)
        try:
            await self._timeout.__aexit__(exception_type, exception, traceback)
        except TimeoutError:
            if lease is not None:
                lease.expire()
            error = lease.ended if lease is not None else None
            refused = self._admitted.refusal(self._method, error or TimeoutError())
            await self._context.abort_with_status(refused.reported(self._context))

    def _on_end(self, error: TokenError) -> None:
        # The feed has a thread of its own, and the loop may have been closed meanwhile.
        del error
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._shorten)

    def _shorten(self) -> None:
        now = self._loop.time()
        when = self._timeout.when()
        if when is not None and not self._timeout.expired():
            self._timeout.reschedule(min(when, now + self._grace_seconds))


def _plain(
    method: str, handler: _Handler, behaviour: Callable[..., Any], admitted: Admitted
) -> Callable[..., Any]:
    """A plain function, run in a copy of the context that the call has now."""
    variables = contextvars.copy_context()
    if not handler.response_streaming:
        return lambda request, context: variables.run(behaviour, request, context)

    def answers(request: Any, context: Any) -> Iterator[Any]:
        lease = admitted.lease(lambda _: None)
        try:
            responses = iter(variables.run(behaviour, request, context))
            # Each step may be run by another thread.
            while (response := variables.run(next, responses, _END)) is not _END:
                if admitted.seconds_left() <= 0:
                    lease.expire()
                if lease.ended is not None:
                    _abort(context, admitted.refusal(method, lease.ended))
                yield response
        finally:
            admitted.release(lease)

    return answers


def _abort(context: Any, refused: Refusal) -> None:
    # The context that plain functions get on this stack has no `abort_with_status`.
    status = refused.reported(context)
    context.abort(status.code, status.details, status.trailing_metadata)


def _constructor(handler: _Handler) -> Callable[..., _Handler]:
    if handler.request_streaming:
        return (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
    return grpc.unary_stream_rpc_method_handler
