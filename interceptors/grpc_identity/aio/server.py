"""The interceptor for ``grpc.aio`` servers.

A call is decided from its metadata, before a message of it is read. One that is refused gets a stream-stream handler,
whatever its kind: a unary one would wait for a message first. For one that is admitted the caller is put in the
context of its task, where coroutines and async generators find it, and the handler is returned as it is. Handlers
that are plain functions run in threads, which know nothing of that context; those are wrapped.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeAlias

import grpc
import grpc.aio

from grpc_identity.aio.streams import limited
from grpc_identity.aio.uses import recorded, recorded_unary
from grpc_identity.errors import NotHeldError
from grpc_identity.policy import Policy, UsageAudit
from grpc_identity.principal import CURRENT_CALLER, Caller
from grpc_identity.transport import Gate, Refusal, behaviour_of
from grpc_identity.usage.ports import UsageSink
from grpc_identity.usage.uses import Uses
from grpc_identity.verifier import Verifier

__all__ = ["AuthInterceptor"]

MAX_WAITING_CALLS = 1024
_MAX_KNOWN_HANDLERS = 4096
_END = object()
_UNKNOWN = (object(), None)

_logger = logging.getLogger("grpc_identity")

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]]"


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Admits verified callers only, and makes them known to handlers as ``current_principal()``.

    >>> from grpc_identity import Policy
    >>> from grpc_identity.testing import InMemoryIssuer
    >>> verifier = Verifier(InMemoryIssuer(audience="orders").trusted())
    >>> interceptor = AuthInterceptor(verifier, Policy().public(Policy.HEALTH))

    Without a policy every method needs a valid token. Put it first among the interceptors, so that nothing is done
    for strangers. A streaming call ends with ``UNAUTHENTICATED`` when its token expires or is revoked, after
    ``stream_grace_seconds``. ``usage`` records uses of tokens, where a rule asks for it with ``audit``.
    """

    def __init__(
        self,
        verifier: Verifier,
        policy: Policy | None = None,
        *,
        stream_grace_seconds: float = 0.0,
        usage: UsageSink | None = None,
    ) -> None:
        self._stream_grace_seconds = stream_grace_seconds
        self._gate = Gate(verifier, policy, max_waiting=MAX_WAITING_CALLS, usage=usage)
        self._uses = self._gate.uses
        self._admit = self._gate.admit
        self._async_handlers: dict[str, _Handler] = {}
        self._recorded_handlers: dict[str, tuple[_Handler, _Handler]] = {}

    def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Coroutine[Any, Any, _Handler | None]:
        """Called by gRPC for each call."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            # `grpc.server` takes any interceptor and would hang on the coroutine it gets from this one.
            misplaced: Any = _misplaced()
            return misplaced  # type: ignore[no-any-return]
        # Asked once: what the first call comes from, the others do, too.
        self.intercept_service = self._intercept  # type: ignore[method-assign]
        return self._intercept(continuation, handler_call_details)

    async def _intercept(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        call = handler_call_details
        try:
            try:
                caller = self._admit(call.method, call.invocation_metadata)
            except NotHeldError:
                caller = await self._gate.admit_async(call.method, call.invocation_metadata)
        except Exception as error:
            return _refusing(self._gate.refusal(call.method, error))
        CURRENT_CALLER.set(caller)
        handler = await continuation(call)
        if caller is not None and self._uses is not None:
            known, wrapped = self._recorded_handlers.get(call.method, _UNKNOWN)
            if known is handler:
                caller.metadata = call.invocation_metadata
                return wrapped
            if handler is not None and self._gate.audit(call.method) is not UsageAudit.NONE:
                return self._recorded(self._uses, call, handler, caller)
        if handler is None or self._async_handlers.get(call.method) is handler:
            return handler
        return self._limited(call.method, handler, caller)

    def _limited(self, method: str, handler: _Handler, caller: Caller | None) -> _Handler:
        if caller is not None and (handler.request_streaming or handler.response_streaming):
            admitted = self._gate.admitted(caller)
            return limited(method, handler, admitted, grace_seconds=self._stream_grace_seconds)
        return self._adapt(method, handler)

    def _recorded(
        self, uses: Uses, call: grpc.HandlerCallDetails, handler: _Handler, caller: Caller
    ) -> _Handler:
        method = call.method
        caller.metadata = call.invocation_metadata
        adapted = self._limited(method, handler, caller)
        if self._async_handlers.get(method) is handler:
            wrapped = recorded_unary(self._gate, uses, method, handler)
            self._recorded_handlers[method] = (handler, wrapped)
            return wrapped
        return recorded(self._gate, uses, method, adapted, caller)

    def _adapt(self, method: str, handler: _Handler) -> _Handler:
        behaviour = behaviour_of(handler)
        if _is_async(behaviour):
            is_unary = not handler.request_streaming and not handler.response_streaming
            if is_unary and len(self._async_handlers) < _MAX_KNOWN_HANDLERS:
                self._async_handlers[method] = handler
            return handler
        return _with_context(handler, behaviour)


def _refusing(refused: Refusal) -> _Handler:
    async def refusal(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort_with_status(refused.reported(context))

    return grpc.stream_stream_rpc_method_handler(refusal)


def _misplaced() -> _Handler:
    message = "grpc_identity.aio.AuthInterceptor is for grpc.aio servers; this one needs grpc_identity.sync"
    _logger.error(message)

    def refusal(_: object, context: grpc.ServicerContext) -> Iterator[Any]:
        context.abort(grpc.StatusCode.INTERNAL, message)

    return grpc.stream_stream_rpc_method_handler(refusal)


def _is_async(behaviour: Callable[..., Any]) -> bool:
    # As `grpc.aio` tells coroutines from what it runs in a thread.
    return (
        inspect.iscoroutinefunction(behaviour)
        or inspect.isasyncgenfunction(behaviour)
        or inspect.isawaitable(behaviour)
    )


def _with_context(handler: _Handler, behaviour: Callable[..., Any]) -> _Handler:
    """The handler of a plain function, run in a copy of the context that the call has now."""
    context = contextvars.copy_context()

    def answer(request: Any, servicer_context: Any) -> Any:
        return context.run(behaviour, request, servicer_context)

    def answers(request: Any, servicer_context: Any) -> Iterator[Any]:
        responses = iter(context.run(behaviour, request, servicer_context))
        # Each step may be run by another thread.
        while (response := context.run(next, responses, _END)) is not _END:
            yield response

    if handler.request_streaming:
        make = (
            (grpc.stream_stream_rpc_method_handler, answers)
            if handler.response_streaming
            else (grpc.stream_unary_rpc_method_handler, answer)
        )
    else:
        make = (
            (grpc.unary_stream_rpc_method_handler, answers)
            if handler.response_streaming
            else (grpc.unary_unary_rpc_method_handler, answer)
        )
    constructor, wrapped = make
    return constructor(wrapped, handler.request_deserializer, handler.response_serializer)
