"""Access tokens for outgoing calls, always fresh; one object for ``grpc.aio`` and ``grpc`` alike.

``token_state`` decides, ``token_grants`` asks, and here is what waits: one thread a source, which lives only while there
is something to do. So there is never more than one question in flight, and a caller that gives up, by its deadline or
by being cancelled, gives up its own waiting and nothing else. Rules of renewal and of failure: see ``token_state``.

After a fork the child has no thread until it asks; see ``SessionGrant`` for whose the session is then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, Self

from grpc_identity.clock import Clock, monotonic_clock, wall_clock
from grpc_identity.errors import SessionEndedError, TokenSourceError, TokenUnavailableError
from grpc_identity.token_grants import (
    AttemptFailedError,
    Grant,
)
from grpc_identity.token_state import TokenState

if TYPE_CHECKING:
    import grpc


__all__ = ["AccessTokens", "TokenSource", "land"]

WAIT_SECONDS = 10.0
ASK_TIMEOUT_SECONDS = 5.0
_STOP_WAIT_SECONDS = 1.0

_logger = logging.getLogger("grpc_identity.tokens")


class AccessTokens(Protocol):
    """Where the interceptors get the token of a call from."""

    def token(self, *, timeout_seconds: float = WAIT_SECONDS) -> str:
        """The token to send; may block. Raises ``TokenSourceError``."""

    async def token_async(self, *, timeout_seconds: float = WAIT_SECONDS) -> str:
        """The token to send. Raises ``TokenSourceError``."""

    def invalidate(self, access_token: str, *, certain: bool = True) -> None:
        """A service has refused this token as expired, revoked or signed with an unknown key; or perhaps it has."""


class TokenSource:
    """What ``SessionTokens`` and ``ClientCredentials`` have in common."""

    def __init__(
        self,
        grant: Grant,
        *,
        name: str,
        clock: Clock = wall_clock,
        monotonic: Clock = monotonic_clock,
    ) -> None:
        self._grant = grant
        self._name = name
        self._wall = clock
        self._monotonic = monotonic
        self._state = TokenState(monotonic=monotonic, wall=clock)
        self._closed = False
        self._wake: threading.Condition
        self._flight: Future[None] | None
        self._thread: threading.Thread | None
        self._after_fork()
        _sources.add(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name})"

    def token(self, *, timeout_seconds: float = WAIT_SECONDS) -> str:
        """The token to send now; blocks only where none is held that is still good.

        Raises ``TokenUnavailableError``, ``TokenRefusedError`` and ``SessionEndedError``.
        """
        deadline = self._monotonic_now() + timeout_seconds
        while True:
            held = self._held_or_flight()
            if isinstance(held, str):
                return held
            try:
                held.result(max(0.0, deadline - self._monotonic_now()))
            except TimeoutError:
                raise self._out_of_time(timeout_seconds) from None

    async def token_async(self, *, timeout_seconds: float = WAIT_SECONDS) -> str:
        """As ``token``, for coroutines."""
        deadline = self._monotonic_now() + timeout_seconds
        while True:
            held = self._held_or_flight()
            if isinstance(held, str):
                return held
            try:
                # Cancelling this cannot cancel the flight, which is marked as running.
                async with asyncio.timeout(max(0.0, deadline - self._monotonic_now())):
                    await asyncio.wrap_future(held)
            except TimeoutError:
                raise self._out_of_time(timeout_seconds) from None

    def when_ready(self, callback: Callable[[str | None, TokenSourceError | None], None]) -> None:
        """Calls back once, with the token or with why there is none: at once, or from another thread. Never blocks."""
        try:
            held = self._held_or_flight()
        except TokenSourceError as error:
            callback(None, error)
            return
        if isinstance(held, str):
            callback(held, None)
            return

        def landed(_: Future[None]) -> None:
            with self._wake:
                token = self._state.usable()
                error = None if token is not None else self._state.why_not()
            if token is None and error is None:
                error = TokenUnavailableError(f"{self._name}: no token could be had")
            callback(token, error)

        held.add_done_callback(landed)

    def invalidate(self, access_token: str, *, certain: bool = True) -> None:
        """A service has refused this token as expired or revoked: it is not handed out again.

        At most once for a token, and not at all for one that was replaced already. Where that is not ``certain``, it
        is handed out until another is there, which is asked for at once.
        """
        with self._wake:
            given_up = self._state.invalidate(access_token, certain=certain)
            if given_up and not certain and not self._closed:
                self._run_thread()
        if given_up:
            _logger.info("%s: the access token was refused by a service; getting another", self._name)

    def call_credentials(self) -> grpc.CallCredentials:
        """For ``grpc.composite_channel_credentials``; gRPC sends them on secure channels only."""
        from grpc_identity.client_calls import call_credentials

        return call_credentials(self)

    def aio_channel(self, target: str, **options: Any) -> grpc.aio.Channel:
        """A channel whose calls carry the token. Options: see ``grpc_identity.aio.open_channel``."""
        from grpc_identity.aio.client import open_channel

        return open_channel(target, self, **options)

    def sync_channel(self, target: str, **options: Any) -> grpc.Channel:
        """A channel whose calls carry the token. Options: see ``grpc_identity.sync.open_channel``."""
        from grpc_identity.sync.client import open_channel

        return open_channel(target, self, **options)

    def aio_interceptors(
        self, *, target: str | None = None, allow_plaintext: bool = False
    ) -> list[grpc.aio.ClientInterceptor]:
        """For ``grpc.aio`` channels. See ``grpc_identity.aio.client_interceptors``."""
        from grpc_identity.aio.client import client_interceptors

        return client_interceptors(self, target=target, allow_plaintext=allow_plaintext)

    def sync_interceptors(self, *, target: str | None = None, allow_plaintext: bool = False) -> list[Any]:
        """For ``grpc.intercept_channel``. See ``grpc_identity.sync.client_interceptors``."""
        from grpc_identity.sync.client import client_interceptors

        return client_interceptors(self, target=target, allow_plaintext=allow_plaintext)

    def close(self) -> None:
        """Ends the thread and fails those who wait. A question under way is left to its time limit."""
        with self._wake:
            self._closed = True
            flight = self._take_flight()
            self._wake.notify_all()
            thread = self._thread
        land(flight)
        if thread is not None and thread is not threading.current_thread():
            thread.join(_STOP_WAIT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.close)

    def _held_or_flight(self) -> str | Future[None]:
        with self._wake:
            token = self._state.usable()
            if token is not None:
                # The thread may sleep longer than it should: its clock stands still in a suspended machine.
                wake = self._state.use() or self._state.due_in(asked=False) == 0
                if wake and not self._closed:
                    self._run_thread()
                return token
            if self._closed:
                raise TokenUnavailableError(f"{self._name}: closed")
            if (error := self._state.why_not()) is not None:
                raise error
            if self._flight is None:
                self._flight = Future()
                self._flight.set_running_or_notify_cancel()
            self._run_thread()
            return self._flight

    def _run_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"tokens of {self._name}", daemon=True)
            self._thread.start()
        else:
            self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._wait_until_due():
                    self._thread = None
                    flight = self._take_flight()
                    break
                state = self._state
            ended = self._attempt(state)
            with self._wake:
                settled = self._state.usable() is not None or self._state.why_not() is not None
                flight = self._take_flight() if settled else None
            land(flight)
            if ended is not None:
                self._session_ended(ended)
        land(flight)

    def _wait_until_due(self) -> bool:
        while not self._closed:
            due_in = self._state.due_in(asked=self._flight is not None)
            if due_in is None:
                return False
            if due_in <= 0:
                return True
            self._wake.wait(min(due_in, threading.TIMEOUT_MAX))
        return False

    def _attempt(self, state: TokenState) -> SessionEndedError | None:
        monotonic_start, wall_start = self._monotonic(), self._wall()
        try:
            token = self._grant.obtain()
        except AttemptFailedError as failure:
            error, answer_lost = failure.error, failure.answer_lost
            _logger.warning("%s: %s", self._name, error)
        except Exception as unexpected:
            # Whatever it is, those who wait must hear of it. Its text is not ours.
            error = TokenUnavailableError(f"{self._name}: asking failed with {type(unexpected).__name__}")
            answer_lost = True
            _logger.error("%s", error)  # noqa: TRY400
        else:
            with self._wake:
                state.obtained(token, monotonic_start=monotonic_start, wall_start=wall_start)
            _logger.debug("%s: a new access token, good for %.0f s", self._name, token.lifetime_seconds)
            return None
        with self._wake:
            state.failed(error, answer_lost=answer_lost)
        return error if isinstance(error, SessionEndedError) else None

    def _take_flight(self) -> Future[None] | None:
        flight, self._flight = self._flight, None
        return flight

    def _session_ended(self, error: SessionEndedError) -> None:
        del error

    def _out_of_time(self, timeout_seconds: float) -> TokenUnavailableError:
        return TokenUnavailableError(f"{self._name}: no token within {timeout_seconds:.3g} seconds")

    def _after_fork(self) -> None:
        self._wake = threading.Condition()
        self._flight = None
        self._thread = None

    # Waiting is by the real clock, whatever clock the schedule is given in a test.
    _monotonic_now = staticmethod(monotonic_clock)


def land(flight: Future[None] | None) -> None:
    """Tells those who wait for a flight that it is over, if there is one."""
    # Never under the lock: those who wait are called from here.
    if flight is not None:
        flight.set_result(None)


_sources: weakref.WeakSet[TokenSource] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for source in list(_sources):
        source._after_fork()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
