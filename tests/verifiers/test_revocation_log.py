"""The server's log of revocations, and the positions in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from identity.verifiers.position import Position
from identity.verifiers.revocations import FeedPlace, Revocation, RevocationLog, RevokedThing

PLACES = st.dictionaries(
    st.integers(0, 4095), st.builds(FeedPlace, st.integers(0, 2**48 - 1), st.integers(-1, 10**6)), max_size=64
)


def entry(name: str, *, bucket: int = 0, sequence: int = 1, forget_at_ms: int = 1000) -> Revocation:
    return Revocation(RevokedThing.SESSION, name, bucket, FeedPlace(sequence, 0), forget_at_ms)


@given(PLACES, st.integers(0, 10**15))
def test_a_position_survives_being_written_and_read(places: dict[int, FeedPlace], number: int) -> None:
    position = Position("a1b2c3d4", number, "deadbeef", places)
    assert Position.parse(str(position)) == position


@given(st.text(max_size=80))
def test_no_text_makes_reading_a_position_fail(text: str) -> None:
    assert Position.parse(text) is None or Position.parse(text) == Position.parse(text)


def test_a_position_of_all_buckets_stays_small() -> None:
    places = {bucket: FeedPlace(2**32, 0) for bucket in range(64)}
    assert len(str(Position("a1b2c3d4", 10**6, "deadbeef", places))) < 700


def test_what_came_after_a_number_is_told_and_what_expired_is_forgotten() -> None:
    log = RevocationLog()
    for number in range(1, 6):
        log.add(entry(f"s{number}", sequence=number, forget_at_ms=number * 1000))
    assert [found.name for found in log.after(3)] == ["s4", "s5"]
    log.forget(2500)
    assert (len(log), log.last_number) == (3, 5)
    assert [found.name for found in log.after(0)] == ["s3", "s4", "s5"]
    assert [found.name for found in log.after(5)] == []
    log.forget(10_000)
    assert (len(log), log.last_number) == (0, 5)


def test_places_of_another_server_tell_what_is_new_bucket_by_bucket() -> None:
    log = RevocationLog()
    for bucket, sequence in ((1, 5), (2, 7), (1, 6), (3, 1)):
        log.add(entry(f"{bucket}-{sequence}", bucket=bucket, sequence=sequence))
    known = {1: FeedPlace(5, 0), 2: FeedPlace(9, 0)}
    assert [found.name for found in log.beyond(known)] == ["1-6", "3-1"]
