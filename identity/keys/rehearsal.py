"""Pending keys, opened and tried well before they sign.

A key that lives elsewhere can be lost, or its place away, and nobody would notice before the moment it takes over. So:

- Every process opens each pending key as soon as it sees it, has it sign a probe that is no token, and checks the
  signature against the published half; again every hour, and every few seconds while it fails or is about to sign.
- A key that could not be tried does not take over while another may sign (``identity.keys.schedule``).
- What was opened is at hand at the switch, which waits for no place.
- The log says once that a key cannot sign, with its id and what to do, and once that it can.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from grpc_identity.jwk import parse_jwk
from identity.keys.custody import Custody
from identity.keys.keyring import KeyRecord, Keyring, KeyState
from identity.keys.ports import PROBE, ProviderError, Signer, SignerUnavailableError
from identity.keys.sealing import SealError
from identity.keys.signatures import verifies
from identity.readiness import Problem

TRY_AGAIN = timedelta(hours=1)
TRY_SOON = timedelta(seconds=15)
SURE_FOR = timedelta(minutes=1)
"""So long before a switch a key that could be used is believed to be usable still."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Tried:
    """What came of it: a signer, or why there is none."""

    at: datetime
    key: KeyRecord = field(repr=False)
    signer: Signer | None
    reason: str = ""

    def is_older_than(self, age: timedelta, now: datetime) -> bool:
        # A clock that was set back makes everything old.
        return not timedelta(0) <= now - self.at < age


class Rehearsal:
    """Of one process."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody
        self._tried: Mapping[str, _Tried] = {}

    @property
    def unusable(self) -> frozenset[str]:
        """The ids of the keys that could not be used when they were last tried."""
        return frozenset(kid for kid, tried in self._tried.items() if tried.signer is None)

    def signer(self, kid: str) -> Signer | None:
        """The key of this id as it was opened last; ``None`` where it was not, or could not be."""
        tried = self._tried.get(kid)
        return tried.signer if tried is not None else None

    def problems(self) -> Sequence[Problem]:
        """Which keys cannot sign when their time comes. Nothing is blocked: the present key signs."""
        return [
            Problem("pending_key_unusable", _what_to_do(tried.key, tried.reason), blocks=False)
            for tried in self._tried.values()
            if tried.signer is None
        ]

    async def look(self, keyring: Keyring, now: datetime) -> None:
        """Tries the pending keys that were not tried lately, and forgets all others."""
        pending = [key for key in keyring.keys if key.state is KeyState.PENDING]
        kids = {key.kid for key in pending}
        self._tried = {kid: tried for kid, tried in self._tried.items() if kid in kids}
        await self._try(
            [key for key in pending if self._is_due(key, _pause(key, self._tried.get(key.kid), now), now)],
            now,
        )

    async def unusable_of(self, keys: Iterable[KeyRecord], now: datetime) -> Collection[str]:
        """Which of these keys, that are about to sign, cannot be used. Waits only for those not tried in the last minute."""
        chosen = list(keys)
        unsure = [key for key in chosen if self._is_due(key, SURE_FOR, now)]
        failed = [key for key in chosen if key.kid in self.unusable and self._is_due(key, TRY_SOON, now)]
        await self._try([key for key in chosen if key in unsure or key in failed], now)
        return self.unusable & {key.kid for key in chosen}

    def _is_due(self, key: KeyRecord, pause: timedelta, now: datetime) -> bool:
        tried = self._tried.get(key.kid)
        return tried is None or tried.is_older_than(pause, now)

    async def _try(self, keys: Sequence[KeyRecord], now: datetime) -> None:
        outcomes = await asyncio.gather(*(self._outcome(key, now) for key in keys))
        before = self._tried
        self._tried = {**before, **{outcome.key.kid: outcome for outcome in outcomes}}
        for outcome in outcomes:
            known = before.get(outcome.key.kid)
            was_usable = known is None or known.signer is not None
            if outcome.signer is None and was_usable:
                _log.warning("%s", _what_to_do(outcome.key, outcome.reason))
            elif outcome.signer is not None and not was_usable:
                _log.info("signing key %s can sign when its time comes", outcome.key.kid)

    async def _outcome(self, key: KeyRecord, now: datetime) -> _Tried:
        try:
            signer = await self._custody.signer(key)
            signature = await signer.probe()
        except (ProviderError, SealError, SignerUnavailableError) as error:
            return _Tried(now, key, None, str(error) or "nothing signs")
        if not verifies(key.algorithm, parse_jwk(key.public_jwk).public_key, PROBE, signature):
            return _Tried(now, key, None, "what it signs does not verify with what is published")
        return _Tried(now, key, signer)


def _pause(key: KeyRecord, tried: _Tried | None, now: datetime) -> timedelta:
    is_usable = tried is not None and tried.signer is not None
    return TRY_AGAIN if is_usable and now < key.activates_at - SURE_FOR else TRY_SOON


def _what_to_do(key: KeyRecord, reason: str) -> str:
    return (
        f"the signing key {key.kid} is to sign from {key.activates_at:%Y-%m-%d %H:%M} UTC and cannot: {reason}. Mend that; a "
        f"key that is lost is replaced by: identity keys revoke {key.kid}"
    )
