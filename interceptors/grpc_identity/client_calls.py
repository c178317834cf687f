"""What the client interceptors of both gRPC stacks share: how a token is sent, and when a call is made again.

How it is sent. A channel that is opened here is known to be secure, to stay on this machine, or to be allowed in so many
words; its tokens go out as metadata. An interceptor for a channel that somebody else opens cannot see whether it is
encrypted; gRPC can. So there a token goes out as *call credentials*, which gRPC sends on a secure channel only, and
which cost it a change of threads; or as metadata, if the target is named and on this machine, or plain text is allowed.

When a call is made again: once, with another token, after ``UNAUTHENTICATED`` with a reason that another token can
change, and only if the call has a single request message: a stream of requests is used up when the refusal comes.
A call that carries ``authorization`` metadata of its own is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from grpc.experimental import insecure_channel_credentials

from grpc_identity.channels import stays_here
from grpc_identity.clock import Clock, monotonic_clock
from grpc_identity.errors import PlaintextError, Reason, TokenSourceError, TokenUnavailableError
from grpc_identity.token_grants import error_reason

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor

    from grpc_identity.token_source import TokenSource

__all__ = [
    "Sending",
    "call_credentials",
    "has_authorization",
    "is_insecure_channel",
    "is_refusal",
    "plaintext_error",
    "refuse_insecure",
    "retry_options",
    "status_of",
]

AUTHORIZATION = "authorization"
# Reasons that another token of the same source may change.
RENEWABLE = frozenset({Reason.TOKEN_EXPIRED.value, Reason.TOKEN_REVOKED.value, Reason.KEY_UNKNOWN.value})
_UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
# What gRPC says when it refuses to send call credentials over a channel that is not encrypted.
_INSECURE_CHANNEL = "sufficient security level"

Metadata = Sequence[tuple[str, str | bytes]]


class Sending:
    """How the tokens of one set of interceptors are sent."""

    def __init__(self, *, as_metadata: bool, monotonic: Clock = monotonic_clock) -> None:
        self._as_metadata = as_metadata
        self._monotonic = monotonic
        self._last: tuple[str, grpc.CallCredentials] | None = None

    @classmethod
    def over(cls, target: str | None, *, allow_plaintext: bool) -> Sending:
        """For a channel that somebody else opens."""
        return cls(as_metadata=allow_plaintext or (target is not None and stays_here(target)))

    def deadline(self, timeout: float | None) -> float | None:
        """When a call that may take so long has to be over."""
        return None if timeout is None else self._monotonic() + timeout

    def remaining(self, deadline: float | None) -> float | None:
        """What is left of it, for the next attempt."""
        return None if deadline is None else max(0.0, deadline - self._monotonic())

    def attach(
        self,
        token: str,
        metadata: Iterable[tuple[str, str | bytes]] | None,
        credentials: grpc.CallCredentials | None,
    ) -> tuple[Iterable[tuple[str, str | bytes]] | None, grpc.CallCredentials | None]:
        """Metadata and credentials of a call with this token."""
        if self._as_metadata:
            return (*(metadata or ()), (AUTHORIZATION, f"Bearer {token}")), credentials
        ours = self._credentials(token)
        if credentials is not None:
            ours = grpc.composite_call_credentials(credentials, ours)
        return metadata, ours

    def _credentials(self, token: str) -> grpc.CallCredentials:
        last = self._last
        if last is None or last[0] != token:
            # Threads may do this at once; each then makes the same.
            self._last = last = (token, grpc.access_token_call_credentials(token))
        return last[1]


def refuse_insecure(credentials: grpc.ChannelCredentials | None) -> None:
    """Raises ``PlaintextError`` for channel credentials that are none."""
    if credentials is not None and credentials is insecure_channel_credentials():  # type: ignore[no-untyped-call]
        raise PlaintextError(
            "these channel credentials encrypt nothing; leave them out, and say allow_plaintext=True where something "
            "below encrypts"
        )


def has_authorization(metadata: Iterable[tuple[str, Any]] | None) -> bool:
    """Whether the caller has said itself who calls."""
    return any(key == AUTHORIZATION for key, _ in metadata or ())


def is_refusal(code: Any, error: Any) -> bool:
    """Whether this is the end of a call whose token was refused in a way that another may change."""
    return code is _UNAUTHENTICATED and error_reason(error) in RENEWABLE


def is_insecure_channel(code: Any, details: str | None) -> bool:
    """Whether gRPC itself has refused to send the token."""
    return code is _UNAUTHENTICATED and _INSECURE_CHANNEL in (details or "")


def plaintext_error() -> PlaintextError:
    """What is said then."""
    return PlaintextError(
        "this channel is not encrypted, so no token was sent over it; use a secure channel, name the target of a "
        "loopback channel (target=), or say allow_plaintext=True where something below encrypts"
    )


def status_of(error: Exception, *, out_of_time: bool = False) -> tuple[grpc.StatusCode, str]:
    """As what a call fails that could not be given a token; ``out_of_time``: within its own deadline."""
    if out_of_time:
        return grpc.StatusCode.DEADLINE_EXCEEDED, f"no access token: {error}"
    if isinstance(error, TokenUnavailableError):
        return grpc.StatusCode.UNAVAILABLE, f"no access token: {error}"
    if isinstance(error, TokenSourceError):
        return grpc.StatusCode.UNAUTHENTICATED, f"no access token: {error}"
    return grpc.StatusCode.UNAUTHENTICATED, str(error)


class _Plugin(grpc.AuthMetadataPlugin):
    """Run by gRPC on threads of its own, once an attempt. Never blocks, and calls back exactly once, come what may."""

    def __init__(self, tokens: TokenSource) -> None:
        self._tokens = tokens

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        del context

        def ready(token: str | None, error: TokenSourceError | None) -> None:
            if token is None:
                callback((), error or TokenUnavailableError("no access token"))
            else:
                callback(((AUTHORIZATION, f"Bearer {token}"),), None)

        self._tokens.when_ready(ready)


def call_credentials(tokens: TokenSource) -> grpc.CallCredentials:
    """Call credentials that take each attempt's token from ``tokens``."""
    return grpc.metadata_call_credentials(_Plugin(tokens), name="grpc_identity")


def retry_options(*descriptors: FileDescriptor | ServiceDescriptor) -> list[tuple[str, Any]]:
    """Channel options by which gRPC itself makes a call again that was refused with ``UNAUTHENTICATED``.

    For methods with a single request message only: of a stream of requests gRPC loses messages when it starts anew.
    To be used with ``call_credentials()``, which are asked for each attempt; the interceptors need none of this.

    >>> from grpc_identity.v1 import identity_service_pb2
    >>> options = dict(retry_options(identity_service_pb2.DESCRIPTOR))
    >>> "WatchVerifierState" in options["grpc.service_config"], "Refresh" in options["grpc.service_config"]
    (False, True)
    """
    names = [
        {"service": service.full_name, "method": method.name}
        for service in _services(descriptors)
        for method in service.methods
        if not method.client_streaming
    ]
    policy = {
        "maxAttempts": 2,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAUTHENTICATED"],
    }
    config = {"methodConfig": [{"name": names, "retryPolicy": policy}] if names else []}
    return [("grpc.enable_retries", 1), ("grpc.service_config", json.dumps(config))]


def _services(descriptors: Collection[Any]) -> Iterable[ServiceDescriptor]:
    for descriptor in descriptors:
        if hasattr(descriptor, "services_by_name"):
            yield from descriptor.services_by_name.values()
        else:
            yield descriptor
