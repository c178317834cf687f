"""The steps that are due, taken: keys made, moved on, and ended. Writes nothing."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from identity.keys import schedule as rules
from identity.keys.custody import Custody
from identity.keys.keyring import LOCAL, KeyRecord, Keyring, KeyState, SecretPurpose
from identity.keys.ports import ProviderError
from identity.keys.rehearsal import Rehearsal
from identity.keys.requests import with_only
from identity.keys.schedule import Schedule
from identity.keys.sealing import SealError
from identity.keys.secrets import accepted, next_number, rotated, rotation_due

FIRST_NUMBER = 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Brings a keyring up to date."""

    custody: Custody
    schedule: Schedule
    rehearsal: Rehearsal

    async def __call__(
        self, keyring: Keyring, now: datetime, held: Collection[str] = ()
    ) -> tuple[Keyring, str]:
        """The keyring with every step taken that is due, the same object where none is; and what could not be done.

        Raises ``ProviderError`` where there is no key at all and none can be made. Where those that were there are revoked,
        that holds, and nothing signs.
        """
        wanted, trouble = keyring, ""
        missing = [purpose for purpose in SecretPurpose if not keyring.secrets_for(purpose)]
        if missing:
            made = tuple(self.custody.new_secret(purpose, FIRST_NUMBER) for purpose in missing)
            wanted = wanted.next(secrets=(*wanted.secrets, *made))
        if rotation_due(wanted, now, self.schedule.secret_for):
            number = next_number(accepted(wanted, SecretPurpose.REFRESH_TOKEN))
            wanted = rotated(wanted, self.custody.new_secret(SecretPurpose.REFRESH_TOKEN, number))
        unusable = await self.rehearsal.unusable_of(rules.about_to_sign(wanted, now), now)
        wanted = rules.advanced(wanted, now, held, unusable)
        times = rules.new_key_due(wanted, now, self.schedule, unusable)
        if times is not None:
            try:
                wanted = with_only(wanted, await self.custody.new_key(times), now)
            except ProviderError as error:
                if wanted.active is None:
                    # One whose place may come back is better than none.
                    wanted = rules.advanced(wanted, now)
                if not wanted.keys:
                    raise
                # There is a day left for it; the other steps are taken.
                trouble = str(error)
        return await self._without_spent_keys(wanted, keyring), trouble

    async def _without_spent_keys(self, keyring: Keyring, before: Keyring) -> Keyring:
        keys = [await self._without_spent_half(key, before.get(key.kid)) for key in keyring.keys]
        if all(new is old for new, old in zip(keys, keyring.keys, strict=True)):
            return keyring
        return keyring.next(keys=tuple(keys))

    async def _without_spent_half(self, key: KeyRecord, before: KeyRecord | None) -> KeyRecord:
        known_state = before.state if before else None
        if key.state is KeyState.RETIRED and known_state is not KeyState.RETIRED:
            return self.custody.retired(key)
        is_over = not key.state.is_published and key.sealed_private_key
        # That a key is over is written first; a provider may be slow, or away.
        if is_over and (key.provider == LOCAL or known_state is key.state):
            try:
                return await self.custody.removed(key)
            except (SealError, ProviderError) as error:
                _log.warning("the private half of %s could not be destroyed: %s", key.kid, error)
        return key
