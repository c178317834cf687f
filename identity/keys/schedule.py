"""When keys come and go. Pure: the moment is an argument.

Rules:

- A new key is published ``publish_ahead`` before it signs, so that every verifier has fetched it by then. The
  very first key signs at once: nobody can hold an older set.
- A key signs for at most ``sign_for``. Its successor is made early enough to be published that long by every
  process, and takes over early enough for every process to have changed to it before the time is up.
- It takes over as soon as its time has come and every live verifier is known to hold it, and ``UPTAKE`` later in any
  case; its predecessor signs meanwhile.
- A key that is known to be unusable does not take over while another signs, however late it is. When it is ``SPREAD`` past
  its deadline it is given up, and another is made in its stead, which is published as long ahead as any.
- A retired key stays published until the last token it signed has expired, plus skew and the time for which
  a verifier may go without fetching.
- A key that should have retired keeps signing while no other can: an expired schedule is better than no tokens.
- What was removed is remembered for the operator, the last ``MAX_REMOVED`` of it, and without its private half.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from identity.keys.keyring import STATE_ORDER, KeyRecord, Keyring, KeyState
from identity.tokens.access_token import MAX_TTL_SECONDS
from identity.tokens.lifetimes import MAX_SESSION_SECONDS

MAX_JWKS_AGE = timedelta(hours=1)
MIN_JWKS_AGE = timedelta(minutes=1)
SPREAD = timedelta(minutes=5)
"""A step that was written is known to every process within this time; they look several times in it."""
UPTAKE = MAX_JWKS_AGE
"""How long a key whose time has come waits for verifiers that lack it. Who polls at all has looked by then."""
MIN_SECRET_LIFE = timedelta(seconds=MAX_SESSION_SECONDS) + timedelta(days=1)
"""So long a secret is accepted after its successor came into use: longer than any session lives."""
MAX_REMOVED = 10
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The times, checked as a whole: no combination that could cause a false rejection is accepted.

    Raises ``ValueError``, which begins with the name of the setting (or field) and says why.
    """

    publish_ahead: timedelta = timedelta(hours=24)
    sign_for: timedelta = timedelta(days=90)
    max_token_ttl: timedelta = timedelta(seconds=MAX_TTL_SECONDS)
    skew: timedelta = timedelta(seconds=60)
    secret_for: timedelta = timedelta(days=90)

    def __post_init__(self) -> None:
        if self.max_token_ttl <= timedelta(0):
            raise ValueError("max_token_ttl must be positive")
        if self.skew < timedelta(0):
            raise ValueError("skew must not be negative")
        if self.secret_for < MIN_SECRET_LIFE:
            raise ValueError(
                f"secret_days must be at least {MIN_SECRET_LIFE.days}: two secrets of refresh tokens are accepted, and "
                "sessions would end whose token was made with one that is gone"
            )
        if self.publish_ahead < 2 * MAX_JWKS_AGE:
            raise ValueError(
                f"publish_ahead_hours must be at least {2 * MAX_JWKS_AGE / _HOUR:g}: verifiers may use a fetched set for "
                f"{MAX_JWKS_AGE / _HOUR:g}, and would refuse a key that signs before they have seen it"
            )
        least = self.publish_ahead + self.keep_after_retirement + UPTAKE + 3 * SPREAD
        if self.sign_for <= least:
            raise ValueError(
                f"sign_days must be more than {least / _DAY:.3f}: a key is published for {self.publish_ahead / _HOUR:g} hours "
                f"before it signs and for {self.keep_after_retirement / _HOUR:.3g} after, verifiers have "
                f"{UPTAKE / _HOUR:g} to take it up, and its successor would be due before it signs"
            )

    @property
    def keep_after_retirement(self) -> timedelta:
        """From the last signature until nobody needs the key."""
        return self.max_token_ttl + self.skew + MAX_JWKS_AGE


@dataclass(frozen=True, slots=True)
class NewKeyTimes:
    """When a key that is to be made will sign."""

    state: KeyState
    activates_at: datetime
    activates_by: datetime
    retires_at: datetime
    removes_at: datetime


def new_key_due(
    keyring: Keyring, now: datetime, schedule: Schedule, unusable: Collection[str] = ()
) -> NewKeyTimes | None:
    """The times of the key that has to be made now, or ``None``. What waits meanwhile is of no use and not needed then.

    ``unusable`` are the ids of keys that are known not to sign.
    """
    pending = [key for key in keyring.keys if key.state is KeyState.PENDING]
    active = keyring.active
    if active is None:
        is_needed = all(key.kid in unusable for key in pending)
        return times_of(KeyState.ACTIVE, now, schedule) if is_needed else None
    if any(not _is_given_up(key, now, unusable) for key in pending):
        return None
    if not pending and now < made_at(active, schedule):
        return None
    activates_at = soonest_after(now, schedule) if pending else takes_over_at(active, now, schedule)
    return times_of(KeyState.PENDING, activates_at, schedule)


def made_at(active: KeyRecord, schedule: Schedule) -> datetime:
    """When the successor of the active key is made: one spread before it has to be published by all processes, and
    early enough for one more until all have changed to it."""
    return active.retires_at - schedule.publish_ahead - UPTAKE - 2 * SPREAD


def soonest_after(made: datetime, schedule: Schedule) -> datetime:
    """When a key that is made then may sign, published by all processes for as long as it has to be."""
    return made + schedule.publish_ahead + SPREAD


def takes_over_at(active: KeyRecord, made: datetime, schedule: Schedule) -> datetime:
    """When the successor of the active key, made then, begins to sign at the earliest."""
    return max(active.retires_at - SPREAD - UPTAKE, soonest_after(made, schedule))


def overdue(keyring: Keyring, now: datetime) -> Sequence[KeyRecord]:
    """The pending keys whose time has come."""
    return [key for key in keyring.keys if key.state is KeyState.PENDING and now >= key.activates_at]


def about_to_sign(keyring: Keyring, now: datetime) -> Sequence[KeyRecord]:
    """The pending keys of which one may take over now."""
    if keyring.active is not None:
        return overdue(keyring, now)
    return [key for key in keyring.keys if key.state is KeyState.PENDING]


def advanced(
    keyring: Keyring, now: datetime, held: Collection[str] = (), unusable: Collection[str] = ()
) -> Keyring:
    """The keyring with every key in the state its time asks for; the same object when nothing is due.

    ``held`` are the ids of keys that every live verifier is known to hold, ``unusable`` those of keys that are known not
    to sign.
    """
    due = [key for key in about_to_sign(keyring, now) if key.kid not in unusable]
    if keyring.active is None:
        due = due[:1]
    else:
        due = [key for key in due if key.kid in held or now >= key.activates_by]
    signs = due[-1] if due else keyring.active
    keys = []
    for key in keyring.keys:
        state = key.state
        if key is signs:
            state = KeyState.ACTIVE
        elif key in due or state is KeyState.ACTIVE:
            state = KeyState.RETIRED
        elif state is KeyState.RETIRED and now >= key.removes_at:
            state = KeyState.REMOVED
        keys.append(key if state is key.state else _in_state(key, state, now))
    forgotten = [key.kid for key in keys if not key.state.is_published][:-MAX_REMOVED]
    if not forgotten and all(new is old for new, old in zip(keys, keyring.keys, strict=True)):
        return keyring
    return keyring.next(keys=tuple(key for key in keys if key.kid not in forgotten))


def max_age(keyring: Keyring, now: datetime) -> timedelta:
    """How long the published set may be used without asking again.

    At most an hour, which the schedule allows for on both ends, and not past the moment at which a pending key
    starts to sign: everybody looks again then, and a set that somehow lacks the key is not used on. A minute at least,
    so that nobody asks without end while that key waits.
    """
    activations = [key.activates_at - now for key in keyring.keys if key.state is KeyState.PENDING]
    return max(min([MAX_JWKS_AGE, *activations]), MIN_JWKS_AGE)


def changes(before: Keyring, after: Keyring) -> Sequence[tuple[KeyRecord, KeyState]]:
    """The keys that have moved on, with the state they moved to, in the order of states."""
    known = {key.kid: key.state for key in before.keys}
    moved = [(key, key.state) for key in after.keys if known.get(key.kid) is not key.state]
    return sorted(moved, key=lambda item: STATE_ORDER[item[1]])


def times_of(state: KeyState, activates_at: datetime, schedule: Schedule) -> NewKeyTimes:
    """The times of a key that begins to sign then."""
    retires_at = activates_at + schedule.sign_for
    return NewKeyTimes(
        state,
        activates_at,
        activates_at if state is KeyState.ACTIVE else activates_at + UPTAKE,
        retires_at,
        retires_at + schedule.keep_after_retirement,
    )


def _is_given_up(key: KeyRecord, now: datetime, unusable: Collection[str]) -> bool:
    # Whoever can use it has had the time to let it take over.
    return key.kid in unusable and now >= key.activates_by + SPREAD


def _in_state(key: KeyRecord, state: KeyState, now: datetime) -> KeyRecord:
    if state is KeyState.ACTIVE and now < key.activates_at:
        # Called for before its time, because no other key signs.
        return replace(key, state=state, activates_at=now, activates_by=now)
    if state is not KeyState.RETIRED:
        return replace(key, state=state)
    # It may have signed until this very moment, whatever was planned.
    kept_for = key.removes_at - key.retires_at
    return replace(key, state=state, retires_at=now, removes_at=now + kept_for)
