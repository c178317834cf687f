"""A JWK set by ``grpc_identity.v1.IdentityService/GetJWKS``.

A channel per question: one is asked about once an hour, and less while the keys are pushed.
"""

from __future__ import annotations

from typing import Any

import grpc

from grpc_identity.channels import ChannelFactory, describe
from grpc_identity.errors import KeyFetchError, KeysWithdrawnError
from grpc_identity.jwk import MAX_JWKS_BYTES, KeySet
from grpc_identity.keysets import FetchedKeys
from grpc_identity.v1.identity_service_pb2 import GetJWKSRequest, GetJWKSResponse
from grpc_identity.v1.identity_service_pb2_grpc import IdentityServiceStub

__all__ = ["GrpcJwks", "fetched_keys"]

_OPTIONS = (("grpc.max_receive_message_length", MAX_JWKS_BYTES), ("grpc.enable_retries", 0))


class GrpcJwks:
    """Asks one gRPC address for keys."""

    def __init__(self, channel: ChannelFactory, *, timeout_seconds: float) -> None:
        self._channel = channel
        self._timeout_seconds = timeout_seconds

    def __call__(self, last: FetchedKeys | None) -> FetchedKeys:
        request = GetJWKSRequest(if_version=last.version if last is not None else "")
        with self._channel.open(_OPTIONS) as channel:
            try:
                stub: Any = IdentityServiceStub(channel)
                answer: GetJWKSResponse = stub.GetJWKS(request, timeout=self._timeout_seconds)
            except grpc.RpcError as error:
                raise KeyFetchError(f"{self._channel.target}: {describe(error)}") from None
        return fetched_keys(answer, last, self._channel.target)


def fetched_keys(answer: GetJWKSResponse, last: FetchedKeys | None, source: str) -> FetchedKeys:
    """The keys of an answer, checked. Raises ``KeyFetchError``, ``KeysWithdrawnError`` and ``KeyRefusedError``."""
    max_age = answer.max_age.ToSeconds() if answer.HasField("max_age") else None
    if answer.not_modified:
        if last is None:
            raise KeyFetchError(f"{source} says that nothing has changed, but nothing was known")
        return FetchedKeys(last.key_set, last.version, max_age)
    if not answer.keys:
        raise KeysWithdrawnError(f"{source} has withdrawn its keys and has no other yet")
    jwks = [{field.name: value for field, value in key.ListFields()} for key in answer.keys]
    return FetchedKeys(KeySet.from_jwks(jwks), answer.version, max_age)
