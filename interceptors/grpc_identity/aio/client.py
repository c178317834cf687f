"""Interceptors for ``grpc.aio`` channels that send a token with each call.

Four objects, one a kind of call: ``grpc.aio`` takes an object for the first kind it fits and for no other, so that
one object with four bases would send streams without a token, silently.

They run in a task of the call, so nothing here holds up who made it. A refusal is seen without touching the stream:
on a unary answer by the code, on a stream of answers once the initial metadata is there. Where the requests are a
stream, the call is never made again, and its code is looked at only after it is done. What ``grpc.aio`` then reports as
``INTERNAL`` may be a refusal that came while messages were written, so that such a token is renewed, to be sure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from grpc_identity.channels import ChannelFactory
from grpc_identity.client_calls import (
    Sending,
    has_authorization,
    is_refusal,
    plaintext_error,
    refuse_insecure,
    status_of,
)
from grpc_identity.errors import GrpcIdentityError
from grpc_identity.token_source import WAIT_SECONDS, AccessTokens

__all__ = ["client_interceptors", "open_channel"]

_Continuation = Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]]


def client_interceptors(
    tokens: AccessTokens, *, target: str | None = None, allow_plaintext: bool = False
) -> list[grpc.aio.ClientInterceptor]:
    """Interceptors for all four kinds of call, as ``grpc.aio.insecure_channel`` and ``secure_channel`` take them.

    A token is sent over secure channels only, which gRPC enforces. Over plain text it is sent if ``target`` is the
    channel's target and on this machine, or if ``allow_plaintext`` says that it may be.

    >>> import grpc_identity
    >>> tokens = grpc_identity.ClientCredentials("id.example:443", client_id="a", client_secret="b", audience="orders")
    >>> len(client_interceptors(tokens))
    4
    """
    return _interceptors(tokens, Sending.over(target, allow_plaintext=allow_plaintext))


def open_channel(
    target: str,
    tokens: AccessTokens,
    *,
    credentials: grpc.ChannelCredentials | None = None,
    allow_plaintext: bool = False,
    options: Sequence[tuple[str, Any]] = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """A channel whose calls carry a token: with TLS and the system's roots unless ``credentials`` are given; in plain text
    to this machine, or where ``allow_plaintext`` says so. ``interceptors`` of your own come before those of the token.
    """
    refuse_insecure(credentials)
    chain = [*interceptors, *_interceptors(tokens, Sending(as_metadata=True))]
    if ChannelFactory(target, credentials, allow_plaintext).is_plaintext:
        return grpc.aio.insecure_channel(target, options=options, interceptors=chain)
    secure = credentials or grpc.ssl_channel_credentials()
    return grpc.aio.secure_channel(target, secure, options=options, interceptors=chain)


def _interceptors(tokens: AccessTokens, sending: Sending) -> list[grpc.aio.ClientInterceptor]:
    return [kind(tokens, sending) for kind in (_UnaryUnary, _UnaryStream, _StreamUnary, _StreamStream)]


class _Authenticating:
    def __init__(self, tokens: AccessTokens, sending: Sending) -> None:
        self._tokens = tokens
        self._sending = sending
        self._watching: set[asyncio.Task[None]] = set()

    async def _start(
        self,
        proceed: _Continuation,
        details: grpc.aio.ClientCallDetails,
        request: Any,
        deadline: float | None,
        *,
        other_than: str | None = None,
    ) -> tuple[Any, str] | None:
        """The call and its token; ``None`` if there is no other token than that one."""
        try:
            left = self._sending.remaining(deadline)
            token = await self._tokens.token_async(timeout_seconds=WAIT_SECONDS if left is None else left)
        except GrpcIdentityError as error:
            raise _failed(error, out_of_time=self._sending.remaining(deadline) == 0) from error
        if token == other_than:
            return None
        metadata, credentials = self._sending.attach(token, details.metadata, details.credentials)
        attempt = grpc.aio.ClientCallDetails(
            method=details.method,
            timeout=self._sending.remaining(deadline),
            metadata=_as_metadata(metadata),
            credentials=credentials,
            wait_for_ready=details.wait_for_ready,
        )
        try:
            return await proceed(attempt, request), token
        except grpc.aio.UsageError as error:
            if credentials is not None and details.credentials is None and "secure" in str(error):
                plaintext = plaintext_error()
                raise _failed(plaintext) from plaintext
            raise

    async def _call(
        self,
        proceed: _Continuation,
        details: grpc.aio.ClientCallDetails,
        request: Any,
        refused: Callable[[Any], Awaitable[bool]] | None,
    ) -> Any:
        if has_authorization(details.metadata):
            return await proceed(details, request)
        deadline = self._sending.deadline(details.timeout)
        started = await self._start(proceed, details, request, deadline)
        assert started is not None  # noqa: S101 - no token is excluded
        call, token = started
        if refused is None:
            call.add_done_callback(lambda _: self._watch(call, token))
            return call
        try:
            if not await refused(call):
                return call
            self._tokens.invalidate(token)
            again = await self._start(proceed, details, request, deadline, other_than=token)
        except asyncio.CancelledError:
            call.cancel()
            raise
        except grpc.aio.AioRpcError:
            # There is no other token to be had; the refusal says more than that.
            return call
        return call if again is None else again[0]

    def _watch(self, call: Any, token: str) -> None:
        task = asyncio.ensure_future(self._note_refusal(call, token))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _note_refusal(self, call: Any, token: str) -> None:
        if await _is_refused(call):
            self._tokens.invalidate(token)
        elif await call.code() is grpc.StatusCode.INTERNAL and not await call.trailing_metadata():
            self._tokens.invalidate(token, certain=False)


class _UnaryUnary(_Authenticating, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: _Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await self._call(continuation, client_call_details, request, _is_refused)


class _UnaryStream(_Authenticating, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: _Continuation, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        return await self._call(continuation, client_call_details, request, _is_refused_at_once)


class _StreamUnary(_Authenticating, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self,
        continuation: _Continuation,
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        return await self._call(continuation, client_call_details, request_iterator, None)


class _StreamStream(_Authenticating, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self,
        continuation: _Continuation,
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        return await self._call(continuation, client_call_details, request_iterator, None)


async def _is_refused(call: Any) -> bool:
    code = await call.code()
    if code is not grpc.StatusCode.UNAUTHENTICATED:
        return False
    details = await call.details()
    return is_refusal(code, _Ended(code, details, await call.trailing_metadata()))


async def _is_refused_at_once(call: Any) -> bool:
    # A refusal has no initial metadata of its own: they come with the end of the call.
    await call.initial_metadata()
    return call.done() and await _is_refused(call)


class _Ended:
    """The end of a call, as ``grpc_status`` reads it."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> None:
        self.code = lambda: code
        self.details = lambda: details
        self.trailing_metadata = lambda: trailing_metadata


def _failed(error: Exception, *, out_of_time: bool = False) -> grpc.aio.AioRpcError:
    code, details = status_of(error, out_of_time=out_of_time)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


def _as_metadata(metadata: Any) -> grpc.aio.Metadata | None:
    if metadata is None or isinstance(metadata, grpc.aio.Metadata):
        return metadata
    return grpc.aio.Metadata(*metadata)
