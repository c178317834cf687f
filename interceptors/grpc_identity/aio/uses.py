"""Calls whose use of a token is recorded, on ``grpc.aio``: before the answer sets off, so that no call is answered without.

Where the rule is ``MUST``, that the handler is about to run is recorded first, or it does not run. With ``USE`` that is recorded
of streams, which may answer much before they end, and they run anyway.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import grpc

from grpc_identity.policy import UsageAudit
from grpc_identity.principal import CURRENT_CALLER, Caller
from grpc_identity.transport import Gate, behaviour_of, constructor_of
from grpc_identity.usage.uses import Use, Uses

__all__ = ["recorded", "recorded_unary"]

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Behaviour: TypeAlias = Callable[..., Any]
_Begin: TypeAlias = Callable[[Any], "Use | None"]


def recorded_unary(gate: Gate, uses: Uses, method: str, handler: _Handler) -> _Handler:
    """The handler of a unary method that is a coroutine, for every call of it."""
    behaviour = behaviour_of(handler)
    if gate.audit(method) is UsageAudit.MUST:
        return recorded(gate, uses, method, handler, None)
    ended = uses.ended

    async def used(request: Any, context: Any) -> Any:
        caller = CURRENT_CALLER.get()
        assert caller is not None  # noqa: S101 - set by the interceptor
        try:
            response = await behaviour(request, context)
        except BaseException as error:
            ended(method, caller.principal, caller.metadata, context.peer(), _code_of(error, context))
            raise
        code = context.code()
        name = "OK" if code is None else _name(code)
        ended(method, caller.principal, caller.metadata, context.peer(), name)
        return response

    return grpc.unary_unary_rpc_method_handler(
        used, handler.request_deserializer, handler.response_serializer
    )


def recorded(gate: Gate, uses: Uses, method: str, handler: _Handler, caller: Caller | None) -> _Handler:
    """The handler, for one call of this caller; ``None``: for every call."""
    behaviour = behaviour_of(handler)
    must = gate.audit(method) is UsageAudit.MUST
    is_unary = not handler.request_streaming and not handler.response_streaming

    def begin(context: Any) -> Use | None:
        who = caller or CURRENT_CALLER.get()
        assert who is not None  # noqa: S101 - set by the interceptor
        if is_unary and not must:
            return Use(uses, method, who.principal, who.metadata, context.peer())
        return uses.begin(method, who.principal, who.metadata, context.peer(), must=must)

    if inspect.isasyncgenfunction(behaviour):
        wrapped = _generator(gate, method, behaviour, begin)
    elif inspect.iscoroutinefunction(behaviour):
        wrapped = _coroutine(gate, method, behaviour, begin)
    else:
        wrapped = _plain(gate, method, handler, behaviour, begin)
    return constructor_of(handler)(wrapped, handler.request_deserializer, handler.response_serializer)


def _generator(gate: Gate, method: str, behaviour: _Behaviour, begin: _Begin) -> _Behaviour:
    async def used(request: Any, context: Any) -> AsyncIterator[Any]:
        use = begin(context)
        if use is None:
            await context.abort_with_status(gate.unrecorded(method).reported(context))
            return
        # A generator that waits for its response to be taken is not told that nobody will.
        context.add_done_callback(lambda ended: use.end(_code_of(GeneratorExit(), ended)))
        responses = behaviour(request, context)
        try:
            async for response in responses:
                yield response
        except BaseException as error:
            use.end(_code_of(error, context))
            await responses.aclose()
            raise
        use.end(_name(context.code()))

    return used


def _coroutine(gate: Gate, method: str, behaviour: _Behaviour, begin: _Begin) -> _Behaviour:
    async def used(request: Any, context: Any) -> Any:
        use = begin(context)
        if use is None:
            await context.abort_with_status(gate.unrecorded(method).reported(context))
            return None
        try:
            response = await behaviour(request, context)
        except BaseException as error:
            use.end(_code_of(error, context))
            raise
        use.end(_name(context.code()))
        return response

    return used


class _Noticing:
    """The context of a plain function, which on this stack does not tell which code was set."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.noticed: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def set_code(self, code: Any) -> None:
        """As gRPC has it."""
        self.noticed = code
        self._context.set_code(code)

    def abort(self, code: Any, *details: Any, **more: Any) -> Any:
        """As gRPC has it."""
        self.noticed = code
        return self._context.abort(code, *details, **more)

    def code(self) -> Any:
        """What was set last."""
        return self.noticed


def _plain(
    gate: Gate,
    method: str,
    handler: _Handler,
    behaviour: _Behaviour,
    begin: _Begin,
) -> _Behaviour:
    """A plain function, which gRPC runs in a thread."""

    def refuse(context: Any) -> None:
        status = gate.unrecorded(method).reported(context)
        context.abort(status.code, status.details, status.trailing_metadata)

    def answer(request: Any, context: Any) -> Any:
        use, noticing = begin(context), _Noticing(context)
        if use is None:
            return refuse(context)
        try:
            response = behaviour(request, noticing)
        except BaseException as error:
            use.end(_code_of(error, noticing))
            raise
        use.end(_name(noticing.code()))
        return response

    def answers(request: Any, context: Any) -> Iterator[Any]:
        use, noticing = begin(context), _Noticing(context)
        if use is None:
            # Not `abort`, which leaves a stream of a plain function hanging now and then.
            status = gate.unrecorded(method).reported(context)
            context.set_code(status.code)
            context.set_details(status.details)
            context.set_trailing_metadata(status.trailing_metadata)
            return
        try:
            yield from behaviour(request, noticing)
        except BaseException as error:
            use.end(_code_of(error, noticing))
            raise
        use.end(_name(noticing.code()))

    return answers if handler.response_streaming else answer


_NAMES: dict[Any, str] = {None: "OK"}
for _code in grpc.StatusCode:
    _NAMES[_code] = _NAMES[_code.value[0]] = _code.name


def _name(code: Any) -> str:
    return _NAMES.get(code, "UNKNOWN")


def _code_of(error: BaseException, context: Any) -> str:
    """The status of a call whose handler has raised, as gRPC finds it."""
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        seconds_left = context.time_remaining()
        return "DEADLINE_EXCEEDED" if seconds_left is not None and seconds_left <= 0 else "CANCELLED"
    name = _name(context.code())
    return "UNKNOWN" if name == "OK" else name
