"""The keys of a running service: loaded, kept on schedule, and at hand without waiting.

Several processes may share a keyring. Whoever sees that a step is due writes it by compare-and-set; who comes
second reads what the first has written. So there is no leader to lose. A look at the revision several times a second
finds what others have written.

A keyring that vanishes or goes back under a running service is never a reason to start anew: new secrets would end
every session and lock out every client. Where the store may lose what was written to it, what this service knows is
put back; anywhere else that is a fault to report.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from identity.audit.event import Circumstances, Event
from identity.clock import Clock
from identity.errors import IdentityError
from identity.keys import schedule as rules
from identity.keys.custody import Custody
from identity.keys.events import BY_ITSELF, events_of
from identity.keys.joining import joined
from identity.keys.keyring import EMPTY, KeyRecord, Keyring, KeyState, SecretPurpose
from identity.keys.ports import (
    KeyStore,
    KeyStoreAwayError,
    KeyStoreError,
    NoActiveKeyError,
    ProviderError,
    Signer,
    SignerBusyError,
    SignerUnavailableError,
    Uptake,
)
from identity.keys.rehearsal import TRY_SOON, Rehearsal
from identity.keys.schedule import Schedule
from identity.keys.sealing import SealError
from identity.keys.secrets import accepted, in_use, rotation_due
from identity.keys.upkeep import Upkeep
from identity.readiness import Problem

FOLLOW_SECONDS = 0.25
TICK_SECONDS = 15.0
RETRY_SECONDS = 1.0
ASK_AFTER_PART_OF_WAIT = 20
MAX_ASK_SECONDS = 5.0
_ATTEMPTS = 20

_log = logging.getLogger(__name__)

KeyringChange: TypeAlias = Callable[[Keyring], Awaitable[tuple[Keyring, Sequence[Event]]]]
"""What is to be done to a keyring, and further events that say so; asked again when another process was first."""


@dataclass(frozen=True, slots=True)
class PublishedKeys:
    """What verifiers get. ``version`` changes whenever the keys do, and two are equal where it is the same."""

    jwks: tuple[Mapping[str, Any], ...] = field(compare=False)
    version: str
    max_age_seconds: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class RefreshTokenSecrets:
    """The accepted secrets by number, and the one new tokens are made with."""

    by_id: Mapping[int, bytes] = field(repr=False)
    active_id: int


class KeyService:
    """``on_published`` is called when the published keys have changed, ``on_secrets`` when those of refresh tokens
    have; ``uptake`` knows who holds which key. Without it, a key waits for its deadline."""

    def __init__(self, store: KeyStore, custody: Custody, schedule: Schedule, clock: Clock) -> None:
        self.custody = custody
        self.schedule = schedule
        self.clock = clock
        self.uptake: Uptake | None = None
        self.on_published: Callable[[], None] = _tell_nobody
        self.on_secrets: Callable[[RefreshTokenSecrets], None] = _tell_nobody
        self._store = store
        self._rehearsal = Rehearsal(custody)
        self._upkeep = Upkeep(custody, schedule, self._rehearsal)
        self._keyring = EMPTY
        self._published = PublishedKeys((), "", 0)
        self._secrets: RefreshTokenSecrets | None = None
        self._signer: Signer | None = None
        self._failure = ""
        self._laggards: Mapping[str, Sequence[str]] = {}
        self._ask_again_at = 0.0
        self._has_new_keys = asyncio.Event()
        self._writing = asyncio.Lock()

    @property
    def keyring(self) -> Keyring:
        """The keyring as this process knows it; private material is sealed."""
        return self._keyring

    @property
    def laggards(self) -> Mapping[str, Sequence[str]]:
        """Which verifiers lacked a key whose time has come when they were last asked, by its id."""
        return self._laggards

    def ready_keys(self) -> Collection[str]:
        """The ids of the keys that this process publishes and, if they are to sign, is known to be able to use."""
        signs = self._signer.kid if self._signer is not None else ""
        return [
            key.kid
            for key in self._keyring.published
            if key.state is KeyState.RETIRED
            or key.kid == signs
            or self._rehearsal.signer(key.kid) is not None
        ]

    async def start(self) -> None:
        """Loads the keyring, making the first key and the secrets if there is none.

        Raises ``KeyStoreError``, ``SealError`` and, where there is no key yet, ``ProviderError``.
        """
        async with self._writing:
            await self._write(_no_change, BY_ITSELF, ())

    async def close(self) -> None:
        """Lets go of the providers."""
        await self.custody.close()

    async def run(self) -> None:
        """Follows the keyring and keeps it on schedule until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._keep_trying())

    async def rehearse(self) -> None:
        """Opens and tries the keys that wait; see ``identity.keys.rehearsal``."""
        await self._rehearsal.look(self._keyring, self.clock.now())

    async def _keep_trying(self) -> None:
        # Apart from following, which must not wait for a place that is slow.
        while True:
            self._has_new_keys.clear()
            try:
                await self.rehearse()
            except Exception:
                _log.exception("the keys that wait could not be tried")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TRY_SOON.total_seconds()):
                    await self._has_new_keys.wait()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        ticked_at = loop.time()
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            pause = RETRY_SECONDS if self._failure else TICK_SECONDS
            try:
                if loop.time() - ticked_at >= pause or (not self._failure and await self.has_news()):
                    ticked_at = loop.time()
                    await self.tick()
            except KeyStoreAwayError as error:
                # The readiness of the store says so, and nothing that is known has changed.
                _log.debug("the keyring is not followed meanwhile: %s", error)
            except (KeyStoreError, SealError, ProviderError) as error:
                self._fail(str(error))
            except Exception:
                # Whatever it was, the next turn may succeed; without this loop keys would never change again.
                _log.exception("the keyring could not be brought up to date")
                self._failure = "the keyring could not be brought up to date; the log says why"

    async def tick(self) -> None:
        """Takes every step that is due, or learns that another process has.

        Raises ``KeyStoreError``, ``SealError`` and ``ProviderError``; what was in use before stays in use then, except
        a key whose time is over: while its successor's provider is away, nothing signs.
        """
        held = await self._held()
        async with self._writing:
            await self._write(_no_change, BY_ITSELF, held)

    async def change(self, make: KeyringChange, circumstances: Circumstances) -> Keyring:
        """Does what an operator asks for, and what is due. Raises as ``tick`` where nothing was done."""
        async with self._writing:
            before = self._keyring.revision
            try:
                await self._write(make, circumstances, ())
            except (ProviderError, SealError) as error:
                if self._keyring.revision == before:
                    raise
                # It is done. That the key does not sign is another matter, which is tried again.
                self._fail(str(error))
            return self._keyring

    @property
    def can_sign(self) -> bool:
        """Whether ``active_signer`` has an answer."""
        return self._signer is not None

    def active_signer(self) -> Signer:
        """The key that signs. Raises ``NoActiveKeyError``."""
        if self._signer is None:
            raise NoActiveKeyError
        return self._signer

    def published(self) -> PublishedKeys:
        """The public keys, and how long they may be used from this moment on."""
        age_seconds = int(rules.max_age(self._keyring, self.clock.now()).total_seconds())
        if age_seconds != self._published.max_age_seconds:
            self._published = replace(self._published, max_age_seconds=age_seconds)
        return self._published

    def refresh_token_secrets(self) -> RefreshTokenSecrets:
        """The secrets that authenticate refresh tokens."""
        kept = accepted(self._keyring, SecretPurpose.REFRESH_TOKEN)
        return RefreshTokenSecrets(
            {secret.number: self.custody.secret(secret) for secret in kept},
            in_use(kept, self.clock.now()).number,
        )

    def client_secret_pepper(self) -> bytes:
        """The key under which client secrets are hashed."""
        return self.custody.secret(self._keyring.secrets_for(SecretPurpose.CLIENT_SECRET_PEPPER)[-1])

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
        return [*found, *self._rehearsal.problems()]

    def _fail(self, message: str) -> None:
        if message != self._failure:
            _log.error("the keyring could not be brought up to date: %s", message)
        self._failure = message

    async def has_news(self) -> bool:
        """Whether a step is due, or others have taken one; cheap. Raises ``KeyStoreError``."""
        now, unusable = self.clock.now(), self._rehearsal.unusable
        may_ask = asyncio.get_running_loop().time() >= self._ask_again_at
        is_due = (
            (may_ask and bool(self._waiting_for_uptake()))
            or rules.advanced(self._keyring, now, (), unusable) is not self._keyring
            or rules.new_key_due(self._keyring, now, self.schedule, unusable) is not None
            or rotation_due(self._keyring, now, self.schedule.secret_for)
            or (self._secrets is not None and self._secrets.active_id != self._secret_in_use())
        )
        return is_due or await self._store.revision() != self._keyring.revision

    def _secret_in_use(self) -> int:
        return in_use(accepted(self._keyring, SecretPurpose.REFRESH_TOKEN), self.clock.now()).number

    def _waiting_for_uptake(self) -> Sequence[KeyRecord]:
        unusable = self._rehearsal.unusable
        return [key for key in rules.overdue(self._keyring, self.clock.now()) if key.kid not in unusable]

    async def _held(self) -> Collection[str]:
        """Which of the keys whose time has come are known to be held by every live verifier."""
        now, waiting = self.clock.now(), self._waiting_for_uptake()
        if self.uptake is None or not waiting:
            return ()
        # Who lacks a key gets it within moments, or not for a while.
        waited_seconds = (now - waiting[-1].activates_at).total_seconds()
        pause = min(waited_seconds / ASK_AFTER_PART_OF_WAIT, MAX_ASK_SECONDS)
        self._ask_again_at = asyncio.get_running_loop().time() + pause
        try:
            self._laggards = {key.kid: await self.uptake.lacking(key.kid) for key in waiting}
        except IdentityError:
            return ()
        return {kid for kid, names in self._laggards.items() if not names}

    async def _write(self, make: KeyringChange, circumstances: Circumstances, held: Collection[str]) -> None:
        for _ in range(_ATTEMPTS):
            stored = await self._load()
            self._failure = ""
            base = joined(stored, self._keyring) if self._store.may_lose_writes else stored
            changed, events = await make(base)
            wanted, trouble = await self._upkeep(changed, self.clock.now(), held)
            if trouble:
                self._fail(trouble)
            if wanted is stored:
                await self._use(stored)
                return
            wanted = replace(wanted, revision=stored.revision + 1)
            events = [*events_of(base, wanted, circumstances, self._laggards), *events]
            if await self._store.compare_and_set(wanted, events):
                for key, state in rules.changes(stored, wanted):
                    _log.info("signing key %s is %s", key.kid, state)
                await self._use(wanted)
                return
            await self._discard_new_keys(wanted, stored)
        raise KeyStoreError("others keep changing the keyring; is one keyring shared by too many processes?")

    async def _discard_new_keys(self, wanted: Keyring, stored: Keyring) -> None:
        for key in wanted.keys:
            if stored.get(key.kid) is None and self._keyring.get(key.kid) is None:
                try:
                    await self.custody.discard(key)
                except ProviderError as error:
                    _log.warning("the key %s was made for nothing, and stays where it is: %s", key.kid, error)

    async def _load(self) -> Keyring:
        known = self._keyring
        stored = await self._store.load()
        if stored is None and (known is EMPTY or self._store.may_lose_writes):
            return EMPTY
        if stored is None:
            raise KeyStoreError(
                "the keyring is gone; put it back, or restart the service to begin with new keys"
            )
        stored = await asyncio.to_thread(self.custody.authentic, stored)
        if self._store.may_lose_writes:
            return stored
        if stored.revision < known.revision or (stored.revision == known.revision and stored != known):
            raise KeyStoreError(
                f"the keyring is not the one this service has at revision {known.revision}; if it was restored from "
                "a backup, restart every service that shares it"
            )
        return stored

    async def _use(self, keyring: Keyring) -> None:
        # What is published does not wait for a provider.
        self._keyring = keyring
        jwks = tuple(key.public_jwk for key in keyring.published)
        if jwks != self._published.jwks or not self._published.version:
            digest = hashlib.sha256(json.dumps([dict(jwk) for jwk in jwks], sort_keys=True).encode())
            self._published = PublishedKeys(jwks, digest.hexdigest()[:16], 0)
            self._has_new_keys.set()
            self.on_published()
        waiting = {key.kid for key in rules.overdue(keyring, self.clock.now())}
        self._laggards = {kid: names for kid, names in self._laggards.items() if kid in waiting}
        self._use_secrets()
        await self._sign_with(keyring.active)

    def _use_secrets(self) -> None:
        before, self._secrets = self._secrets, self.refresh_token_secrets()
        if self._secrets != before:
            self.on_secrets(self._secrets)

    async def _sign_with(self, active: KeyRecord | None) -> None:
        signer, self._signer = self._signer, None
        if active is None:
            return
        if signer is not None and signer.kid in {key.kid for key in self._keyring.published}:
            # Until its successor is at hand, which may take a provider a moment.
            self._signer = signer
        if signer is None or signer.kid != active.kid:
            try:
                self._signer = self._rehearsal.signer(active.kid) or await self.custody.signer(active)
            except BaseException:
                self._signer = None
                raise


async def _no_change(keyring: Keyring) -> tuple[Keyring, Sequence[Event]]:
    return keyring, ()


def _tell_nobody(*news: object) -> None:
    del news
