"""The life of keys, over a simulated year."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from identity.keys.keyring import EMPTY, KeyRecord, Keyring, KeyState
from identity.keys.schedule import MAX_JWKS_AGE, MAX_REMOVED, SPREAD, Schedule, advanced, max_age, new_key_due

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
SCHEDULE = Schedule()


def stepped(keyring: Keyring, now: datetime, schedule: Schedule = SCHEDULE) -> Keyring:
    """What a service does at a tick, with keys that have no substance."""
    keyring = advanced(keyring, now)
    times = new_key_due(keyring, now, schedule)
    if times is None:
        return keyring
    kid = f"key-{int(keyring.keys[-1].kid.removeprefix('key-')) + 1 if keyring.keys else 0}"
    key = KeyRecord(
        kid,
        "ES256",
        times.state,
        now,
        times.activates_at,
        times.activates_by,
        times.retires_at,
        times.removes_at,
        {"kid": kid},
        b"sealed",
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
        assert now - signing_since[kid] <= timedelta(days=90)
        for other, moment in last_signed.items():
            assert other in published or now - moment > longest + MAX_JWKS_AGE
        assert timedelta(0) < max_age(keyring, now) <= MAX_JWKS_AGE
        now += HOUR
    assert len(last_signed) == 5
    assert len(keyring.published) < 5


def test_processes_that_look_late_and_whose_clocks_differ_never_cause_a_false_rejection() -> None:
    schedule = Schedule(sign_for=timedelta(days=2))
    step = timedelta(seconds=15)
    clock_errors = [timedelta(seconds=-20), timedelta(0), timedelta(seconds=20)]
    stored = EMPTY
    views = [EMPTY, EMPTY, EMPTY]
    published_since: dict[str, list[datetime | None]] = {}
    first_signed: dict[str, datetime] = {}
    last_signed: dict[str, datetime] = {}
    now, turn = START, 0
    while now < START + timedelta(days=9):
        # Each looks at a turn of its own, once a minute: later than they do in truth.
        process = turn % 4
        if process < 3:
            stored = views[process] = stepped(stored, now + clock_errors[process], schedule)
        for number, view in enumerate(views):
            for key in view.published:
                since = published_since.setdefault(key.kid, [None, None, None])
                since[number] = since[number] or now
            if view.active is not None:
                first_signed.setdefault(view.active.kid, now)
                last_signed[view.active.kid] = now
        for kid, moment in last_signed.items():
            # Every process publishes it as long as a token it signed may be shown to somebody.
            if now - moment <= schedule.max_token_ttl + schedule.skew and now - START > SPREAD:
                assert all(kid in {key.kid for key in view.published} for view in views)
        now, turn = now + step, turn + 1
    assert len(first_signed) >= 4
    for kid, first in first_signed.items():
        assert last_signed[kid] - first <= schedule.sign_for
        for since in published_since[kid]:
            assert since is not None
            assert kid == "key-0" or first - since >= schedule.publish_ahead


def test_of_removed_keys_the_last_are_remembered() -> None:
    schedule = Schedule(sign_for=timedelta(days=2))
    keyring = EMPTY
    for hours in range(24 * 60):
        keyring = stepped(keyring, START + timedelta(hours=hours), schedule)
    removed = [key for key in keyring.keys if key.state is KeyState.REMOVED]
    assert len(removed) == MAX_REMOVED
    # The newest of them, and all that are still needed.
    assert [int(key.kid.removeprefix("key-")) for key in keyring.keys] == sorted(
        int(key.kid.removeprefix("key-")) for key in keyring.keys
    )
    assert keyring.active is not None


def test_the_published_set_is_fetched_again_when_a_key_begins_to_sign() -> None:
    keyring = stepped(EMPTY, START)
    assert max_age(keyring, START) == MAX_JWKS_AGE
    keyring = stepped(keyring, START + timedelta(days=89))
    begins = keyring.keys[-1].activates_at
    assert max_age(keyring, begins - 2 * HOUR) == MAX_JWKS_AGE
    assert max_age(keyring, begins - timedelta(minutes=10)) == timedelta(minutes=10)
    assert max_age(keyring, begins + HOUR) == timedelta(minutes=1)


def test_nothing_due_changes_nothing() -> None:
    keyring = stepped(EMPTY, START)
    assert stepped(keyring, START + timedelta(days=30)) is keyring


def test_a_service_that_slept_through_the_change_publishes_ahead_all_the_same() -> None:
    late = START + timedelta(days=120)
    keyring = stepped(stepped(EMPTY, START), late)
    old, new = keyring.keys
    assert (old.state, new.state) == (KeyState.ACTIVE, KeyState.PENDING)
    assert new.activates_at == late + SCHEDULE.publish_ahead + SPREAD
    keyring = stepped(keyring, new.activates_by)
    assert [key.state for key in keyring.keys] == [KeyState.RETIRED, KeyState.ACTIVE]
    # It signed until now, so it stays published from now on for as long as planned.
    assert keyring.keys[0].removes_at == new.activates_by + SCHEDULE.keep_after_retirement


@pytest.mark.parametrize(
    ("times", "named"),
    [
        ({"publish_ahead": timedelta(minutes=90)}, "publish_ahead_hours"),
        ({"sign_for": timedelta(hours=24)}, "sign_days"),
        ({"publish_ahead": timedelta(days=90)}, "sign_days"),
        ({"max_token_ttl": timedelta(0)}, "max_token_ttl"),
        ({"skew": timedelta(seconds=-1)}, "skew"),
        ({"secret_for": timedelta(days=30)}, "secret_days"),
    ],
)
def test_a_schedule_that_could_cause_a_false_rejection_is_refused_by_name(
    times: dict[str, timedelta], named: str
) -> None:
    with pytest.raises(ValueError, match=rf"^{named}"):
        Schedule(**times)
