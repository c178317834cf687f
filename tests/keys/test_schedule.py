"""The life of keys, over a simulated year."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from identity.keys.keyring import EMPTY, KeyRecord, Keyring, KeyState
from identity.keys.schedule import MAX_JWKS_AGE, Schedule, advanced, max_age, new_key_due

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SCHEDULE = Schedule()


def stepped(keyring: Keyring, now: datetime, schedule: Schedule = SCHEDULE) -> Keyring:
    """What a service does at a tick, with keys that have no substance."""
    keyring = advanced(keyring, now)
    times = new_key_due(keyring, now, schedule)
    if times is None:
        return keyring
    kid = f"key-{len(keyring.keys)}"
    key = KeyRecord(
        kid,
        "ES256",
        times.state,
        now,
        times.activates_at,
        times.retires_at,
        times.removes_at,
        {"kid": kid},
        b"",
    )
    return keyring.next(keys=(*keyring.keys, key))


def test_over_a_year_no_token_is_ever_signed_by_a_key_that_somebody_may_not_know() -> None:
    keyring, now = EMPTY, START
    published_since: dict[str, datetime] = {}
    signing_since: dict[str, datetime] = {}
    last_signed: dict[str, datetime] = {}
    longest = SCHEDULE.max_token_ttl + SCHEDULE.skew
    while now < START + timedelta(days=365):
        keyring = stepped(keyring, now)
        published = {key.kid for key in keyring.published}
        for kid in published:
            published_since.setdefault(kid, now)
        active = [key for key in keyring.keys if key.state is KeyState.ACTIVE]
        assert len(active) == 1
        kid = active[0].kid
        signing_since.setdefault(kid, now)
        last_signed[kid] = now
        if kid != "key-0":
            # Whoever fetched a set up to an hour before holds the key already.
            assert published_since[kid] <= now - timedelta(hours=24)
        assert now - signing_since[kid] <= timedelta(days=90) + HOUR
        for other, moment in last_signed.items():
            assert other in published or now - moment > longest + MAX_JWKS_AGE
        assert timedelta(0) < max_age(keyring, now) <= MAX_JWKS_AGE
        now += HOUR
    assert len(last_signed) == 5
    assert len(keyring.published) < 5


def test_nothing_due_changes_nothing() -> None:
    keyring = stepped(EMPTY, START)
    assert stepped(keyring, START + timedelta(days=30)) is keyring


def test_a_service_that_slept_through_the_change_publishes_ahead_all_the_same() -> None:
    late = START + timedelta(days=120)
    keyring = stepped(stepped(EMPTY, START), late)
    old, new = keyring.keys
    assert (old.state, new.state) == (KeyState.ACTIVE, KeyState.PENDING)
    assert new.activates_at == late + SCHEDULE.publish_ahead
    keyring = stepped(keyring, new.activates_at)
    assert [key.state for key in keyring.keys] == [KeyState.RETIRED, KeyState.ACTIVE]
    # It signed until now, so it stays published from now on for as long as planned.
    assert keyring.keys[0].removes_at == new.activates_at + SCHEDULE.keep_after_retirement


@pytest.mark.parametrize(
    "times",
    [
        {"publish_ahead": timedelta(minutes=90)},
        {"sign_for": timedelta(hours=24)},
        {"publish_ahead": timedelta(days=90)},
    ],
)
def test_a_schedule_that_could_cause_a_false_rejection_is_refused(times: dict[str, timedelta]) -> None:
    with pytest.raises(ValueError, match=r"keys\."):
        Schedule(**times)
