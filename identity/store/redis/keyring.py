"""``KeyStore`` on Redis or Valkey: one hash in the first bucket, replaced as a whole by one script.

What is private in the document is sealed; the key-encryption key never comes here. The script records the events of a
change beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from identity.audit.event import Event
from identity.errors import IdentityError
from identity.keys import document
from identity.keys.keyring import Keyring
from identity.keys.ports import KeyStoreAwayError, KeyStoreError
from identity.store.redis import scripts
from identity.store.redis.durability import Durability
from identity.store.redis.keys import KeySpace
from identity.store.redis.topology import StoreConnection

_AWAY = "the keyring is in the session store, which does not answer; check redis.url and that the server runs"


class RedisKeyStore:
    """A keyring beside the registry of clients."""

    may_lose_writes = True

    def __init__(
        self,
        connection: StoreConnection,
        keys: KeySpace,
        *,
        outbox_bound: str,
        durability: Durability = Durability.NONE,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._outbox_bound = outbox_bound
        self._durability = durability

    async def revision(self) -> int:
        """See ``KeyStore``."""
        return int(await self._command("HGET", self._keys.keyring, "revision") or 0)

    async def load(self) -> Keyring | None:
        """See ``KeyStore``."""
        text = await self._command("HGET", self._keys.keyring, "document")
        if text is None:
            return None
        try:
            return document.from_text(text)
        except document.DamagedKeyringError as error:
            raise KeyStoreError(
                f"the keyring in the store ({self._keys.keyring}) is damaged; restore it: identity keys import"
            ) from error

    async def compare_and_set(self, keyring: Keyring, events: Sequence[Event] = ()) -> bool:
        """See ``KeyStore``."""
        first = self._keys.buckets[0]
        recorded = [
            part
            for event in events
            for part in (event.event_id.hex(), event.type.value, event.circumstances.serialised())
        ]
        try:
            answer = await self._connection.run(
                scripts.PUT_KEYRING,
                (first.outbox, first.ledger, self._keys.keyring),
                (
                    "",
                    "",
                    self._outbox_bound,
                    0,
                    keyring.revision,
                    document.to_text(keyring),
                    *recorded,
                ),
                self._durability,
            )
        except IdentityError as error:
            raise KeyStoreAwayError(_AWAY) from error
        return bool(answer)

    async def _command(self, *command: str) -> Any:
        try:
            return await self._connection.command(*command)
        except IdentityError as error:
            raise KeyStoreAwayError(_AWAY) from error
