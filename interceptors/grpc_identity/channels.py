"""Channels to an identity server: TLS with the system's roots unless credentials are given; plain text to loopback, or
where it is allowed in so many words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from grpc_identity.jwks_http import is_loopback

__all__ = ["ChannelFactory", "describe", "status_code", "stays_here"]


@dataclass(frozen=True, slots=True)
class ChannelFactory:
    """Opens channels to one target. None is kept: a channel that is not there survives every fork."""

    target: str
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    allow_plaintext: bool = False

    @property
    def is_plaintext(self) -> bool:
        """Whether what is sent can be read on the way."""
        return self.credentials is None and (self.allow_plaintext or stays_here(self.target))

    def open(self, options: Sequence[tuple[str, Any]] = ()) -> grpc.Channel:
        """A channel, for the caller to close."""
        if self.is_plaintext:
            return grpc.insecure_channel(self.target, options=options)
        credentials = self.credentials or grpc.ssl_channel_credentials()
        return grpc.secure_channel(self.target, credentials, options=options)


def stays_here(target: str) -> bool:
    """Whether a gRPC target is on this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = target.removeprefix("dns:///").removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:")
    host = address.rpartition(":")[0] if not address.endswith("]") else address
    return is_loopback(host.strip("[]"))


def status_code(error: grpc.RpcError) -> grpc.StatusCode | None:
    """The code of a failed call, if it got as far as having one."""
    # What a stub raises is a `grpc.Call` as well, which the type of `RpcError` does not tell.
    call: Any = error
    return call.code() if isinstance(call, grpc.Call) else None


def describe(error: grpc.RpcError) -> str:
    """Code and details of a failed call."""
    call: Any = error
    code = status_code(error)
    return type(error).__name__ if code is None else f"{code.name}: {call.details()}"
