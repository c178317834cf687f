"""Around every method: who calls, may it, and what becomes of an error.

A method here is a plain coroutine of (caller, request). ``Calls.guard`` makes it a gRPC behaviour that
authenticates first, counts against the client's budgets, turns an ``IdentityError`` into a status, hides every
other exception, and hands refusals to the audit.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
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
from identity.rpc.metrics import CallMetrics
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
class Calls:
    """What every guarded method shares."""

    authenticator: CallerAuthenticator
    registry: ClientRegistry
    budgets: ClientBudgets
    recorder: EventRecorder
    metrics: CallMetrics

    def guard(
        self, method: str, behaviour: Callable[[Caller, Request], Awaitable[Response]]
    ) -> Callable[[Request, Context], Awaitable[Response]]:
        """The behaviour for authenticated callers only."""
        counted = self.metrics.counter(method)

        async def guarded(request: Request, context: Context) -> Response:
            caller: Caller | None = None
            try:
                caller = self.authenticator.authenticate(context.invocation_metadata() or (), method)
                self.budgets.start(caller.client)
                try:
                    response = await behaviour(caller, request)
                finally:
                    self.budgets.end(caller.client)
            except IdentityError as error:
                await self._refuse(context, method, caller, error)
            except Exception as error:  # what is not foreseen is logged here, and hidden from the caller
                await self._fail(context, method, caller, error)
            counted("OK")
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
        counted = self.metrics.counter(method)

        async def guarded(requests: AsyncIterator[Request], context: Context) -> AsyncIterator[Response]:
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
                await self._refuse(context, method, caller, error)
            except Exception as error:
                await self._fail(context, method, caller, error)
            counted("OK")

        return guarded

    def open_to_all(
        self, method: str, behaviour: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request, Context], Awaitable[Response]]:
        """The behaviour without authentication; for public keys alone."""
        counted = self.metrics.counter(method)

        async def answered(request: Request, context: Context) -> Response:
            try:
                response = await behaviour(request)
            except IdentityError as error:
                await self._refuse(context, method, None, error)
            except Exception as error:
                await self._fail(context, method, None, error)
            counted("OK")
            return response

        return answered

    async def authenticate(self, context: Context, method: str) -> None:
        """Aborts unless a client calls; for services that are not ours to wrap."""
        try:
            self.authenticator.authenticate(context.invocation_metadata() or (), method)
        except IdentityError as error:
            await self._refuse(context, method, None, error)

    async def _refuse(
        self, context: Context, method: str, caller: Caller | None, error: IdentityError
    ) -> NoReturn:
        if error.reason in _AUDITED and not error.recorded:
            self.recorder.record(self._refusal(context, method, caller, error))
        if error.reason is Reason.INTERNAL:
            _log.error("%s failed", method, exc_info=error.__cause__ or error)
        self.metrics.counter(method)(STATUS_CODES[error.reason].name)
        await context.abort_with_status(status_of(error))
        raise AssertionError("abort_with_status returned")

    async def _fail(self, context: Context, method: str, caller: Caller | None, error: Exception) -> NoReturn:
        _log.error("%s failed", method, exc_info=error)
        await self._refuse(
            context,
            method,
            caller,
            IdentityError(Reason.INTERNAL, "The call failed here; the failure was logged."),
        )

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
