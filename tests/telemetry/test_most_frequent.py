"""The most frequent is found among many, in bounded memory."""

from __future__ import annotations

from identity.telemetry.most_frequent import MAX_COUNTED, WINDOW_SECONDS, MostFrequent


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_last_whole_window_and_the_present_one_count() -> None:
    time = Time()
    seen = MostFrequent(time)
    assert seen.highest() == 0
    for name in ("a", "a", "a", "b"):
        seen.add(name)
    assert seen.highest() == 3
    time.now += WINDOW_SECONDS
    seen.add("b")
    assert seen.highest() == 3
    time.now += WINDOW_SECONDS
    assert seen.highest() == 1
    time.now += 2 * WINDOW_SECONDS
    assert seen.highest() == 0


def test_one_that_is_often_is_not_lost_among_very_many() -> None:
    seen = MostFrequent(Time())
    others = 10 * MAX_COUNTED
    for number in range(others):
        seen.add(f"other-{number}")
        if number % 10 == 0:
            seen.add("often")
    share_lost = (others + others // 10) / MAX_COUNTED
    assert others / 10 - share_lost <= seen.highest() <= others / 10
    assert len(seen._counts) <= MAX_COUNTED
