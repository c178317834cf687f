"""Calling on in the name of the caller that is being handled, with a narrower token of the next service's own.

The caller's token is exchanged for one that is good for fewer audiences and scopes and names this service as the actor
(``ExchangeToken``; RFC 8693). Where the next service may see what the caller may do everywhere, ``ForwardedToken`` is
simpler and asks nobody.

An exchanged token is kept, by a digest of the caller's token, until shortly before its end, and one question is in flight
for each caller, however many calls are made for it. A caller that gives up gives up its own waiting. Failures of the
service open a circuit, as in ``token_state``.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from grpc_identity.channels import ChannelFactory
from grpc_identity.circuit_breaker import CircuitBreaker
from grpc_identity.clock import Clock, monotonic_clock, wall_clock
from grpc_identity.errors import TokenSourceError, TokenUnavailableError
from grpc_identity.forwarding import ForwardedToken
from grpc_identity.remembered import digest_of
from grpc_identity.token_grants import (
    AttemptFailedError,
    ClientAuthentication,
    authentication_of,
    failure_of,
    held_token,
)
from grpc_identity.token_source import ASK_TIMEOUT_SECONDS, WAIT_SECONDS
from grpc_identity.token_state import HeldToken
from grpc_identity.v1.identity_service_pb2 import ExchangeTokenRequest, ExchangeTokenResponse
from grpc_identity.v1.identity_service_pb2_grpc import IdentityServiceStub

if TYPE_CHECKING:
    import grpc

__all__ = ["ExchangedToken"]

MAX_HELD_TOKENS = 1024
# A service that refuses every token must not make each call ask anew.
MIN_REPLACEMENT_AGE_SECONDS = 15.0


@dataclass(slots=True)
class _Held:
    token: HeldToken = field(repr=False)
    since: float
    is_replacement: bool = False
    is_refused: bool = False


class ExchangedToken:
    """For ``client_interceptors``, in a handler or what it awaits. The client needs ``GRANT_EXCHANGE``.

    >>> import grpc
    >>> from grpc_identity.sync import client_interceptors
    >>> stock = ExchangedToken("127.0.0.1:1", client_id="orders", client_secret="s3cret", audience="stock")
    >>> channel = grpc.intercept_channel(
    ...     grpc.insecure_channel("127.0.0.1:2"), *client_interceptors(stock, target="127.0.0.1:2")
    ... )
    """

    def __init__(
        self,
        target: str,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        authentication: ClientAuthentication | None = None,
        audience: str | Collection[str],
        scopes: Collection[str] = (),
        credentials: grpc.ChannelCredentials | None = None,
        allow_plaintext: bool = False,
        timeout_seconds: float = ASK_TIMEOUT_SECONDS,
        clock: Clock = wall_clock,
        monotonic: Clock = monotonic_clock,
    ) -> None:
        self._channels = ChannelFactory(target, credentials, allow_plaintext)
        self._authentication = authentication_of(client_id, client_secret, authentication)
        self._audience = (audience,) if isinstance(audience, str) else tuple(audience)
        self._scopes = tuple(scopes)
        self._timeout_seconds = timeout_seconds
        self._wall = clock
        self._monotonic = monotonic
        self._callers_token = ForwardedToken()
        self._process_id = 0
        self._channel: grpc.Channel | None = None
        self._begin_in_this_process()

    def __repr__(self) -> str:
        return f"ExchangedToken({', '.join(self._audience)!r} at {self._channels.target})"

    def token(self, *, timeout_seconds: float = WAIT_SECONDS) -> str:
        """A token for the caller of the call being handled; blocks where it has to be asked for.

        Raises ``NoPrincipalError`` outside of such a call, ``TokenUnavailableError`` and ``TokenRefusedError``.
        """
        held = self._held_or_flight(self._callers_token.token())
        if isinstance(held, str):
            return held
        try:
            return held.result(timeout_seconds)
        except TimeoutError:
            raise self._out_of_time(timeout_seconds) from None

    async def token_async(self, *, timeout_seconds: float = WAIT_SECONDS) -> str:
        """As ``token``, for coroutines."""
        held = self._held_or_flight(self._callers_token.token())
        if isinstance(held, str):
            return held
        try:
            # Cancelling this cannot cancel the flight, which is marked as running.
            async with asyncio.timeout(timeout_seconds):
                return await asyncio.wrap_future(held)
        except TimeoutError:
            raise self._out_of_time(timeout_seconds) from None

    def invalidate(self, access_token: str, *, certain: bool = True) -> None:
        """A service has refused this token: another is asked for with the next call.

        A token that came in place of a refused one has to be 15 seconds old before that counts.
        """
        del certain
        with self._lock:
            for held in self._held.values():
                if held.token.text == access_token:
                    age_seconds = self._monotonic() - held.since
                    held.is_refused = not held.is_replacement or age_seconds >= MIN_REPLACEMENT_AGE_SECONDS
                    return

    def close(self) -> None:
        """Closes the connection to the identity service; what is held stays good."""
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _held_or_flight(self, callers_token: str) -> str | Future[str]:
        if self._process_id != os.getpid():
            self._begin_in_this_process()
        digest = digest_of(callers_token)
        with self._lock:
            held = self._held.get(digest)
            if held is not None and self._is_good(held):
                return held.token.text
            flight = self._flights.get(digest)
            if flight is not None:
                return flight
            wait_seconds = self._breaker.seconds_until_attempt()
            if self._breaker.is_open and wait_seconds > 0:
                raise TokenUnavailableError(
                    f"{self._channels.target}: {self._last_failure}", retry_after_seconds=wait_seconds
                )
            flight = self._flights[digest] = Future()
            flight.set_running_or_notify_cancel()
            stub = self._stub()
        self._ask(stub, callers_token, digest, flight)
        return flight

    def _is_good(self, held: _Held) -> bool:
        return not held.is_refused and self._monotonic() - held.since < held.token.usable_seconds()

    def _ask(self, stub: Any, callers_token: str, digest: bytes, flight: Future[str]) -> None:
        request = ExchangeTokenRequest(
            subject_token=callers_token, audience=self._audience, scopes=self._scopes
        )
        asked_at = self._monotonic()

        def landed(call: Any) -> None:
            error: TokenSourceError | None = None
            token: HeldToken | None = None
            try:
                token = self._read(call)
            except AttemptFailedError as failure:
                error = failure.error
            except Exception as unexpected:
                # Whatever it is, those who wait must hear of it. Its text is not ours.
                error = TokenUnavailableError(f"asking failed with {type(unexpected).__name__}")
            with self._lock:
                self._flights.pop(digest, None)
                self._note(error)
                if token is not None:
                    before = self._held.pop(digest, None)
                    if len(self._held) >= MAX_HELD_TOKENS:
                        del self._held[next(iter(self._held))]
                    is_replacement = before is not None and before.is_refused
                    self._held[digest] = _Held(token, asked_at, is_replacement)
            # Never under the lock: those who wait are called from here.
            if token is not None:
                flight.set_result(token.text)
            else:
                flight.set_exception(error)

        metadata = tuple(self._authentication.metadata())
        call = stub.ExchangeToken.future(request, metadata=metadata, timeout=self._timeout_seconds)
        call.add_done_callback(landed)

    def _read(self, call: Any) -> HeldToken:
        import grpc

        try:
            answer: ExchangeTokenResponse = call.result()
        except grpc.FutureCancelledError:
            raise AttemptFailedError(TokenUnavailableError("the connection was closed")) from None
        except grpc.RpcError as error:
            raise failure_of(error, self._channels.target) from None
        return held_token(answer.tokens, now=self._wall())

    def _note(self, error: TokenSourceError | None) -> None:
        # A refusal is about one caller's token; it says that the service is there.
        if isinstance(error, TokenUnavailableError):
            self._last_failure = str(error)
            self._breaker.failed(retry_after_seconds=error.retry_after_seconds)
        else:
            self._breaker.succeeded()

    def _stub(self) -> Any:
        if self._channel is None:
            self._channel = self._channels.open((("grpc.enable_retries", 0),))
        return IdentityServiceStub(self._channel)

    def _begin_in_this_process(self) -> None:
        """A channel does not survive a fork, and a lock may be held by a thread that did not."""
        self._lock = threading.Lock()
        self._held: dict[bytes, _Held] = {}
        self._flights: dict[bytes, Future[str]] = {}
        self._breaker = CircuitBreaker(monotonic=self._monotonic)
        self._last_failure = ""
        self._channel = None
        self._process_id = os.getpid()

    def _out_of_time(self, timeout_seconds: float) -> TokenUnavailableError:
        return TokenUnavailableError(
            f"{self._channels.target}: no token within {timeout_seconds:.3g} seconds"
        )
