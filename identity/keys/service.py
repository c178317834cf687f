"""The keys of a running service: loaded, kept on schedule, and at hand without waiting.

Several processes may share a keyring. Whoever sees that a step is due writes it by compare-and-set; who comes
second reads what the first has written. So there is no leader to lose.

A keyring that vanishes or goes back under a running service is a fault to report, never a reason to start anew:
new secrets would end every session and lock out every client.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from identity.clock import Clock
from identity.keys import schedule as rules
from identity.keys.authenticity import authentic, seal_name, without_private_half
from identity.keys.keyring import EMPTY, KeyRecord, Keyring, KeyState, SealedSecret, SecretPurpose
from identity.keys.ports import KeyStore, KeyStoreError, NoActiveKeyError, Signer
from identity.keys.schedule import NewKeyTimes, Schedule
from identity.keys.sealing import KeyEncryptionKey, SealError
from identity.keys.signers.local import (
    LocalSigner,
    from_der,
    generate_private_key,
    public_jwk,
    to_der,
)
from identity.readiness import Problem

TICK_SECONDS = 15.0
SECRET_BYTES = 32
_ATTEMPTS = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class PublishedKeys:
    """What verifiers get. ``version`` changes whenever the keys do."""

    jwks: tuple[Mapping[str, Any], ...]
    version: str
    max_age_seconds: int


@dataclass(frozen=True, slots=True)
class RefreshTokenSecrets:
    """The accepted secrets by number, and the one new tokens are made with."""

    by_id: Mapping[int, bytes] = field(repr=False)
    active_id: int


class KeyService:
    """``on_change`` is told of every key this process has moved on: its id and its new state."""

    def __init__(
        self, store: KeyStore, kek: KeyEncryptionKey, schedule: Schedule, clock: Clock, algorithm: str
    ) -> None:
        self._store = store
        self._kek = kek
        self._schedule = schedule
        self._clock = clock
        self._algorithm = algorithm
        self._keyring = EMPTY
        self._published = PublishedKeys((), "", 0)
        self._signer: Signer | None = None
        self._failure = ""
        self._ticking = asyncio.Lock()
        self.on_change: Callable[[str, str], None] = _tell_nobody

    @property
    def keyring(self) -> Keyring:
        """The keyring as this process knows it; private material is sealed."""
        return self._keyring

    async def start(self) -> None:
        """Loads the keyring, making the first key and the secrets if there is none.

        Raises ``KeyStoreError`` and ``SealError``.
        """
        await self.tick()

    async def run(self) -> None:
        """Keeps the keys on schedule until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self.tick()
                self._failure = ""
            except (KeyStoreError, SealError) as error:
                self._failure = str(error)
                _log.error("the keyring could not be brought up to date: %s", error)
            except Exception:
                # Whatever it was, the next turn may succeed; without this loop keys would never change again.
                self._failure = "the keyring could not be brought up to date; the log says why"
                _log.exception("the keyring could not be brought up to date")

    async def tick(self) -> None:
        """Takes every step that is due, or learns that another process has.

        Raises ``KeyStoreError`` and ``SealError``; what was in use before stays in use then.
        """
        async with self._ticking:
            await self._tick()

    async def _tick(self) -> None:
        for _ in range(_ATTEMPTS):
            stored = await asyncio.to_thread(self._load)
            wanted = await asyncio.to_thread(self._brought_up_to_date, stored)
            if wanted is stored:
                self._use(stored)
                return
            if await asyncio.to_thread(self._store.compare_and_set, wanted):
                self._use(wanted)
                for key, state in rules.changes(stored, wanted):
                    self._announce(key, state, stored)
                return
        raise KeyStoreError("others keep changing the keyring; is one keyring shared by too many processes?")

    def active_signer(self) -> Signer:
        """The key that signs. Raises ``NoActiveKeyError``."""
        if self._signer is None:
            raise NoActiveKeyError
        return self._signer

    def published(self) -> PublishedKeys:
        """The public keys."""
        return self._published

    def refresh_token_secrets(self) -> RefreshTokenSecrets:
        """The secrets that authenticate refresh tokens."""
        kept = self._keyring.secrets_for(SecretPurpose.REFRESH_TOKEN)
        return RefreshTokenSecrets(
            {secret.number: self._kek.open(secret.sealed, secret.name) for secret in kept}, kept[-1].number
        )

    def client_secret_pepper(self) -> bytes:
        """The key under which client secrets are hashed."""
        secret = self._keyring.secrets_for(SecretPurpose.CLIENT_SECRET_PEPPER)[-1]
        return self._kek.open(secret.sealed, secret.name)

    def problems(self) -> Sequence[Problem]:
        """What keeps the keys from being ready."""
        found = []
        if self._signer is None:
            found.append(Problem("no_signing_key", "No signing key is active; look at: identity keys list"))
        if self._failure:
            found.append(Problem("keyring_unavailable", self._failure))
        return found

    def _load(self) -> Keyring:
        known = self._keyring
        stored = self._store.load()
        if stored is None and known is EMPTY:
            return EMPTY
        if stored is None:
            raise KeyStoreError(
                "the keyring is gone; put it back, or restart the service to begin with new keys"
            )
        stored = authentic(stored, self._kek)
        if stored.revision < known.revision or (stored.revision == known.revision and stored != known):
            raise KeyStoreError(
                f"the keyring is not the one this service has at revision {known.revision}; if it was restored from "
                "a backup, restart every service that shares it"
            )
        return stored

    def _brought_up_to_date(self, stored: Keyring) -> Keyring:
        now = self._clock.now()
        wanted = stored
        missing = [purpose for purpose in SecretPurpose if not stored.secrets_for(purpose)]
        if missing:
            made = tuple(self._new_secret(purpose) for purpose in missing)
            wanted = wanted.next(secrets=(*wanted.secrets, *made))
        wanted = self._without_spent_keys(rules.advanced(wanted, now), stored)
        times = rules.new_key_due(wanted, now, self._schedule)
        if times is not None:
            wanted = wanted.next(keys=(*wanted.keys, self._new_key(times)))
        if wanted is stored:
            return stored
        return Keyring(stored.revision + 1, wanted.keys, wanted.secrets)

    def _without_spent_keys(self, keyring: Keyring, before: Keyring) -> Keyring:
        retired = {key.kid for key, state in rules.changes(before, keyring) if state is KeyState.RETIRED}
        if not retired:
            return keyring
        keys = (without_private_half(key, self._kek) if key.kid in retired else key for key in keyring.keys)
        return keyring.next(keys=tuple(keys))

    def _new_secret(self, purpose: SecretPurpose) -> SealedSecret:
        bare = SealedSecret(purpose, 1, self._clock.now(), b"")
        sealed = self._kek.seal(secrets.token_bytes(SECRET_BYTES), bare.name)
        return SealedSecret(purpose, bare.number, bare.created_at, sealed)

    def _new_key(self, times: NewKeyTimes) -> KeyRecord:
        private_key = generate_private_key(self._algorithm)
        jwk = public_jwk(private_key)
        return KeyRecord(
            kid=jwk["kid"],
            algorithm=self._algorithm,
            state=times.state,
            created_at=self._clock.now(),
            activates_at=times.activates_at,
            retires_at=times.retires_at,
            removes_at=times.removes_at,
            public_jwk=jwk,
            sealed_private_key=self._kek.seal(to_der(private_key), seal_name(jwk["kid"])),
        )

    def _use(self, keyring: Keyring) -> None:
        self._signer = self._signer_of(keyring.active)
        self._keyring = keyring
        jwks = tuple(key.public_jwk for key in keyring.published)
        age_seconds = int(rules.max_age(keyring, self._clock.now()).total_seconds())
        if jwks != self._published.jwks or age_seconds != self._published.max_age_seconds:
            digest = hashlib.sha256(json.dumps([dict(jwk) for jwk in jwks], sort_keys=True).encode())
            self._published = PublishedKeys(jwks, digest.hexdigest()[:16], age_seconds)

    def _signer_of(self, active: KeyRecord | None) -> Signer | None:
        if active is None or (self._signer is not None and self._signer.kid == active.kid):
            return self._signer if active else None
        der = self._kek.open(active.sealed_private_key, seal_name(active.kid))
        try:
            return LocalSigner(active.kid, active.algorithm, from_der(der))
        except (TypeError, ValueError):
            raise SealError(
                f"the keyring was altered, restore it from a backup: {active.kid!r} has no private half"
            ) from None

    def _announce(self, key: KeyRecord, state: KeyState, before: Keyring) -> None:
        if all(known.kid != key.kid for known in before.keys):
            self.on_change(key.kid, "created")
        if state is not KeyState.PENDING:
            event = {KeyState.ACTIVE: "activated", KeyState.RETIRED: "retired", KeyState.REMOVED: "removed"}
            self.on_change(key.kid, event[state])
        _log.info("signing key %s is %s", key.kid, state)


def _tell_nobody(kid: str, state: str) -> None:
    del kid, state
