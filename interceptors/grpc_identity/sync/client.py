"""The interceptor for ``grpc`` channels that sends a token with each call.

Nothing here waits for an answer that the caller does not wait for: asking a stream of answers for its code would block
until its end. A blocking unary call is over when it is looked at. A stream of answers is made again, if it was
refused, when its first message is asked for. Where the requests are a stream, or the call is a future that is still
under way, it is never made again; its end is only noted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import grpc

from grpc_identity.channels import ChannelFactory
from grpc_identity.client_calls import (
    Sending,
    has_authorization,
    is_insecure_channel,
    is_refusal,
    plaintext_error,
    refuse_insecure,
    status_of,
)
from grpc_identity.errors import GrpcIdentityError
from grpc_identity.token_source import WAIT_SECONDS, AccessTokens

__all__ = ["client_interceptors", "open_channel"]

_Continuation = Callable[[grpc.ClientCallDetails, Any], Any]


def client_interceptors(
    tokens: AccessTokens, *, target: str | None = None, allow_plaintext: bool = False
) -> list[Any]:
    """Interceptors for all four kinds of call, for ``grpc.intercept_channel(channel, *interceptors)``.

    A token is sent over secure channels only, which gRPC enforces. Over plain text it is sent if ``target`` is the
    channel's target and on this machine, or if ``allow_plaintext`` says that it may be.

    >>> import grpc_identity
    >>> tokens = grpc_identity.ClientCredentials("id.example:443", client_id="a", client_secret="b", audience="orders")
    >>> channel = grpc.intercept_channel(
    ...     grpc.insecure_channel("127.0.0.1:1"), *client_interceptors(tokens, target="127.0.0.1:1")
    ... )
    """
    return [_Interceptor(tokens, Sending.over(target, allow_plaintext=allow_plaintext))]


def open_channel(
    target: str,
    tokens: AccessTokens,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    allow_plaintext: bool = False,
    options: Sequence[tuple[str, Any]] = (),
    interceptors: Sequence[Any] = (),
) -> grpc.Channel:
    """A channel whose calls carry a token: with TLS and the system's roots unless ``credentials`` are given; in plain text
    to this machine, or where ``allow_plaintext`` says so. ``interceptors`` of your own come before those of the token.
    """
    refuse_insecure(credentials)
    channel = ChannelFactory(target, credentials, allow_plaintext).open(options)
    return grpc.intercept_channel(channel, *interceptors, _Interceptor(tokens, Sending(as_metadata=True)))


class _Interceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, tokens: AccessTokens, sending: Sending) -> None:
        self._tokens = tokens
        self._sending = sending

    def intercept_unary_unary(
        self, continuation: _Continuation, client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        if has_authorization(client_call_details.metadata):
            return continuation(client_call_details, request)
        attempt = _Attempt(self._tokens, self._sending, continuation, client_call_details, request)
        call = attempt.start()
        if call.done():
            return attempt.again(call) or call
        attempt.note_refusal_of(call)
        return call

    def intercept_unary_stream(
        self, continuation: _Continuation, client_call_details: grpc.ClientCallDetails, request: Any
    ) -> Any:
        if has_authorization(client_call_details.metadata):
            return continuation(client_call_details, request)
        return _Answers(_Attempt(self._tokens, self._sending, continuation, client_call_details, request))

    def intercept_stream_unary(
        self,
        continuation: _Continuation,
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        return self._once(continuation, client_call_details, request_iterator)

    def intercept_stream_stream(
        self,
        continuation: _Continuation,
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        return self._once(continuation, client_call_details, request_iterator)

    def _once(self, continuation: _Continuation, details: grpc.ClientCallDetails, requests: Any) -> Any:
        if has_authorization(details.metadata):
            return continuation(details, requests)
        attempt = _Attempt(self._tokens, self._sending, continuation, details, requests)
        call = attempt.start()
        if call.done() and is_insecure_channel(call.code(), call.details()):
            return _NotMade(plaintext_error())
        attempt.note_refusal_of(call)
        return call


class _Attempt:
    """One call of the caller's: its first attempt, and the second where there is one."""

    def __init__(
        self,
        tokens: AccessTokens,
        sending: Sending,
        proceed: _Continuation,
        details: grpc.ClientCallDetails,
        request: Any,
    ) -> None:
        self._tokens = tokens
        self._sending = sending
        self._proceed = proceed
        self._details = details
        self._request = request
        self._deadline = sending.deadline(details.timeout)
        self._token: str | None = None

    def start(self) -> Any:
        """The call, with a token; one that has failed already, if there is none."""
        token = self._next_token()
        return token if isinstance(token, _NotMade) else self._make(token)

    def again(self, ended: Any) -> Any | None:
        """The call made anew, if it ended because its token was refused, and there is another; else ``None``."""
        code = ended.code()
        if is_insecure_channel(code, ended.details()):
            return _NotMade(plaintext_error())
        if not is_refusal(code, ended) or self._token is None:
            return None
        before = self._token
        self._tokens.invalidate(before)
        token = self._next_token()
        # Where there is no other token, the refusal says more than that.
        return None if isinstance(token, _NotMade) or token == before else self._make(token)

    def note_refusal_of(self, call: Any) -> None:
        """Gives up the token when the call ends because it was refused."""
        token = self._token

        def ended() -> None:
            if token is not None and is_refusal(call.code(), call):
                self._tokens.invalidate(token)

        # One that is over may be of a class that takes no callbacks.
        if call.done() or not call.add_callback(ended):
            ended()

    def _next_token(self) -> str | _NotMade:
        left = self._sending.remaining(self._deadline)
        try:
            return self._tokens.token(timeout_seconds=WAIT_SECONDS if left is None else left)
        except GrpcIdentityError as error:
            return _NotMade(error, out_of_time=self._sending.remaining(self._deadline) == 0)

    def _make(self, token: str) -> Any:
        self._token = token
        metadata, credentials = self._sending.attach(token, self._details.metadata, self._details.credentials)
        details = _Details(self._details, self._sending.remaining(self._deadline), metadata, credentials)
        return self._proceed(details, self._request)


class _Answers:
    """A stream of answers: a ``grpc.Call`` whose first message may come from a second attempt."""

    def __init__(self, attempt: _Attempt) -> None:
        self._attempt = attempt
        self._call = attempt.start()
        self._may_be_refused = True
        attempt.note_refusal_of(self._call)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._may_be_refused:
            return next(self._call)
        self._may_be_refused = False
        try:
            return next(self._call)
        except grpc.RpcError:
            again = self._attempt.again(self._call)
            if again is None:
                raise
        self._call = again
        self._attempt.note_refusal_of(again)
        return next(again)


grpc.Call.register(_Answers)


class _Details(grpc.ClientCallDetails):
    def __init__(
        self, details: grpc.ClientCallDetails, timeout: float | None, metadata: Any, credentials: Any
    ) -> None:
        self.method = details.method
        self.timeout = timeout
        self.metadata = metadata
        self.credentials = credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = details.compression


# `grpc.Future` has a type parameter for type checkers only.
class _NotMade(grpc.RpcError, grpc.Call, grpc.Future):  # type: ignore[type-arg]
    """A call that was not made, because there was no token for it; raises itself, with the reason as its cause."""

    def __init__(self, error: Exception, *, out_of_time: bool = False) -> None:
        self._code, self._details = status_of(error, out_of_time=out_of_time)
        super().__init__(f"{self._code.name}: {self._details}")
        self.__cause__ = error

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def initial_metadata(self) -> Any:
        return ()

    def trailing_metadata(self) -> Any:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:  # type: ignore[override]
        return None

    def cancel(self) -> bool:
        return False

    def cancelled(self) -> bool:
        return False

    def running(self) -> bool:
        return False

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> NoReturn:  # noqa: ARG002
        raise self

    def exception(self, timeout: float | None = None) -> Exception:  # noqa: ARG002
        return self

    def traceback(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        return self.__traceback__

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        fn(self)

    def add_callback(self, callback: Callable[[], None]) -> bool:  # noqa: ARG002
        return False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> NoReturn:
        raise self
