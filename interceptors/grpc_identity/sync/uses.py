"""Calls whose use of a token is recorded, on ``grpc.server``: before the answer sets off, so that no call is answered without.

Where the rule is ``MUST``, that the handler is about to run is recorded first, or it does not run. With ``USE`` that is recorded
of streams, which may answer much before they end, and they run anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import grpc

from grpc_identity.policy import UsageAudit
from grpc_identity.principal import CURRENT_CALLER, Caller
from grpc_identity.transport import Gate, behaviour_of, constructor_of
from grpc_identity.usage.uses import Use, Uses

__all__ = ["recorded", "recorded_unary"]

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def recorded_unary(gate: Gate, uses: Uses, method: str, handler: _Handler) -> _Handler:
    """The handler of a unary method, for every call of it."""
    behaviour = behaviour_of(handler)
    if gate.audit(method) is UsageAudit.MUST:
        return recorded(gate, uses, method, handler, None)
    ended = uses.ended

    def used(request: Any, context: Any) -> Any:
        caller = CURRENT_CALLER.get()
        assert caller is not None  # noqa: S101 - set by the interceptor
        try:
            response = behaviour(request, context)
        except BaseException:
            ended(method, caller.principal, caller.metadata, context.peer(), _code_of_failed(context))
            raise
        # Most calls end here, and few functions are cheaper than many.
        code = "OK" if context.code() is None and context.is_active() else _code_of_answered(context)
        ended(method, caller.principal, caller.metadata, context.peer(), code)
        return response

    return grpc.unary_unary_rpc_method_handler(
        used, handler.request_deserializer, handler.response_serializer
    )


def recorded(gate: Gate, uses: Uses, method: str, handler: _Handler, caller: Caller | None) -> _Handler:
    """The handler, for one call of this caller; ``None``: for every call."""
    behaviour = behaviour_of(handler)
    must = gate.audit(method) is UsageAudit.MUST
    is_unary = not handler.request_streaming and not handler.response_streaming

    def begin(context: Any) -> Use:
        who = caller or CURRENT_CALLER.get()
        assert who is not None  # noqa: S101 - set by the interceptor
        if is_unary and not must:
            return Use(uses, method, who.principal, who.metadata, context.peer())
        use = uses.begin(method, who.principal, who.metadata, context.peer(), must=must)
        if use is None:
            context.abort_with_status(gate.unrecorded(method).reported(context))
        assert use is not None  # noqa: S101 - `abort_with_status` raises
        return use

    def answer(request: Any, context: Any) -> Any:
        use = begin(context)
        try:
            response = behaviour(request, context)
        except BaseException:
            use.end(_code_of_failed(context))
            raise
        use.end(_code_of_answered(context))
        return response

    def answers(request: Any, context: Any) -> Iterator[Any]:
        use = begin(context)
        # A stream that nobody takes from any more is not always told.
        context.add_callback(lambda: use.end(_code_of_ended(context)))
        try:
            yield from behaviour(request, context)
        except BaseException:
            use.end(_code_of_failed(context))
            raise
        use.end(_code_of_answered(context))

    return constructor_of(handler)(
        answers if handler.response_streaming else answer,
        handler.request_deserializer,
        handler.response_serializer,
    )


def _code_of_answered(context: Any) -> str:
    return _code_of_ended(context) if not context.is_active() else _name(context)


def _code_of_failed(context: Any) -> str:
    name = _name(context)
    if name != "OK":
        return name
    return "UNKNOWN" if context.is_active() else _code_of_ended(context)


def _code_of_ended(context: Any) -> str:
    """Of a call that the caller has given up."""
    seconds_left = context.time_remaining()
    return "DEADLINE_EXCEEDED" if seconds_left is not None and seconds_left <= 0 else "CANCELLED"


def _name(context: Any) -> str:
    code = context.code()
    return code.name if isinstance(code, grpc.StatusCode) else "OK" if code is None else "UNKNOWN"
