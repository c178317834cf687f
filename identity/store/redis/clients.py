"""``ClientStore`` on Redis or Valkey: one hash of documents and a revision that counts every change."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from identity.audit.event import Circumstances, EventType
from identity.store.ports import StoredClient
from identity.store.redis import scripts
from identity.store.redis.keys import KeySpace
from identity.store.redis.topology import StoreConnection


class RedisClientStore:
    """The registry of clients, in the first bucket."""

    def __init__(self, connection: StoreConnection, keys: KeySpace, *, outbox_bound: str) -> None:
        self._connection = connection
        self._keys = keys
        self._outbox_bound = outbox_bound

    async def revision(self) -> int:
        """See ``ClientStore``."""
        return int(await self._connection.command("GET", self._keys.registry_revision) or 0)

    async def load_all(self) -> tuple[int, Sequence[StoredClient]]:
        """See ``ClientStore``. The revision is read first: a change in between is seen at the next look."""
        revision, documents = await asyncio.gather(
            self.revision(), self._connection.command("HGETALL", self._keys.registry_clients)
        )
        clients = [StoredClient(name.decode(), document.decode()) for name, document in documents.items()]
        return revision, clients

    async def put(
        self,
        client: StoredClient,
        *,
        replaces: str | None,
        event_type: EventType,
        event_id: bytes,
        circumstances: Circumstances,
    ) -> bool:
        """See ``ClientStore``."""
        first = self._keys.buckets[0]
        answer = await self._connection.run(
            scripts.PUT_CLIENT,
            (first.outbox, first.ledger, self._keys.registry_clients, self._keys.registry_revision),
            (
                event_id.hex(),
                circumstances.serialised(),
                self._outbox_bound,
                0,
                client.client_id,
                replaces or "",
                client.document,
                event_type.value,
            ),
        )
        return bool(answer)
