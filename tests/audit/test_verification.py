"""Whatever is done to a good range of exported events, the report names that, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import exported_ranges as made
from hypothesis import given, settings
from hypothesis import strategies as st

from identity.audit.chain import digest_of
from identity.audit.findings import Fault, Span
from identity.audit.report import Verdict

GOOD = made.checked_range()
BUCKETS, EVENTS, AFTER = 3, 8, 2
PLACES = [made.place_of(line) for line in GOOD]

few = settings(max_examples=60, deadline=None)


def test_a_good_range_is_good() -> None:
    report = made.verified(GOOD)
    assert made.told(report) == []
    assert report.verdict is Verdict.GOOD
    assert report.checkpoints == 1
    assert [str(chain.numbers) for chain in report.chains] == ["1-11", "1-10", "1-10"]
    assert [str(chain.proved.numbers) for chain in report.chains if chain.proved] == ["1-8", "1-8", "1-8"]
    assert any("cannot be seen" in remark for remark in report.remarks)


@few
@given(order=st.permutations(range(len(GOOD))), again=st.lists(st.integers(0, len(GOOD) - 1), max_size=9))
def test_the_order_and_the_times_of_a_backend_do_not_matter(order: list[int], again: list[int]) -> None:
    report = made.verified([GOOD[at] for at in [*order, *again]], is_ordered=False)
    assert made.told(report) == []
    assert sum(chain.duplicates for chain in report.chains) == len(again)
    assert report.verdict is Verdict.GOOD


@few
@given(at=st.integers(0, len(GOOD) - 1))
def test_an_event_that_is_gone_is_named(at: int) -> None:
    bucket, sequence = PLACES[at]
    report = made.verified(GOOD[:at] + GOOD[at + 1 :])
    if json.loads(GOOD[at])["type"] == "audit.checkpoint":
        assert made.told(report) == [("missing", bucket, sequence)]
    elif int(sequence) == (11 if bucket == 0 else 10):
        # The very last is behind the last checkpoint: that it is gone cannot be seen, and the report says so.
        assert made.told(report) == []
        assert any("cut off" in remark for remark in report.remarks)
    else:
        assert made.told(report) == [("missing", bucket, sequence)]
        assert report.verdict is Verdict.FAULTS


@few
@given(data=st.data())
def test_an_event_that_was_moved_is_named(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    to = data.draw(st.integers(0, len(GOOD) - 1))
    lines = GOOD[:at] + GOOD[at + 1 :]
    lines.insert(to, GOOD[at])
    found = made.told(made.verified(lines))
    same_bucket = [place for place in map(made.place_of, lines) if place[0] == PLACES[at][0]]
    if same_bucket == sorted(same_bucket, key=lambda place: int(place[1])):
        assert found == []
    else:
        # Of two neighbours that have changed places either may be the one that was moved.
        neighbours = {str(int(PLACES[at][1]) + step) for step in (-1, 0, 1)}
        assert len(found) == 1
        assert found[0][:2] == ("reordered", PLACES[at][0])
        assert found[0][2] in neighbours


CHANGES: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "another subject": lambda event, _: event.update(subject="mallory"),
    "no subject": lambda event, _: event.pop("subject", None) or event.update(subject="mallory"),
    "another time": lambda event, _: event.update(time="2026-01-01T00:00:00Z"),
    "a member more": lambda event, _: event.update(later_field="x"),
    "another id": lambda event, _: event.update(event_id="00"),
    "another number": lambda event, _: event.update(sequence="9"),
    "a number never given": lambda event, _: event.update(sequence="999"),
    "another bucket": lambda event, _: event.update(bucket=2 if event.get("bucket") != 2 else 1),
    "a bucket never seen": lambda event, _: event.update(bucket=999),
    "another link": lambda _, chain: chain.update(link="ab" * 32),
    "another previous": lambda _, chain: chain.update(previous="ab" * 32),
}


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, len(GOOD) - 1), change=st.sampled_from(sorted(CHANGES)))
def test_an_event_that_was_altered_is_named_and_nothing_else(at: int, change: str) -> None:
    members = json.loads(GOOD[at])
    before = json.dumps(members)
    CHANGES[change](members, members["chain"])
    if json.dumps(members) == before:
        return
    report = made.verified([*GOOD[:at], json.dumps(members).encode(), *GOOD[at + 1 :]])
    bucket, sequence = PLACES[at]
    found = [item for item in made.told(report) if item[0] != "reordered"]
    assert found == [("altered", bucket, sequence)]
    assert report.verdict is Verdict.FAULTS


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_byte_can_be_altered_unseen(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    line = GOOD[at]
    place = data.draw(st.integers(0, len(line) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != line[place]))
    altered = line[:place] + bytes([byte]) + line[place + 1 :]
    report = made.verified([*GOOD[:at], altered, *GOOD[at + 1 :]])
    found = made.told(report)
    bucket, sequence = PLACES[at]
    assert report.verdict is Verdict.FAULTS
    is_last = int(sequence) == (11 if bucket == 0 else 10)
    if ("unreadable", None, "") in found:
        assert found == [("unreadable", None, "")] + ([] if is_last else [("missing", bucket, sequence)])
    elif ("altered", bucket, sequence) in found:
        assert found == [("altered", bucket, sequence)]
    else:
        # The name of the sink is in no digest: the event is then one of a chain that nobody has heard of.
        assert json.loads(altered)["sink"] != "file"
        assert report.findings


def test_a_line_that_says_the_same_otherwise_is_not_altered() -> None:
    lines = [json.dumps(json.loads(line), indent=1).encode() for line in GOOD]
    assert made.verified(lines).verdict is Verdict.GOOD


@few
@given(bucket=st.integers(0, BUCKETS - 1), kept=st.integers(0, EVENTS - 1))
def test_a_tail_that_was_cut_off_before_the_last_checkpoint_is_named(bucket: int, kept: int) -> None:
    lines = [
        line
        for line in GOOD
        if made.place_of(line)[0] != bucket
        or int(made.place_of(line)[1]) <= kept
        or b"audit.checkpoint" in line
    ]
    found = made.told(made.verified(lines))
    if bucket == 0:
        assert found == [("missing", 0, f"{kept + 1}-8" if kept < EVENTS - 1 else "8")]
    else:
        assert found == [("missing", bucket, f"{kept + 1}-8" if kept < EVENTS - 1 else "8")]


def test_a_chain_that_was_written_anew_differs_from_the_checkpoint() -> None:
    events = [made.event(1, number + 1) for number in range(EVENTS)]
    events[3] = made.event(1, 4, subject="mallory")
    anew = [made.line_of(each) for each in made.chain_of(events)]
    lines = [line for line in GOOD if made.place_of(line)[0] != 1] + anew
    report = made.verified(lines)
    assert made.told(report) == [("checkpoint_differs", 1, "8")]
    assert next(chain for chain in report.chains if chain.bucket == 1).proved is None


def test_an_event_that_was_exchanged_with_a_sound_link_does_not_follow() -> None:
    at = PLACES.index((1, "4"))
    other = made.chain_of([made.event(1, 4, subject="mallory")], head=made.chain_of([made.event(1, 1)])[0])[0]
    report = made.verified([*GOOD[:at], made.line_of(other), *GOOD[at + 1 :]])
    assert ("does_not_follow", 1, "4") in made.told(report)
    assert report.verdict is Verdict.FAULTS


def test_two_events_of_one_number_are_named_as_a_store_that_lost_writes() -> None:
    first = made.chain_of([made.event(1, number + 1) for number in range(6)])
    other = made.chain_of(
        [made.event(1, number, event_id=f"later{number}") for number in (4, 5)], head=made.head_of(first[:3])
    )
    report = made.verified([made.line_of(each) for each in [*first, *other]], is_ordered=False)
    assert made.told(report) == [("sequence_twice", 1, "4"), ("sequence_twice", 1, "5")]
    assert set(report.findings[0].event_ids) == {first[3].event.event_id, "later4"}


def test_an_event_that_the_sink_refused_stays_a_link_and_may_come_later() -> None:
    events = [made.event(1, number + 1) for number in range(6)]
    letter = next(each for each in made.chain_of(events) if each.event.sequence == 3)
    detail = f"sink file, bucket 1, sequence 3, digest {digest_of(letter.event).hex()}"
    events.append(made.event(1, 7, type="audit.dead_lettered", outcome="refused", detail=detail))
    report = made.verified(made.lines_of(made.checked_chain(events, unsent={3})))
    assert made.told(report) == []
    assert report.chains[0].refused == 1
    assert report.verdict is Verdict.GOOD
    later = [*made.checked_chain(events, unsent={3}), letter]
    offered_again = made.verified(made.lines_of(later))
    assert made.told(offered_again) == []
    assert offered_again.verdict is Verdict.GOOD
    without_reason = made.verified(made.lines_of(made.checked_chain(events[:6], unsent={3})))
    assert made.told(without_reason) == [("missing", 1, "3")]


def test_dropped_refusals_are_explained_where_they_are_told_of() -> None:
    events = [made.event(1, number) for number in (1, 2, 5, 6, 8)]
    report = made.verified(made.lines_of(made.checked_chain(events)))
    assert made.told(report) == [("never_exported", 1, "3-4"), ("never_exported", 1, "7")]
    events.append(made.event(1, 9, type="audit.refusals_dropped", detail="bucket 1: 3-4, 7"))
    report = made.verified(made.lines_of(made.checked_chain(events)))
    assert made.told(report) == []
    assert report.chains[0].dropped == 3
    assert report.verdict is Verdict.GOOD


def test_what_a_sink_missed_while_it_was_not_named_is_explained_for_that_sink_where_it_is_proved() -> None:
    events = [made.event(1, number) for number in (1, 2, 6, 7)]
    resumed = made.event(1, 8, type="audit.sink_resumed", detail="sink file, bucket 1: 3-5")
    report = made.verified(made.lines_of(made.checked_chain([*events, resumed])))
    assert made.told(report) == []
    assert report.chains[0].dropped == 3
    assert report.verdict is Verdict.GOOD
    # Anybody who takes events out of a file can write that line below the last checkpoint.
    proved = made.checked_chain(events)
    forged = made.chain_of(
        [replace(resumed, sequence=proved[-1].event.sequence + 1)], head=made.head_of(proved)
    )
    assert made.verified(made.lines_of([*proved, *forged])).verdict is Verdict.CANNOT_TELL
    for detail in ("sink otlp, bucket 1: 3-5", "sink file, bucket 1: 3-8", "sink file, bucket 2: 3-5"):
        other = made.checked_chain([*events, replace(resumed, detail=detail)])
        assert made.told(made.verified(made.lines_of(other))) == [("never_exported", 1, "3-5")]


def test_a_sink_that_came_later_begins_where_it_came() -> None:
    report = made.verified(
        [made.line_of(each) for each in made.chain_of([made.event(1, 40), made.event(1, 41)])]
    )
    assert made.told(report) == []
    assert any("begins with 40" in remark for remark in report.remarks)


def test_only_what_touches_the_time_asked_for_is_reported() -> None:
    lines = made.twice_checked_lines(without={2, 7})
    at = made.START_MS + 4 * made.SECOND_MS
    assert made.told(made.verified(lines, span=Span(until_ms=at))) == [("missing", 1, "2")]
    assert made.told(made.verified(lines, span=Span(since_ms=at))) == [("missing", 1, "7")]


def test_a_fault_of_which_nothing_proves_when_it_was_is_reported_whatever_the_time() -> None:
    lines = [line for line in GOOD if made.place_of(line) != (2, "7")]
    early = Span(until_ms=made.START_MS + 5 * made.SECOND_MS)
    assert made.told(made.verified(lines, span=early)) == [("missing", 2, "7")]


def test_a_time_after_the_last_checkpoint_cannot_be_told_about() -> None:
    after = made.START_MS + 100 * made.SECOND_MS
    assert made.verified(GOOD, span=Span(until_ms=after)).verdict is Verdict.CANNOT_TELL


def test_the_documents_say_what_every_fault_may_come_from() -> None:
    text = (Path(__file__).parents[2] / "docs/audit.md").read_text().split("\n## Verifying")[1]
    listed = re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)
    assert listed == [fault.value for fault in Fault]


def test_nothing_is_told_of_nothing() -> None:
    assert made.verified([]).verdict is Verdict.CANNOT_TELL
