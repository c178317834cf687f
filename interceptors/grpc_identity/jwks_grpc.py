"""A JWK set by ``grpc_identity.v1.IdentityService/GetJWKS``.

A channel per question: one is asked about once an hour, and a channel that is not there survives every fork.
TLS with the system's roots unless credentials are given; plain text to loopback, or where it is allowed.
"""

from __future__ import annotations

from typing import Any

import grpc

from grpc_identity.errors import KeyFetchError
from grpc_identity.jwk import MAX_JWKS_BYTES, KeySet
from grpc_identity.jwks_http import is_loopback
from grpc_identity.keysets import FetchedKeys
from grpc_identity.v1.identity_service_pb2 import GetJWKSRequest, GetJWKSResponse
from grpc_identity.v1.identity_service_pb2_grpc import IdentityServiceStub

__all__ = ["GrpcJwks"]

_OPTIONS = (("grpc.max_receive_message_length", MAX_JWKS_BYTES), ("grpc.enable_retries", 0))


class GrpcJwks:
    """Asks one gRPC address for keys."""

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None,
        allow_plaintext: bool,
        timeout_seconds: float,
    ) -> None:
        self._target = target
        self._timeout_seconds = timeout_seconds
        self._plaintext = credentials is None and (allow_plaintext or _stays_here(target))
        self._credentials = credentials

    def __call__(self, last: FetchedKeys | None) -> FetchedKeys:
        request = GetJWKSRequest(if_version=last.version if last is not None else "")
        with self._channel() as channel:
            try:
                stub: Any = IdentityServiceStub(channel)
                answer: GetJWKSResponse = stub.GetJWKS(request, timeout=self._timeout_seconds)
            except grpc.RpcError as error:
                raise KeyFetchError(f"{self._target}: {_describe(error)}") from None
        max_age = answer.max_age.ToSeconds() if answer.HasField("max_age") else None
        if answer.not_modified:
            if last is None:
                raise KeyFetchError(f"{self._target} says that nothing has changed, but nothing was known")
            return FetchedKeys(last.key_set, last.version, max_age)
        jwks = [{field.name: value for field, value in key.ListFields()} for key in answer.keys]
        return FetchedKeys(KeySet.from_jwks(jwks), answer.version, max_age)

    def _channel(self) -> grpc.Channel:
        if self._plaintext:
            return grpc.insecure_channel(self._target, options=_OPTIONS)
        credentials = self._credentials or grpc.ssl_channel_credentials()
        return grpc.secure_channel(self._target, credentials, options=_OPTIONS)


def _stays_here(target: str) -> bool:
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = target.removeprefix("dns:///").removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:")
    host = address.rpartition(":")[0] if not address.endswith("]") else address
    return is_loopback(host.strip("[]"))


def _describe(error: grpc.RpcError) -> str:
    # What a stub raises is a `grpc.Call` as well, which the type of `RpcError` does not tell.
    call: Any = error
    return f"{call.code().name}: {call.details()}" if isinstance(call, grpc.Call) else type(error).__name__
