"""The public keys as a message, which GetJWKS and WatchVerifierState give alike."""

from __future__ import annotations

from typing import Protocol

from google.protobuf.duration_pb2 import Duration

from grpc_identity.v1 import identity_service_pb2 as service_pb2
from identity.keys.service import PublishedKeys
from identity.rpc import translation


class PublishesKeys(Protocol):
    """Where the public keys come from."""

    def published(self) -> PublishedKeys:
        """The keys as they are now; costs nothing."""
        ...


def jwks_response(published: PublishedKeys, *, known_version: str = "") -> service_pb2.GetJWKSResponse:
    """The keys, or that ``known_version`` still holds."""
    not_modified = published.version == known_version
    return service_pb2.GetJWKSResponse(
        keys=() if not_modified else [translation.json_web_key(members) for members in published.jwks],
        version=published.version,
        max_age=Duration(seconds=published.max_age_seconds),
        not_modified=not_modified,
    )
