"""From the address of a store to a connection of the right kind."""

from __future__ import annotations

from identity.store.redis.address import StoreAddress, StoreKind
from identity.store.redis.cluster import ClusterConnection
from identity.store.redis.feeds import BlockingRevocationFeed, PollingRevocationFeed
from identity.store.redis.keys import KeySpace
from identity.store.redis.topology import Bounds, ServerConnection, StoreConnection, open_primary
from identity.verifiers.ports import RevocationFeed

FOLLOWING_TIMEOUT_SECONDS = 5.0
FOLLOWING_CONNECTIONS = 2


def open_store(
    address: StoreAddress, bounds: Bounds, keys: KeySpace
) -> tuple[StoreConnection, RevocationFeed]:
    """A connection and what follows revocations; both connect when first used."""
    if address.kind is StoreKind.CLUSTER:
        cluster = ClusterConnection(address, bounds)
        return cluster, PollingRevocationFeed(cluster, keys)
    # Following blocks its connection, for longer than any other call may take.
    redis, sentinel = open_primary(
        address, timeout_seconds=FOLLOWING_TIMEOUT_SECONDS, max_connections=FOLLOWING_CONNECTIONS
    )
    return ServerConnection(address, bounds), BlockingRevocationFeed(redis, keys, sentinel)
