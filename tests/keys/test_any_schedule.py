"""Any schedule that is accepted refuses no good token, whoever is late and whosever clock is wrong; one that is refused says
by which rule.

Three processes look at the keyring up to two minutes late, with clocks wrong by up to half a minute. Six verifiers use
what they have fetched for as long as they were told, ask for nothing that they do not know, and their clocks are wrong as
well. The time goes in small steps where something happens, and in large ones where nothing does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from identity.keys import schedule as rules
from identity.keys import secrets as secret_rules
from identity.keys.keyring import EMPTY, KeyRecord, Keyring, KeyState, SealedSecret, SecretPurpose
from identity.keys.schedule import Schedule
from identity.keys.secrets import LONGEST_SESSION, SECRET_SPREAD

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
CLOCK_ERROR = 30 * SECOND
LEEWAY = 30 * SECOND
MAX_LATE = 2 * MINUTE
ROTATIONS = 3
NAMES = ("publish_ahead_hours must", "sign_days must", "max_token_ttl must", "skew must")


@dataclass
class Process:
    error: timedelta
    looks_at: datetime = START
    view: Keyring = EMPTY


@dataclass
class Verifier:
    error: timedelta
    asks: Process
    kids: frozenset[str] = frozenset()
    stale_at: datetime = START


@dataclass
class World:
    schedule: Schedule
    rng: random.Random
    all_hold: bool
    now: datetime = START
    stored: Keyring = EMPTY
    made: int = 0
    first_signed: dict[str, datetime] = field(default_factory=dict)
    last_signed: dict[str, datetime] = field(default_factory=dict)
    most_published: int = 0

    def __post_init__(self) -> None:
        errors = [-CLOCK_ERROR, CLOCK_ERROR, self.rng.uniform(-1, 1) * CLOCK_ERROR]
        self.processes = [Process(error) for error in errors]
        self.verifiers = [
            Verifier(self.rng.choice((-1, 1)) * CLOCK_ERROR, self.processes[n % 3]) for n in range(6)
        ]

    def run(self) -> None:
        for process in self.processes:
            self.look(process)
        while self.made < ROTATIONS + 2:
            for process in self.processes:
                if self.now >= process.looks_at:
                    self.look(process)
            for process in self.processes:
                self.sign(process)
            for verifier in self.verifiers:
                self.verify(verifier)
            self.now = self.next_moment()

    def look(self, process: Process) -> None:
        """What a service does at a tick, with keys that have no substance."""
        now = self.now + process.error
        pending = {key.kid for key in self.stored.keys if key.state is KeyState.PENDING}
        keyring = rules.advanced(self.stored, now, pending if self.all_hold else ())
        times = rules.new_key_due(keyring, now, self.schedule)
        if times is not None:
            kid = f"key-{self.made}"
            self.made += 1
            key = KeyRecord(
                kid, "ES256", times.state, now, times.activates_at, times.activates_by, times.retires_at,
                times.removes_at, {"kid": kid}, b"sealed",
            )  # fmt: skip
            keyring = keyring.next(keys=(*keyring.keys, key))
        self.stored = process.view = keyring
        process.looks_at = self.now + self.rng.uniform(0, 1) * MAX_LATE
        self.most_published = max(self.most_published, len(keyring.published))

    def sign(self, process: Process) -> None:
        assert process.view.active is not None
        kid = process.view.active.kid
        self.first_signed.setdefault(kid, self.now)
        self.last_signed[kid] = self.now
        assert self.now - self.first_signed[kid] <= self.schedule.sign_for

    def verify(self, verifier: Verifier) -> None:
        if self.now >= verifier.stale_at:
            view = verifier.asks.view
            verifier.kids = frozenset(key.kid for key in view.published)
            age = rules.max_age(view, self.now + verifier.asks.error)
            assert timedelta(0) < age <= HOUR
            verifier.stale_at = self.now + age
        for kid, moment in self.last_signed.items():
            if self.now + verifier.error <= moment + self.schedule.max_token_ttl + LEEWAY:
                assert kid in verifier.kids, f"{kid}, last used at {moment}, is refused at {self.now}"

    def next_moment(self) -> datetime:
        busy = 2 * MAX_LATE
        moments = list(self.moments())
        if any(-busy <= moment - self.now <= MINUTE for moment in moments):
            return self.now + self.rng.uniform(10, 60) * SECOND
        expiries = [verifier.stale_at for verifier in self.verifiers]
        later = [moment - MINUTE for moment in moments if moment - MINUTE > self.now]
        return min([moment for moment in (*expiries, *later) if moment > self.now], default=self.now + HOUR)

    def moments(self) -> Iterator[datetime]:
        """When something happens by the schedule."""
        for key in self.stored.keys:
            if key.state is KeyState.PENDING:
                yield from (key.created_at, key.activates_at, key.activates_by)
            elif key.state is KeyState.RETIRED:
                yield from (key.retires_at, key.retires_at + self.schedule.max_token_ttl, key.removes_at)
            elif key.state is KeyState.ACTIVE:
                yield from (key.activates_at, rules.made_at(key, self.schedule), key.retires_at)


@st.composite
def times(draw: st.DrawFn) -> dict[str, timedelta]:
    """Of a schedule, good or bad: often near what the rules say, seldom so bad that only the bounds of one value count."""
    publish_ahead = MINUTE * draw(st.integers(100, 140) | st.integers(120, 2 * 24 * 60))
    max_token_ttl = SECOND * draw(st.integers(0, 900))
    skew = SECOND * draw(st.integers(-1, 120))
    least = publish_ahead + max_token_ttl + skew + 2 * HOUR + 15 * MINUTE
    excess = MINUTE * draw(st.integers(-30, 90) | st.integers(1, 3 * 24 * 60))
    return {
        "publish_ahead": publish_ahead,
        "sign_for": least + excess,
        "max_token_ttl": max_token_ttl,
        "skew": skew,
    }


@pytest.mark.timeout(300)
@given(times=times(), seed=st.integers(0, 2**32), all_hold=st.booleans())
@settings(max_examples=400, deadline=None)
def test_a_schedule_refuses_no_good_token_or_is_refused_by_a_rule_with_a_name(
    times: dict[str, timedelta], seed: int, all_hold: bool
) -> None:
    try:
        schedule = Schedule(**times)
    except ValueError as refusal:
        said = str(refusal)
    else:
        said = ""
    if said:
        event("refused")
        assert said.startswith(NAMES), said
        return
    event("accepted")
    world = World(schedule, random.Random(seed), all_hold)
    world.run()
    assert len(world.first_signed) > ROTATIONS
    assert world.most_published <= 4


@given(
    secret_for=st.floats(31, 400).map(lambda days: days * DAY),
    late=st.floats(0, 40).map(lambda days: days * DAY),
    errors=st.lists(st.integers(-30, 30), min_size=2, max_size=2),
)
@settings(max_examples=400, deadline=None)
def test_a_refresh_token_is_accepted_for_as_long_as_a_session_may_live_whenever_its_secret_is_replaced(
    secret_for: timedelta, late: timedelta, errors: list[int]
) -> None:
    schedule, purpose = Schedule(secret_for=secret_for), SecretPurpose.REFRESH_TOKEN
    ring, now = Keyring(1, (), (SealedSecret(purpose, 1, START, b""),)), START
    good_until = {1: START}
    for _ in range(8):
        for error in (0, *errors):
            made_with = secret_rules.in_use(secret_rules.accepted(ring, purpose), now + error * SECOND)
            good_until[made_with.number] = now + LONGEST_SESSION
        if secret_rules.rotation_due(ring, now, schedule.secret_for):
            number = secret_rules.next_number(secret_rules.accepted(ring, purpose))
            ring = secret_rules.rotated(ring, SealedSecret(purpose, number, now, b""))
        accepted = {secret.number for secret in secret_rules.accepted(ring, purpose)}
        assert {number for number, until in good_until.items() if now < until} <= accepted
        newest = ring.secrets[-1].created_at
        steps = (newest + LONGEST_SESSION, newest + SECRET_SPREAD, newest + secret_for + late)
        now = min(moment for moment in steps if moment > now)
