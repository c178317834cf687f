"""Creating and changing clients. Each change is a compare-and-set that records its event."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace

from identity.audit.event import Circumstances, EventType, new_event_id
from identity.clients.client import (
    MAX_SECRETS,
    Client,
    StoredSecret,
    checked_client_id,
    checked_display_name,
    parse_document,
)
from identity.clients.policy import ClientPolicy, validated
from identity.clients.registry import ClientRegistry
from identity.clients.secrets import ClientSecret, SecretHasher
from identity.clock import Clock
from identity.errors import IdentityError, Reason
from identity.store.ports import ClientStore, RevocationStore, StoredClient

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class ClientAdministration:
    """What AdminService and the bootstrap command do to clients."""

    registry: ClientRegistry
    clients: ClientStore
    revocations: RevocationStore
    hasher: SecretHasher
    clock: Clock

    async def create(
        self, client_id: str, display_name: str, policy: ClientPolicy, circumstances: Circumstances
    ) -> tuple[Client, ClientSecret]:
        """A new client and its first secret. Raises ``CLIENT_EXISTS``."""
        secret, kept = self._new_secret()
        client = Client(
            client_id=checked_client_id(client_id),
            display_name=checked_display_name(display_name),
            policy=validated(policy),
            secrets=(kept,),
            created_at_seconds=kept.created_at_seconds,
        )
        if not await self._put(client, None, EventType.CLIENT_CREATED, circumstances):
            raise IdentityError(
                Reason.CLIENT_EXISTS, f"A client {client_id!r} exists; update it, or choose another id."
            )
        return client, secret

    async def update(
        self, client_id: str, display_name: str, policy: ClientPolicy, circumstances: Circumstances
    ) -> Client:
        """Replaces name and policy. Raises ``CLIENT_NOT_FOUND``."""
        name, checked = checked_display_name(display_name), validated(policy)
        return await self._change(
            client_id,
            lambda client: replace(client, display_name=name, policy=checked),
            EventType.CLIENT_UPDATED,
            circumstances,
        )

    async def set_disabled(self, client_id: str, disabled: bool, circumstances: Circumstances) -> Client:
        """Disables (and ends the client's sessions) or enables. Raises ``CLIENT_NOT_FOUND``."""
        event_type = EventType.CLIENT_DISABLED if disabled else EventType.CLIENT_ENABLED
        client = await self._change(
            client_id, lambda client: replace(client, disabled=disabled), event_type, circumstances
        )
        await self.revocations.revoke_client(
            client_id,
            cause="CLIENT_DISABLED",
            event_id=new_event_id(),
            circumstances=circumstances,
            disable=disabled,
        )
        return client

    async def rotate_secret(
        self, client_id: str, *, revoke_previous: bool, circumstances: Circumstances
    ) -> tuple[Client, ClientSecret]:
        """A new secret; the one before stays good unless told otherwise. Raises ``CLIENT_NOT_FOUND``."""
        secret, kept = self._new_secret()

        def rotated(client: Client) -> Client:
            previous = () if revoke_previous else client.secrets[: MAX_SECRETS - 1]
            return replace(client, secrets=(kept, *previous))

        client = await self._change(client_id, rotated, EventType.CLIENT_SECRET_ROTATED, circumstances)
        return client, secret

    def _new_secret(self) -> tuple[ClientSecret, StoredSecret]:
        secret = ClientSecret.generate()
        created = int(self.clock.now().timestamp())
        return secret, StoredSecret(secrets.token_hex(4), self.hasher.digest(secret), created)

    async def _change(
        self,
        client_id: str,
        change: Callable[[Client], Client],
        event_type: EventType,
        circumstances: Circumstances,
    ) -> Client:
        for _ in range(_ATTEMPTS):
            await self.registry.refresh()
            document = self.registry.document(client_id)
            if document is None:
                raise IdentityError(Reason.CLIENT_NOT_FOUND, f"There is no client {client_id!r}.")
            changed = change(parse_document(document))
            if await self._put(changed, document, event_type, circumstances):
                return changed
        raise IdentityError(
            Reason.STORE_UNAVAILABLE,
            "Others keep changing this client; try again.",
            retry_after_seconds=1.0,
        )

    async def _put(
        self, client: Client, replaces: str | None, event_type: EventType, circumstances: Circumstances
    ) -> bool:
        done = await self.clients.put(
            StoredClient(client.client_id, client.document()),
            replaces=replaces,
            event_type=event_type,
            event_id=new_event_id(),
            circumstances=replace(circumstances, detail=f"client {client.client_id}"),
        )
        await self.registry.refresh()
        return done
