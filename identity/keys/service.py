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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from identity.clock import Clock
from identity.keys import schedule as rules
from identity.keys.custody import Custody
from identity.keys.keyring import EMPTY, KeyRecord, Keyring, KeyState, SecretPurpose
from identity.keys.ports import (
    KeyStore,
    KeyStoreError,
    NoActiveKeyError,
    ProviderError,
    Signer,
    SignerBusyError,
    SignerUnavailableError,
)
from identity.keys.schedule import Schedule
from identity.keys.sealing import SealError
from identity.readiness import Problem

TICK_SECONDS = 15.0
FIRST_NUMBER = 1
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

    def __init__(self, store: KeyStore, custody: Custody, schedule: Schedule, clock: Clock) -> None:
        self._store = store
        self._custody = custody
        self._schedule = schedule
        self._clock = clock
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

        Raises ``KeyStoreError``, ``SealError`` and, where there is no key yet, ``ProviderError``.
        """
        await self.tick()

    async def close(self) -> None:
        """Lets go of the providers."""
        await self._custody.close()

    async def run(self) -> None:
        """Keeps the keys on schedule until cancelled."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self.tick()
            except (KeyStoreError, SealError, ProviderError) as error:
                self._failure = str(error)
                _log.error("the keyring could not be brought up to date: %s", error)
            except Exception:
                # Whatever it was, the next turn may succeed; without this loop keys would never change again.
                self._failure = "the keyring could not be brought up to date; the log says why"
                _log.exception("the keyring could not be brought up to date")

    async def tick(self) -> None:
        """Takes every step that is due, or learns that another process has.

        Raises ``KeyStoreError``, ``SealError`` and ``ProviderError``; what was in use before stays in use then, except
        a key whose time is over: while its successor's provider is away, nothing signs.
        """
        async with self._ticking:
            await self._tick()

    async def _tick(self) -> None:
        for _ in range(_ATTEMPTS):
            stored = await self._load()
            self._failure = ""
            wanted, made = await self._brought_up_to_date(stored)
            if wanted is stored:
                await self._use(stored)
                return
            if await self._store.compare_and_set(wanted):
                for key, state in rules.changes(stored, wanted):
                    self._announce(key, state, stored)
                await self._use(wanted)
                return
            if made is not None:
                await self._custody.discard(made)
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
            {secret.number: self._custody.secret(secret) for secret in kept}, kept[-1].number
        )

    def client_secret_pepper(self) -> bytes:
        """The key under which client secrets are hashed."""
        secret = self._keyring.secrets_for(SecretPurpose.CLIENT_SECRET_PEPPER)[-1]
        return self._custody.secret(secret)

    def problems(self) -> Sequence[Problem]:
        """What keeps the keys from being ready."""
        found = []
        if self._signer is None:
            found.append(Problem("no_signing_key", "No signing key is active; look at: identity keys list"))
        else:
            try:
                self._signer.check()
            except SignerBusyError:
                pass
            except SignerUnavailableError as error:
                found.append(Problem("signer_unavailable", str(error)))
        if self._failure:
            found.append(Problem("keyring_unavailable", self._failure))
        return found

    async def _load(self) -> Keyring:
        known = self._keyring
        stored = await self._store.load()
        if stored is None and known is EMPTY:
            return EMPTY
        if stored is None:
            raise KeyStoreError(
                "the keyring is gone; put it back, or restart the service to begin with new keys"
            )
        stored = await asyncio.to_thread(self._custody.authentic, stored)
        if stored.revision < known.revision or (stored.revision == known.revision and stored != known):
            raise KeyStoreError(
                f"the keyring is not the one this service has at revision {known.revision}; if it was restored from "
                "a backup, restart every service that shares it"
            )
        return stored

    async def _brought_up_to_date(self, stored: Keyring) -> tuple[Keyring, KeyRecord | None]:
        """The keyring with every step taken that is due, and the key that was made for it."""
        now = self._clock.now()
        wanted = stored
        missing = [purpose for purpose in SecretPurpose if not stored.secrets_for(purpose)]
        if missing:
            made = tuple(self._custody.new_secret(purpose, FIRST_NUMBER) for purpose in missing)
            wanted = wanted.next(secrets=(*wanted.secrets, *made))
        wanted = await self._without_spent_keys(rules.advanced(wanted, now), stored)
        new_key = await self._new_key(wanted, now)
        if new_key is not None:
            wanted = wanted.next(keys=(*wanted.keys, new_key))
        if wanted is stored:
            return stored, None
        return Keyring(stored.revision + 1, wanted.keys, wanted.secrets), new_key

    async def _new_key(self, keyring: Keyring, now: datetime) -> KeyRecord | None:
        times = rules.new_key_due(keyring, now, self._schedule)
        if times is None:
            return None
        try:
            return await self._custody.new_key(times)
        except ProviderError as error:
            if keyring.active is None:
                raise
            # The other steps are taken; there is a day left for this one.
            self._failure = str(error)
            _log.error("no successor could be made for the signing key: %s", error)
            return None

    async def _without_spent_keys(self, keyring: Keyring, before: Keyring) -> Keyring:
        known = {key.kid: key.state for key in before.keys}
        keys = []
        for key in keyring.keys:
            if key.state is KeyState.RETIRED and known.get(key.kid) is not KeyState.RETIRED:
                keys.append(self._custody.retired(key))
            elif key.state is KeyState.REMOVED and key.sealed_private_key:
                keys.append(await self._removed(key))
            else:
                keys.append(key)
        if all(new is old for new, old in zip(keys, keyring.keys, strict=True)):
            return keyring
        return keyring.next(keys=tuple(keys))

    async def _removed(self, key: KeyRecord) -> KeyRecord:
        try:
            return await self._custody.removed(key)
        except (SealError, ProviderError) as error:
            # It signs nothing that anybody accepts; the next turn tries again.
            _log.warning("the private half of the removed key %s could not be destroyed: %s", key.kid, error)
            return key

    async def _use(self, keyring: Keyring) -> None:
        # What is published does not wait for a provider.
        self._keyring = keyring
        jwks = tuple(key.public_jwk for key in keyring.published)
        age_seconds = int(rules.max_age(keyring, self._clock.now()).total_seconds())
        if jwks != self._published.jwks or age_seconds != self._published.max_age_seconds:
            digest = hashlib.sha256(json.dumps([dict(jwk) for jwk in jwks], sort_keys=True).encode())
            self._published = PublishedKeys(jwks, digest.hexdigest()[:16], age_seconds)
        await self._sign_with(keyring.active)

    async def _sign_with(self, active: KeyRecord | None) -> None:
        signer, self._signer = self._signer, None
        if active is None:
            return
        if signer is not None and signer.kid in {key.kid for key in self._keyring.published}:
            # Until its successor is at hand, which may take a provider a moment.
            self._signer = signer
        if signer is None or signer.kid != active.kid:
            try:
                self._signer = await self._custody.signer(active)
            except BaseException:
                self._signer = None
                raise

    def _announce(self, key: KeyRecord, state: KeyState, before: Keyring) -> None:
        if all(known.kid != key.kid for known in before.keys):
            self.on_change(key.kid, "created")
        if state is not KeyState.PENDING:
            event = {KeyState.ACTIVE: "activated", KeyState.RETIRED: "retired", KeyState.REMOVED: "removed"}
            self.on_change(key.kid, event[state])
        _log.info("signing key %s is %s", key.kid, state)


def _tell_nobody(kid: str, state: str) -> None:
    del kid, state
