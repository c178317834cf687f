"""Which client calls: ``authorization: Basic`` (RFC 6749, section 2.3.1; RFC 7617), from the call's metadata."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterable
from re import compile as compile_pattern

from identity.clients.registry import ClientRegistry
from identity.errors import IdentityError, Reason
from identity.sessions.caller import Caller

MAX_CREDENTIALS_BYTES = 512
# W3C Trace Context: ids of zeros are none, and neither is version ff.
_TRACEPARENT = compile_pattern(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class CallerAuthenticator:
    """Finds the caller of a call."""

    def __init__(self, registry: ClientRegistry) -> None:
        self._registry = registry

    def authenticate(self, metadata: Iterable[tuple[str, str | bytes]], method: str) -> Caller:
        """The caller. Raises ``CLIENT_UNAUTHENTICATED`` and ``CLIENT_DISABLED``."""
        authorization: str | bytes | None = None
        traceparent = ""
        for name, value in metadata:
            if name == "authorization":
                if authorization is not None:
                    raise _unauthenticated("more than one authorization header")
                authorization = value
            elif name == "traceparent":
                traceparent = well_formed_traceparent(value)
        client_id, secret = _basic_credentials(authorization)
        return Caller(self._registry.authenticate(client_id, secret), method, traceparent)


def claimed_client_id(metadata: Iterable[tuple[str, str | bytes]], registry: ClientRegistry) -> str:
    """The client a failed call claimed to be, if there is such a client; for the audit, never believed."""
    for name, value in metadata:
        if name == "authorization":
            try:
                client_id, _ = _basic_credentials(value)
            except IdentityError:
                return ""
            return client_id if registry.get(client_id) else ""
    return ""


def claimed_traceparent(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The trace a failed call claimed to be part of; the audit links to it, and does not join it."""
    return next((well_formed_traceparent(value) for name, value in metadata if name == "traceparent"), "")


def well_formed_traceparent(traceparent: str | bytes) -> str:
    """The trace context, or nothing where it is none."""
    return traceparent if isinstance(traceparent, str) and _TRACEPARENT.fullmatch(traceparent) else ""


def _basic_credentials(authorization: str | bytes | None) -> tuple[str, str]:
    if not isinstance(authorization, str):
        raise _unauthenticated("no client credentials")
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > MAX_CREDENTIALS_BYTES:
        raise _unauthenticated("the scheme is not Basic, or the credentials are too long")
    try:
        client_id, colon, secret = b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise _unauthenticated("the credentials are not base64 of client_id:client_secret") from None
    if not colon:
        raise _unauthenticated("the credentials are not base64 of client_id:client_secret")
    return client_id, secret


def _unauthenticated(why: str) -> IdentityError:
    return IdentityError(
        Reason.CLIENT_UNAUTHENTICATED,
        f"Send 'authorization: Basic base64(client_id:client_secret)': {why}.",
    )
