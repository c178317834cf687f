"""What operators do to keys, through ``AdminService`` or the command line.

Each is one compare-and-set that records its events, and harmless when repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from identity.audit.event import Circumstances, Event, EventType
from identity.errors import IdentityError, Reason
from identity.keys import requests as asked
from identity.keys import secrets as secret_rules
from identity.keys.events import event_of
from identity.keys.keyring import KeyRecord, Keyring, SecretPurpose
from identity.keys.ports import KeyStoreError, ProviderError
from identity.keys.sealing import SealError
from identity.keys.service import KeyringChange, KeyService

_REQUEST_CHARS = 32


@dataclass(frozen=True, slots=True)
class Resealed:
    """How many seals were made anew, and the fingerprints of the key that all are under now and of the one it replaces."""

    count: int
    kek: str
    previous_kek: str


@dataclass(frozen=True, slots=True)
class KeyAdministration:
    """All of it raises ``KEYRING_UNAVAILABLE`` where the keyring cannot be read or written, or no key made."""

    keys: KeyService

    async def rotate(self, *, at_once: bool, idempotency_key: str, circumstances: Circumstances) -> KeyRecord:
        """The key that takes over: a new one, or the one that waits already."""
        request = sha256(idempotency_key.encode()).hexdigest()[:_REQUEST_CHARS] if idempotency_key else ""
        custody, schedule = self.keys.custody, self.keys.schedule
        chosen: list[KeyRecord] = []

        async def make(keyring: Keyring) -> tuple[Keyring, Sequence[Event]]:
            now = self.keys.clock.now()
            chosen[:] = [key for key in keyring.keys if request and key.request == request]
            if chosen:
                return keyring, ()
            key = asked.waiting(keyring, custody.algorithm, custody.new_keys_in)
            if key is None:
                times = asked.times_of_request(now, schedule, at_once=at_once)
                wanted = await custody.new_key(times, request)
            else:
                wanted = asked.hurried(key, now, schedule, request) if at_once else key
            chosen[:] = [wanted]
            return (keyring if wanted is key else asked.with_only(keyring, wanted, now)), ()

        after = await self._change(make, circumstances)
        return after.get(chosen[0].kid) or chosen[0]

    async def revoke(self, kid: str, circumstances: Circumstances) -> KeyRecord:
        """Takes a key away at once, and returns the one that signs now.

        Raises ``KEY_NOT_FOUND``, and ``SIGNER_UNAVAILABLE`` where it is taken away and nothing signs now.
        """

        async def make(keyring: Keyring) -> tuple[Keyring, Sequence[Event]]:
            if keyring.get(kid) is None:
                raise IdentityError(
                    Reason.KEY_NOT_FOUND, f"There is no key {kid!r}; list them: identity keys list"
                )
            return asked.revoked(keyring, kid, self.keys.clock.now()), ()

        active = (await self._change(make, circumstances)).active
        if active is None or not self.keys.can_sign:
            raise IdentityError(
                Reason.SIGNER_UNAVAILABLE,
                f"{kid} is revoked. Nothing signs until another key can be used; readiness says what is in the way.",
                retry_after_seconds=5.0,
            )
        return active

    async def rotate_refresh_secret(self, *, force: bool, circumstances: Circumstances) -> int:
        """A new secret for refresh tokens, and its number. Raises ``SECRET_STILL_NEEDED``."""
        number: list[int] = []

        async def make(keyring: Keyring) -> tuple[Keyring, Sequence[Event]]:
            kept = secret_rules.accepted(keyring, SecretPurpose.REFRESH_TOKEN)
            from_moment = secret_rules.replaceable_from(kept)
            if self.keys.clock.now() < from_moment and not force:
                raise IdentityError(
                    Reason.SECRET_STILL_NEEDED,
                    "Sessions may still hold tokens made with the secret that would go; they are over at "
                    f"{from_moment:%Y-%m-%d %H:%M} UTC. Until then only by force, which ends them.",
                )
            new = self.keys.custody.new_secret(SecretPurpose.REFRESH_TOKEN, secret_rules.next_number(kept))
            number[:] = [new.number]
            return secret_rules.rotated(keyring, new), ()

        await self._change(make, circumstances)
        return number[0]

    async def reseal(self, circumstances: Circumstances) -> Resealed:
        """Seals everything anew under the key-encryption key in use. Raises ``PREVIOUS_KEK_MISSING``."""
        kek = self.keys.custody.kek
        if kek.replaced is None:
            # What it could say, that all is sealed under the one it has, would be read as: the other one is worthless.
            raise IdentityError(
                Reason.PREVIOUS_KEK_MISSING,
                f"Nothing was changed: the server that answered has no key-encryption key but {kek.fingerprint}. If that "
                "is the one to be replaced, give this server the new one as keys.kek_file and it as "
                "keys.previous_kek_file, restart it, and reseal again.",
            )
        count: list[int] = []

        async def make(keyring: Keyring) -> tuple[Keyring, Sequence[Event]]:
            wanted, changed = self.keys.custody.resealed(keyring)
            count[:] = [changed]
            detail = f"{changed} seals"
            return wanted, [event_of(EventType.KEYRING_RESEALED, circumstances, detail)] if changed else ()

        await self._change(make, circumstances)
        return Resealed(count[0], kek.fingerprint, kek.replaced.fingerprint)

    async def _change(self, make: KeyringChange, circumstances: Circumstances) -> Keyring:
        try:
            return await self.keys.change(make, circumstances)
        except (KeyStoreError, SealError, ProviderError) as error:
            raise IdentityError(
                Reason.KEYRING_UNAVAILABLE, f"Nothing was changed: {error}", retry_after_seconds=5.0
            ) from error
