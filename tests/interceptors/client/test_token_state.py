"""When a token is renewed, given up and asked for again: the schedule alone, on clocks that stand still."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from grpc_identity import SessionEnd, SessionEndedError, TokenRefusedError, TokenUnavailableError
from grpc_identity.circuit_breaker import FAILURES_TO_OPEN, CircuitBreaker
from grpc_identity.token_state import HeldToken, TokenState


@dataclass
class Clocks:
    now: float = 1000.0
    wall_offset: float = 1.7e9

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.wall_offset


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def state(clocks: Clocks) -> TokenState:
    return TokenState(monotonic=clocks.monotonic, wall=clocks.wall, jitter=lambda: 0.0)


def hold(state: TokenState, clocks: Clocks, token: HeldToken) -> None:
    state.obtained(token, monotonic_start=clocks.monotonic(), wall_start=clocks.wall())


AWAY = TokenUnavailableError("away")


@pytest.mark.parametrize(
    ("lifetime", "renew_after", "age"),
    [
        (600, None, 480),  # 80 % come first
        (200, None, 140),  # 60 seconds ahead come first
        (600, 400, 400),  # the service's word comes first
        (600, 590, 480),  # but puts nothing off
        (60, None, 30),  # a short one is not renewed all the time
        (600, -5, 60),  # nor is one whose service is mistaken
    ],
)
def test_a_used_token_is_renewed_at_80_percent_60_seconds_ahead_or_as_told_whichever_is_first(
    state: TokenState, clocks: Clocks, lifetime: float, renew_after: float | None, age: float
) -> None:
    hold(state, clocks, HeldToken("a", lifetime, renew_after))
    state.use()
    assert state.due_in(asked=False) == age
    clocks.now += age
    assert state.due_in(asked=False) == 0
    assert state.usable() == "a"


def test_a_fleet_without_a_word_of_the_service_is_spread(clocks: Clocks) -> None:
    ages = set()
    for jitter in (0.0, 0.5, 1.0):
        ages.add(HeldToken("a", 600).renewed_seconds(jitter))
    assert ages == {480, 456, 432}


def test_an_unused_token_is_not_renewed(state: TokenState, clocks: Clocks) -> None:
    hold(state, clocks, HeldToken("a", 600))
    assert state.due_in(asked=False) is None
    assert state.due_in(asked=True) == 0


def test_a_token_is_not_handed_out_in_its_last_seconds(state: TokenState, clocks: Clocks) -> None:
    hold(state, clocks, HeldToken("a", 600))
    clocks.now += 594
    assert state.usable() == "a"
    clocks.now += 1
    assert state.usable() is None


def test_a_token_that_came_old_ends_in_time(state: TokenState, clocks: Clocks) -> None:
    hold(state, clocks, HeldToken("a", 600, age_seconds=500))
    state.use()
    assert state.due_in(asked=False) == 0
    clocks.now += 96
    assert state.usable() is None


@pytest.mark.parametrize("stands_still", ["monotonic", "wall"])
def test_whichever_clock_says_that_more_time_has_passed_is_believed(
    state: TokenState, clocks: Clocks, stands_still: str
) -> None:
    hold(state, clocks, HeldToken("a", 600))
    if stands_still == "monotonic":
        clocks.wall_offset += 700
    else:
        clocks.now, clocks.wall_offset = clocks.now + 700, clocks.wall_offset - 700
    assert state.usable() is None


def test_the_circuit_opens_after_failures_in_a_row_and_lets_single_probes_through(clocks: Clocks) -> None:
    breaker = CircuitBreaker(monotonic=clocks.monotonic, jitter=lambda: 0.0)
    waits = []
    for _ in range(8):
        breaker.failed()
        waits.append(round(breaker.seconds_until_attempt(), 6))
        clocks.now += waits[-1] + 1e-9
        assert breaker.seconds_until_attempt() == 0
    assert waits == [0.2, 0.4, 1, 2, 4, 8, 15, 15]
    assert breaker.is_open
    breaker.succeeded()
    assert not breaker.is_open
    assert breaker.seconds_until_attempt() == 0


def test_waits_between_attempts_are_jittered(clocks: Clocks) -> None:
    waits = set()
    for jitter in (0.0, 0.5, 1.0):
        breaker = CircuitBreaker(monotonic=clocks.monotonic, jitter=lambda jitter=jitter: jitter)  # type: ignore[misc]
        breaker.failed()
        waits.add(round(breaker.seconds_until_attempt(), 3))
    assert waits == {0.2, 0.15, 0.1}


def test_with_the_circuit_open_callers_are_told_at_once_and_when_to_come_back(
    state: TokenState, clocks: Clocks
) -> None:
    for _ in range(FAILURES_TO_OPEN - 1):
        state.failed(AWAY)
        assert state.why_not() is None
        clocks.now += 1
    state.failed(AWAY)
    why = state.why_not()
    assert isinstance(why, TokenUnavailableError)
    assert why.retry_after_seconds == 1
    clocks.now += 1
    assert state.why_not() is None, "half open: the next caller may try"
    state.failed(AWAY)
    assert state.why_not() is not None
    assert state.due_in(asked=True) == 2
    clocks.now += 2
    hold(state, clocks, HeldToken("a", 600))
    assert state.usable() == "a"
    assert state.why_not() is None


def test_a_refusal_that_no_retry_changes_opens_the_circuit_at_once(state: TokenState, clocks: Clocks) -> None:
    state.failed(TokenRefusedError("GRANT_MISSING", "no"))
    why = state.why_not()
    assert isinstance(why, TokenRefusedError)
    assert why.reason == "GRANT_MISSING"


def test_what_the_service_says_of_waiting_is_kept_to(state: TokenState, clocks: Clocks) -> None:
    state.failed(TokenUnavailableError("slow down", retry_after_seconds=30))
    assert state.due_in(asked=True) == 30


def test_an_answer_that_may_be_lost_is_asked_for_again_unasked_for_as_long_as_it_can_be_repeated(
    state: TokenState, clocks: Clocks
) -> None:
    state.failed(AWAY)
    assert state.due_in(asked=False) is None
    state.failed(AWAY, answer_lost=True)
    attempts = 0
    began = clocks.now
    while (due_in := state.due_in(asked=False)) is not None:
        clocks.now += due_in
        state.failed(AWAY, answer_lost=True)
        attempts += 1
    assert 120 < clocks.now - began < 180
    assert attempts >= 10


def test_a_held_token_serves_while_the_service_is_away(state: TokenState, clocks: Clocks) -> None:
    hold(state, clocks, HeldToken("a", 600))
    state.use()
    clocks.now += 480
    for _ in range(5):
        state.failed(AWAY)
    assert state.usable() == "a"
    assert state.due_in(asked=False) == 4


def test_after_the_end_of_the_session_nothing_is_asked_or_handed_out(
    state: TokenState, clocks: Clocks
) -> None:
    hold(state, clocks, HeldToken("a", 600))
    state.use()
    ended = SessionEndedError(SessionEnd.FAMILY_REVOKED)
    state.failed(ended)
    assert state.usable() is None
    assert state.why_not() is ended
    assert state.due_in(asked=True) is None


def test_a_refused_token_is_given_up_once_and_only_if_it_is_still_the_one(
    state: TokenState, clocks: Clocks
) -> None:
    hold(state, clocks, HeldToken("a", 600))
    assert not state.invalidate("older")
    assert state.usable() == "a"
    assert state.invalidate("a")
    assert not state.invalidate("a")
    assert state.usable() is None


def test_a_service_that_refuses_every_token_does_not_cause_a_storm(state: TokenState, clocks: Clocks) -> None:
    renewals = 0
    began = clocks.now
    hold(state, clocks, HeldToken("0", 600))
    while clocks.now < began + 60:
        if state.invalidate(str(renewals)):
            renewals += 1
            hold(state, clocks, HeldToken(str(renewals), 600))
        clocks.now += 0.5
    assert 4 <= renewals <= 5


def test_a_token_that_was_perhaps_refused_is_handed_out_until_another_is_there(
    state: TokenState, clocks: Clocks
) -> None:
    hold(state, clocks, HeldToken("a", 600))
    assert state.invalidate("a", certain=False)
    assert state.usable() == "a"
    assert state.due_in(asked=False) == 0
