"""Around every method: who calls, may it, and what becomes of an error.

A method here is a plain coroutine of (caller, request). ``Calls.guard`` makes it a gRPC behaviour that
authenticates first, counts against the client's budgets, turns an ``IdentityError`` into a status, hides every
other exception, and hands refusals to the audit.
"""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc

from identity.audit.event import Circumstances, Event, EventType, Outcome
from identity.audit.ports import EventRecorder
from identity.clients.policy import Grant, require_grant
from identity.clients.registry import ClientRegistry
from identity.errors import IdentityError, Reason
from identity.rpc.authentication import CallerAuthenticator, claimed_client_id, claimed_traceparent
from identity.rpc.budgets import ClientBudgets
from identity.rpc.errors import STATUS_CODES, status_of
from identity.rpc.failures import FailureLog
from identity.rpc.metrics import CANCELLED, OK, Answered, CallMetrics
from identity.rpc.spans import CallSpans
from identity.sessions.caller import Caller

Request = TypeVar("Request")
Response = TypeVar("Response")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# Refusals that say something about who asks for what. A malformed field, a limit or a store that is away does not.
_AUDITED = frozenset(
    {
        Reason.CLIENT_UNAUTHENTICATED,
        Reason.CLIENT_DISABLED,
        Reason.GRANT_MISSING,
        Reason.SUBJECT_NOT_ALLOWED,
        Reason.AUDIENCE_NOT_ALLOWED,
        Reason.SCOPE_NOT_ALLOWED,
        Reason.ROLE_NOT_ALLOWED,
        Reason.REVOCATION_NOT_ALLOWED,
        Reason.IDEMPOTENCY_KEY_REUSED,
        Reason.SUBJECT_TOKEN_INVALID,
        Reason.RATE_LIMITED,
    }
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Method:
    """What is the same for all calls of a method."""

    name: str
    answered: Answered


@dataclass(frozen=True, slots=True)
class Calls:
    """What every guarded method shares. ``spans`` is ``None`` where nobody wants any."""

    authenticator: CallerAuthenticator
    registry: ClientRegistry
    budgets: ClientBudgets
    recorder: EventRecorder
    metrics: CallMetrics
    failures: FailureLog
    spans: CallSpans | None = None

    def guard(
        self, method: str, behaviour: Callable[[Caller, Request], Awaitable[Response]]
    ) -> Callable[[Request, Context], Awaitable[Response]]:
        """The behaviour for authenticated callers only."""
        of = self._method(method)
        answered = of.answered

        async def guarded(request: Request, context: Context) -> Response:
            began = perf_counter()
            caller: Caller | None = None
            try:
                caller = self.authenticator.authenticate(context.invocation_metadata() or (), method)
                self.budgets.start(caller.client)
                try:
                    response = await behaviour(caller, request)
                finally:
                    self.budgets.end(caller.client)
            except IdentityError as error:
                await self._refuse(context, of, caller, error, began, request)
            except CancelledError:
                answered(caller, CANCELLED, "", began)
                raise
            except Exception as error:  # what is not foreseen is logged here, and hidden from the caller
                await self._fail(context, of, caller, error, began, request)
            answered(caller, OK, "", began)
            return response

        return guarded

    def guard_stream(
        self,
        method: str,
        grant: Grant,
        behaviour: Callable[[Caller, AsyncIterator[Request]], AsyncIterator[Response]],
    ) -> Callable[[AsyncIterator[Request], Context], AsyncIterator[Response]]:
        """A streaming behaviour for callers with this grant only; it does not count against their budgets.

        The caller is looked at again with each response, so that a client that was disabled is cut off.
        """
        of = self._method(method)

        async def guarded(requests: AsyncIterator[Request], context: Context) -> AsyncIterator[Response]:
            began = perf_counter()
            caller: Caller | None = None
            metadata = context.invocation_metadata() or ()
            try:
                caller = self.authenticator.authenticate(metadata, method)
                require_grant(caller.policy, grant)
                async for response in behaviour(caller, requests):
                    caller = self.authenticator.authenticate(metadata, method)
                    require_grant(caller.policy, grant)
                    yield response
            except IdentityError as error:
                await self._refuse(context, of, caller, error, began, None)
            except (CancelledError, GeneratorExit):
                of.answered(caller, CANCELLED, "", began)
                raise
            except Exception as error:
                await self._fail(context, of, caller, error, began, None)
            of.answered(caller, OK, "", began)

        return guarded

    def open_to_all(
        self, method: str, behaviour: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request, Context], Awaitable[Response]]:
        """The behaviour without authentication; for public keys alone."""
        of = self._method(method)

        async def answered(request: Request, context: Context) -> Response:
            began = perf_counter()
            try:
                response = await behaviour(request)
            except IdentityError as error:
                await self._refuse(context, of, None, error, began, request)
            except Exception as error:
                await self._fail(context, of, None, error, began, request)
            of.answered(None, OK, "", began)
            return response

        return answered

    async def authenticate(self, context: Context, method: str) -> None:
        """Aborts unless a client calls; for services that are not ours to wrap."""
        began = perf_counter()
        try:
            self.authenticator.authenticate(context.invocation_metadata() or (), method)
        except IdentityError as error:
            await self._refuse(context, self._method(method), None, error, began, None)

    def _method(self, name: str) -> _Method:
        answered = self.metrics.of(name)
        return _Method(name, answered if self.spans is None else self.spans.beside(name, answered))

    async def _refuse(
        self,
        context: Context,
        of: _Method,
        caller: Caller | None,
        error: IdentityError,
        began: float,
        request: object,
    ) -> NoReturn:
        if error.reason in _AUDITED and not error.recorded:
            self.recorder.record(self._refusal(context, of.name, caller, error))
        if error.reason is Reason.INTERNAL:
            _log.error("%s failed", of.name, exc_info=error.__cause__ or error)
        self.failures.note(of.name, error, caller, request, context)
        of.answered(caller, STATUS_CODES[error.reason].name, error.reason, began)
        await context.abort_with_status(status_of(error))
        raise AssertionError("abort_with_status returned")

    async def _fail(
        self,
        context: Context,
        of: _Method,
        caller: Caller | None,
        error: Exception,
        began: float,
        request: object,
    ) -> NoReturn:
        _log.error("%s failed", of.name, exc_info=error)
        hidden = IdentityError(Reason.INTERNAL, "The call failed here; the failure was logged.")
        await self._refuse(context, of, caller, hidden, began, request)

    def _refusal(self, context: Context, method: str, caller: Caller | None, error: IdentityError) -> Event:
        if caller is not None:
            return Event(EventType.REQUEST_REFUSED, Outcome.REFUSED, caller.circumstances, error.reason)
        metadata = context.invocation_metadata() or ()
        circumstances = Circumstances(
            claimed_client_id(metadata, self.registry),
            method,
            traceparent=claimed_traceparent(metadata),
            detail=f"peer {context.peer()}",
        )
        return Event(EventType.CLIENT_AUTHENTICATION_FAILED, Outcome.REFUSED, circumstances, error.reason)
