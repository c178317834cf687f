"""The clients, held in memory and kept in step with the store.

Every call needs its client, so no call asks the store for it: one look a second at a revision number finds
what other instances have changed. What must hold at once (a disabled client) is decided by the store itself,
in the scripts that issue and refresh.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType

from identity.clients.client import Client, parse_document
from identity.clients.secrets import ClientSecret, SecretHasher
from identity.errors import IdentityError, Reason
from identity.store.ports import ClientStore

REFRESH_INTERVAL_SECONDS = 1.0
MAX_REMEMBERED_CREDENTIALS = 10_000
_NO_DIGEST = bytes(32)

_log = logging.getLogger(__name__)


class ClientRegistry:
    """Looks clients up and checks their secrets; both without I/O."""

    def __init__(self, store: ClientStore, hasher: SecretHasher) -> None:
        self._store = store
        self._hasher = hasher
        self._revision = -1
        self._clients: Mapping[str, Client] = MappingProxyType({})
        self._documents: Mapping[str, str] = MappingProxyType({})
        # What has been verified since the clients last changed: SHA-256 of credentials that are 256 random bits.
        self._verified: dict[bytes, Client] = {}

    def get(self, client_id: str) -> Client | None:
        """The client, or ``None``."""
        return self._clients.get(client_id)

    def document(self, client_id: str) -> str | None:
        """The stored document of a client; what ``ClientStore.put`` replaces."""
        return self._documents.get(client_id)

    def all(self) -> Sequence[Client]:
        """Every client, by id."""
        return [self._clients[client_id] for client_id in sorted(self._clients)]

    def authenticate(self, client_id: str, secret_text: str) -> Client:
        """The client that holds this secret.

        Raises ``CLIENT_UNAUTHENTICATED`` alike for an unknown client, a wrong secret and no secret at all,
        after the same work; ``CLIENT_DISABLED`` only to who knows the secret.
        """
        credentials = sha256(f"{client_id}:{secret_text}".encode("utf-8", "replace")).digest()
        client = self._verified.get(credentials)
        if client is None:
            client = self._verify(client_id, secret_text)
            if len(self._verified) < MAX_REMEMBERED_CREDENTIALS:
                self._verified[credentials] = client
        if client.disabled:
            raise IdentityError(Reason.CLIENT_DISABLED, "This client is disabled.")
        return client

    def _verify(self, client_id: str, secret_text: str) -> Client:
        client = self._clients.get(client_id)
        secret = ClientSecret.parse(secret_text)
        digest = self._hasher.digest(secret or ClientSecret(secret_text))
        kept = [stored.digest for stored in client.secrets] if client else []
        kept += [_NO_DIGEST] * (2 - len(kept))
        matches = hmac.compare_digest(digest, kept[0]) | hmac.compare_digest(digest, kept[1])
        if client is None or secret is None or not matches:
            raise IdentityError(Reason.CLIENT_UNAUTHENTICATED, "Unknown client or wrong secret.")
        return client

    async def refresh(self) -> None:
        """Reads the clients anew if any has changed."""
        if self._revision >= 0 and await self._store.revision() == self._revision:
            return
        revision, stored = await self._store.load_all()
        self._clients = MappingProxyType({row.client_id: parse_document(row.document) for row in stored})
        self._documents = MappingProxyType({row.client_id: row.document for row in stored})
        self._verified = {}
        self._revision = revision

    async def run(self) -> None:
        """Keeps the clients fresh until cancelled. While the store is away, the last known ones stay."""
        while True:
            await asyncio.sleep(REFRESH_INTERVAL_SECONDS)
            try:
                await self.refresh()
            except IdentityError:
                _log.debug("the registry of clients could not be refreshed; the store is away")
