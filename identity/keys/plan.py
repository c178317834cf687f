"""What the schedule has in store, as an operator wants to see it. Pure: the moment is an argument."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from identity.keys.keyring import KeyRecord, Keyring, KeyState
from identity.keys.schedule import UPTAKE, Schedule, made_at, takes_over_at


@dataclass(frozen=True, slots=True)
class KeyStep:
    """A key enters a state, between ``at`` and ``at_latest``. ``kid`` is empty for a key that is yet to be made."""

    at: datetime
    at_latest: datetime | None
    kid: str
    state: KeyState


def steps_to_come(keyring: Keyring, now: datetime, schedule: Schedule) -> Sequence[KeyStep]:
    """The steps up to the next but one change of the key that signs, in the order of time."""
    return sorted(_steps(keyring, now, schedule), key=lambda step: step.at)


def needed_until(key: KeyRecord, schedule: Schedule) -> datetime | None:
    """Until when a token signed by this key may be shown and has to be accepted; ``None`` where there is none."""
    has_signed = key.state is not KeyState.PENDING and key.activates_at < key.retires_at
    if key.state is KeyState.REVOKED or not has_signed:
        return None
    return key.retires_at + schedule.max_token_ttl + schedule.skew


def _steps(keyring: Keyring, now: datetime, schedule: Schedule) -> Iterator[KeyStep]:
    pending = [key for key in keyring.keys if key.state is KeyState.PENDING]
    keep = schedule.keep_after_retirement
    for key in keyring.keys:
        if key.state is KeyState.RETIRED:
            yield KeyStep(key.removes_at, None, key.kid, KeyState.REMOVED)
    for key in pending:
        yield KeyStep(max(key.activates_at, now), max(key.activates_by, now), key.kid, KeyState.ACTIVE)
    active = keyring.active
    if active is None:
        return
    if pending:
        takes_over, latest = pending[-1].activates_at, pending[-1].activates_by
    else:
        made = max(made_at(active, schedule), now)
        takes_over = takes_over_at(active, made, schedule)
        latest = takes_over + UPTAKE
        yield KeyStep(made, None, "", KeyState.PENDING)
        yield KeyStep(takes_over, latest, "", KeyState.ACTIVE)
    takes_over, latest = max(takes_over, now), max(latest, now)
    yield KeyStep(takes_over, _later(latest, takes_over), active.kid, KeyState.RETIRED)
    yield KeyStep(takes_over + keep, _later(latest + keep, takes_over + keep), active.kid, KeyState.REMOVED)


def _later(latest: datetime, earliest: datetime) -> datetime | None:
    return latest if latest - earliest > timedelta(0) else None
