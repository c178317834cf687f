"""The interceptor for ``grpc.server`` servers.

A call is decided from its metadata, before a message of it is read. One that is refused gets a stream-stream handler,
whatever its kind: a unary one would wait for a message first. For one that is admitted the caller is put in the
context of the call, in which gRPC runs the handler.

Interceptors run on the one thread that accepts calls, so nothing waits there. Where keys must be fetched first, the
handler is wrapped: its thread of the pool waits, decides, and only then reads a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeAlias

import grpc

from grpc_identity.errors import NotHeldError
from grpc_identity.policy import Policy, UsageAudit
from grpc_identity.principal import CURRENT_CALLER, Caller
from grpc_identity.sync.streams import Alarms, limited
from grpc_identity.sync.uses import recorded, recorded_unary
from grpc_identity.transport import Gate, Refusal, behaviour_of
from grpc_identity.usage.ports import UsageSink
from grpc_identity.verifier import Verifier

__all__ = ["AuthInterceptor"]

MAX_WAITING_CALLS = 4
_MAX_KNOWN_HANDLERS = 4096
_END = object()

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], _Handler | None]"


class AuthInterceptor(grpc.ServerInterceptor):
    """Admits verified callers only, and makes them known to handlers as ``current_principal()``.

    >>> from grpc_identity import Policy
    >>> from grpc_identity.testing import InMemoryIssuer
    >>> verifier = Verifier(InMemoryIssuer(audience="orders").trusted())
    >>> interceptor = AuthInterceptor(verifier, Policy().public(Policy.HEALTH))

    Without a policy every method needs a valid token. Put it first among the interceptors, so that nothing is done
    for strangers. ``max_waiting_calls`` is how many threads of the pool may wait for keys at a time. A streaming call
    ends when its token expires or is revoked, after ``stream_grace_seconds``: with ``UNAUTHENTICATED``, or with
    ``CANCELLED`` if its handler neither reads nor writes. ``usage`` records uses of tokens, where a rule asks for it with
    ``audit``.
    """

    def __init__(
        self,
        verifier: Verifier,
        policy: Policy | None = None,
        *,
        max_waiting_calls: int = MAX_WAITING_CALLS,
        stream_grace_seconds: float = 0.0,
        usage: UsageSink | None = None,
    ) -> None:
        self._stream_grace_seconds = stream_grace_seconds
        self._alarms = Alarms()
        self._gate = Gate(verifier, policy, max_waiting=max_waiting_calls, usage=usage)
        self._uses = self._gate.uses
        self._recorded_handlers: dict[str, tuple[_Handler, _Handler]] = {}

    def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler | None:
        """Called by gRPC for each call."""
        call = handler_call_details
        waits, caller = False, None
        try:
            try:
                caller = self._gate.admit(call.method, call.invocation_metadata)
                CURRENT_CALLER.set(caller)
            except NotHeldError as error:
                waits = self._gate.may_wait(error, call.invocation_metadata)
                if not waits:
                    raise
        except Exception as error:
            return _refusing(self._gate.refusal(call.method, error))
        handler = continuation(call)
        if waits:
            return self._decided_later(call, handler)
        return handler if handler is None else self._limited(call, handler, caller)

    def _limited(self, call: grpc.HandlerCallDetails, handler: _Handler, caller: Caller | None) -> _Handler:
        if caller is None or self._uses is None:
            return self._ended_in_time(call, handler, caller)
        method = call.method
        known, wrapped = self._recorded_handlers.get(method, (None, None))
        if known is handler and wrapped is not None:
            caller.metadata = call.invocation_metadata
            return wrapped
        ended_in_time = self._ended_in_time(call, handler, caller)
        if self._gate.audit(method) is UsageAudit.NONE:
            return ended_in_time
        caller.metadata = call.invocation_metadata
        if ended_in_time is not handler or len(self._recorded_handlers) >= _MAX_KNOWN_HANDLERS:
            return recorded(self._gate, self._uses, method, ended_in_time, caller)
        wrapped = recorded_unary(self._gate, self._uses, method, handler)
        self._recorded_handlers[method] = (handler, wrapped)
        return wrapped

    def _ended_in_time(
        self, call: grpc.HandlerCallDetails, handler: _Handler, caller: Caller | None
    ) -> _Handler:
        if caller is None or not (handler.request_streaming or handler.response_streaming):
            return handler
        admitted = self._gate.admitted(caller)
        grace_seconds = self._stream_grace_seconds
        return limited(call.method, handler, admitted, grace_seconds=grace_seconds, alarms=self._alarms)

    def _decided_later(self, call: grpc.HandlerCallDetails, handler: _Handler | None) -> _Handler:
        def decide(context: grpc.ServicerContext) -> Caller | None:
            try:
                caller = self._gate.admit_waiting(call.method, call.invocation_metadata)
            except Exception as error:
                context.abort_with_status(self._gate.refusal(call.method, error).reported(context))
            CURRENT_CALLER.set(caller)
            return caller

        if handler is None:

            def unknown(_: object, context: grpc.ServicerContext) -> NoReturn:
                decide(context)
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

            return grpc.stream_stream_rpc_method_handler(unknown)

        def decided(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            behaviour = behaviour_of(self._limited(call, handler, decide(context)))
            # The message is read and deserialised here, after the decision.
            return behaviour(requests if handler.request_streaming else _only(requests, context), context)

        constructor = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return constructor(decided, handler.request_deserializer, handler.response_serializer)


def _refusing(refused: Refusal) -> _Handler:
    def refusal(_: object, context: grpc.ServicerContext) -> NoReturn:
        context.abort_with_status(refused.reported(context))

    return grpc.stream_stream_rpc_method_handler(refusal)


def _only(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
    request = next(requests, _END)
    if request is _END:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method requires exactly one request message.")
    return request
