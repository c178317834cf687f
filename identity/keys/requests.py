"""What operators ask of a keyring, out of turn. Pure: the moment is an argument.

- A rotation that is asked for is one like any other: the key is published first, as long ahead as the schedule says.
- At once means: published now, and signing as soon as every live verifier holds it, ``FORCED_AHEAD`` later at the
  earliest (by then every process publishes it) and ``FORCED_UPTAKE`` after that at the latest. Verifiers that do not
  follow the server ask for a key they do not know.
- A key that is published and waits is taken rather than another made, unless it is of another algorithm or elsewhere.
- Revoking takes a key away in the same step in which another begins to sign. Where one is pending, verifiers hold it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from identity.keys.keyring import KeyRecord, Keyring, KeyState
from identity.keys.schedule import NewKeyTimes, Schedule, soonest_after, times_of

FORCED_AHEAD = timedelta(seconds=2)
FORCED_UPTAKE = timedelta(seconds=60)


def waiting(keyring: Keyring, algorithm: str, provider: str) -> KeyRecord | None:
    """A key that is published, has not signed yet, and is as new ones are."""
    pending = [key for key in keyring.keys if key.state is KeyState.PENDING]
    return next((key for key in pending if (key.algorithm, key.provider) == (algorithm, provider)), None)


def times_of_request(now: datetime, schedule: Schedule, *, at_once: bool) -> NewKeyTimes:
    """When a key that is asked for now will sign."""
    if not at_once:
        return times_of(KeyState.PENDING, soonest_after(now, schedule), schedule)
    return replace(
        times_of(KeyState.PENDING, now + FORCED_AHEAD, schedule),
        activates_by=now + FORCED_AHEAD + FORCED_UPTAKE,
    )


def hurried(key: KeyRecord, now: datetime, schedule: Schedule, request: str) -> KeyRecord:
    """A pending key that is to sign at once; the same where it is to already."""
    times = times_of_request(now, schedule, at_once=True)
    if key.activates_by <= times.activates_by:
        return key
    return replace(
        key,
        activates_at=min(times.activates_at, key.activates_at),
        activates_by=times.activates_by,
        retires_at=times.retires_at,
        removes_at=times.removes_at,
        request=request,
    )


def with_only(keyring: Keyring, new: KeyRecord, now: datetime) -> Keyring:
    """The keyring with ``new`` as the one that waits. What else waited has signed nothing and is removed."""
    others = (
        replace(key, state=KeyState.REMOVED, retires_at=now, removes_at=now)
        if key.state is KeyState.PENDING
        else key
        for key in keyring.keys
        if key.kid != new.kid
    )
    return keyring.next(keys=(*others, new))


def revoked(keyring: Keyring, kid: str, now: datetime) -> Keyring:
    """The keyring with this key taken away; the same object where it is not published."""
    key = keyring.get(kid)
    if key is None or not key.state.is_published:
        return keyring
    over = replace(key, state=KeyState.REVOKED, retires_at=min(key.retires_at, now), removes_at=now)
    return keyring.next(keys=tuple(over if other is key else other for other in keyring.keys))
