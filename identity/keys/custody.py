"""All that touches private material: making it, sealing it, opening it, ending it.

What a provider gives for a private half, be it the half itself or a place, is sealed under the key-encryption key and
bound to the key's id. Who can write to the keyring and lacks that key can put neither a key nor a reference of
theirs there.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

from identity.clock import Clock
from identity.keys.authenticity import authentic, seal_name, without_private_half
from identity.keys.keyring import LOCAL, KeyRecord, Keyring, SealedSecret, SecretPurpose
from identity.keys.ports import KeyProvider, ProviderError, Signer
from identity.keys.schedule import NewKeyTimes
from identity.keys.sealing import KeyEncryptionKey, SealError

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Custody:
    """``providers`` by the scheme that records name them by; ``new_keys_in`` is the one that makes new keys."""

    kek: KeyEncryptionKey
    providers: Mapping[str, KeyProvider]
    clock: Clock
    algorithm: str
    new_keys_in: str = LOCAL

    def authentic(self, keyring: Keyring) -> Keyring:
        """See ``identity.keys.authenticity``. Raises ``SealError``."""
        return authentic(keyring, self.kek)

    async def new_key(self, times: NewKeyTimes, request: str = "") -> KeyRecord:
        """A key of the algorithm and provider in use. Raises ``ProviderError``."""
        made = await self._provider(self.new_keys_in).generate(self.algorithm)
        kid = made.public_jwk["kid"]
        return KeyRecord(
            kid=kid,
            algorithm=self.algorithm,
            state=times.state,
            created_at=self.clock.now(),
            activates_at=times.activates_at,
            activates_by=times.activates_by,
            retires_at=times.retires_at,
            removes_at=times.removes_at,
            public_jwk=made.public_jwk,
            sealed_private_key=self.kek.seal(made.private_part, seal_name(kid)),
            provider=self.new_keys_in,
            request=request,
        )

    async def discard(self, key: KeyRecord) -> None:
        """Ends a key that was made for nothing: another process has written first. Raises ``ProviderError``."""
        await self._provider(key.provider).destroy(self._private_part(key))

    async def signer(self, key: KeyRecord) -> Signer:
        """What signs with this key. Raises ``SealError`` and ``ProviderError``."""
        private_part = self._private_part(key)
        if not private_part:
            raise SealError(
                f"the keyring was altered, restore it from a backup: {key.kid!r} has no private half"
            )
        return await self._provider(key.provider).signer(key.kid, key.algorithm, private_part)

    def retired(self, key: KeyRecord) -> KeyRecord:
        """The record of a key that will not sign again. A private half that lies in the keyring goes at once; one that
        lies elsewhere when the key is removed, since a process that is a moment late may still sign with it."""
        return without_private_half(key, self.kek) if key.provider == LOCAL else key

    async def removed(self, key: KeyRecord) -> KeyRecord:
        """The record of a removed or revoked key, once its private half is gone. Raises ``SealError`` and ``ProviderError``."""
        if private_part := self._private_part(key):
            await self._provider(key.provider).destroy(private_part)
        return replace(key, sealed_private_key=b"")

    def new_secret(self, purpose: SecretPurpose, number: int) -> SealedSecret:
        """Random bytes, sealed."""
        bare = SealedSecret(purpose, number, self.clock.now(), b"")
        return replace(bare, sealed=self.kek.seal(secrets.token_bytes(SECRET_BYTES), bare.name))

    def secret(self, sealed: SealedSecret) -> bytes:
        """The secret in the clear. Raises ``SealError``."""
        return self.kek.open(sealed.sealed, sealed.name)

    def resealed(self, keyring: Keyring) -> tuple[Keyring, int]:
        """The keyring with every seal made by the key-encryption key in use, and how many had to be made anew.

        Raises ``SealError``.
        """
        keys = tuple(
            replace(key, sealed_private_key=self.kek.resealed(key.sealed_private_key, seal_name(key.kid)))
            if key.sealed_private_key
            else key
            for key in keyring.keys
        )
        secrets_anew = tuple(
            replace(secret, sealed=self.kek.resealed(secret.sealed, secret.name))
            for secret in keyring.secrets
        )
        changed = sum(
            new.sealed_private_key is not old.sealed_private_key
            for new, old in zip(keys, keyring.keys, strict=True)
        ) + sum(new.sealed is not old.sealed for new, old in zip(secrets_anew, keyring.secrets, strict=True))
        return (keyring.next(keys=keys, secrets=secrets_anew), changed) if changed else (keyring, 0)

    async def close(self) -> None:
        """Lets go of the providers."""
        for provider in self.providers.values():
            await provider.close()

    def _private_part(self, key: KeyRecord) -> bytes:
        return self.kek.open(key.sealed_private_key, seal_name(key.kid))

    def _provider(self, scheme: str) -> KeyProvider:
        try:
            return self.providers[scheme]
        except KeyError:
            raise ProviderError(
                f"the keyring names the key provider {scheme!r}, which is not configured; configure it until the "
                "last key it holds is removed"
            ) from None
