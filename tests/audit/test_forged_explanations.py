"""Whoever can write to a backend can write there what explains that an event is gone. That is believed nowhere it is not proved."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import exported_ranges as made
import pytest

from identity.audit.chain import ChainedEvent, ChainHead, digest_of
from identity.audit.findings import Span
from identity.audit.recorded_event import RecordedEvent
from identity.audit.report import Verdict

THEFT = 4
EVENTS = [made.event(1, number + 1) for number in range(8)]
CHECKED = made.checked_chain(EVENTS)
LEFT = [each for each in CHECKED if each.event.sequence != THEFT]
AFTER = 10


def dead_letter(sequence: int, *of: RecordedEvent, sink: str = "file", bucket: int = 1) -> RecordedEvent:
    detail = "; ".join(
        f"sink {sink}, bucket {each.bucket}, sequence {each.sequence}, digest {digest_of(each).hex()}"
        for each in of
    )
    return made.event(
        bucket, sequence, type="audit.dead_lettered", outcome="refused", event_id="ab" * 10, detail=detail
    )


def after(chain: Sequence[ChainedEvent], *events: RecordedEvent) -> list[ChainedEvent]:
    """Sound events at the end of a chain, as anybody can write them."""
    return [*chain, *made.chain_of(events, head=made.head_of(chain))]


FORGERIES: dict[str, Callable[[], list[bytes]]] = {
    "behind the last checkpoint": lambda: made.lines_of(after(LEFT, dead_letter(AFTER, EVENTS[THEFT - 1]))),
    "in a chain that there was none of": lambda: (
        made.lines_of(LEFT) + made.lines_of(made.chain_of([dead_letter(1, EVENTS[THEFT - 1], bucket=40)]))
    ),
    "in the same bucket of another sink": lambda: (
        made.lines_of(LEFT) + made.lines_of(made.chain_of([dead_letter(9, EVENTS[THEFT - 1])]), "zzz")
    ),
    "under a number that there is": lambda: made.lines_of(
        [*LEFT, *made.chain_of([dead_letter(6, EVENTS[THEFT - 1])], head=made.head_of(CHECKED[:5]))]
    ),
    "under a number that there is, and before what it is put beside": lambda: made.lines_of(
        [*made.chain_of([dead_letter(6, EVENTS[THEFT - 1])], head=made.head_of(CHECKED[:5])), *LEFT]
    ),
    "of numbers that were dropped": lambda: made.lines_of(
        after(LEFT, made.event(1, AFTER, type="audit.refusals_dropped", detail=f"bucket 1: {THEFT}"))
    ),
    "with a checkpoint of a key that nobody trusts": lambda: made.lines_of(
        after(
            (forged := after(LEFT, dead_letter(AFTER, EVENTS[THEFT - 1]))),
            made.checkpoint_event(1, AFTER + 1, made.key(2), {1: made.head_of(forged)}),
        )
    ),
    "with a key made known behind the last checkpoint": lambda: made.lines_of(
        after(
            (
                forged := after(
                    LEFT,
                    made.event(1, AFTER, type="key.created", key_id=made.key(2).kid),
                    dead_letter(AFTER + 1, EVENTS[THEFT - 1]),
                )
            ),
            made.checkpoint_event(1, AFTER + 2, made.key(2), {1: made.head_of(forged)}),
        )
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_explanation_never_makes_a_range_good(forgery: str) -> None:
    report = made.verified(FORGERIES[forgery](), is_ordered=False)
    assert report.verdict is not Verdict.GOOD
    assert made.key(2).kid not in report.counting_keys
    assert sum(chain.refused + chain.dropped for chain in report.chains) == 0


@pytest.mark.parametrize("forgery", FORGERIES)
def test_nor_where_only_a_later_time_is_asked_for(forgery: str) -> None:
    late = Span(since_ms=made.START_MS + 7 * made.SECOND_MS)
    report = made.verified(FORGERIES[forgery](), is_ordered=False, span=late)
    # The gap itself is earlier, by proved events around it, or nobody can say when it was.
    assert report.verdict is not Verdict.GOOD or "missing" not in {fault for fault, *_ in made.told(report)}
    assert made.key(2).kid not in report.counting_keys


def test_what_is_explained_and_not_proved_is_in_doubt_and_the_report_says_why() -> None:
    chain = made.chain_of([*EVENTS, dead_letter(9, EVENTS[THEFT - 1])], unsent={THEFT})
    report = made.verified(made.lines_of(after(LEFT, dead_letter(AFTER, EVENTS[THEFT - 1]))))
    assert made.told(report) == []
    assert report.verdict is Verdict.CANNOT_TELL
    assert any("in doubt" in remark and "bucket 1: 4" in remark for remark in report.remarks)
    assert made.verified(made.lines_of(chain), keys=[]).verdict is Verdict.CANNOT_TELL


def test_the_next_checkpoint_settles_it() -> None:
    events = [*EVENTS, dead_letter(9, EVENTS[THEFT - 1])]
    report = made.verified(made.lines_of(made.checked_chain(events, unsent={THEFT})))
    assert (made.told(report), report.verdict, report.chains[0].refused) == ([], Verdict.GOOD, 1)


def test_an_explanation_is_proved_where_the_chain_of_any_sink_is() -> None:
    """The sink has refused what tells of it as well, and another one has it."""
    events = [*EVENTS, (letter := dead_letter(9, EVENTS[THEFT - 1])), dead_letter(10, EVENTS[0])]
    events[-1] = dead_letter(10, letter)
    lines = made.lines_of(made.checked_chain(events, unsent={THEFT, 9}))
    assert made.told(made.verified(lines)) == [("missing", 1, "4")]
    other = list(made.chain_of(events))
    told = made.checkpoint_event(1, 11, made.key(), {1: made.head_of(other)}, sink="otlp")
    report = made.verified(lines, made.lines_of(after(other, told), "otlp"))
    assert (made.told(report), report.verdict) == ([], Verdict.GOOD)


def test_a_proved_explanation_speaks_of_its_own_bucket_and_of_what_was_before() -> None:
    other = made.checked_chain([made.event(2, 1), dead_letter(2, EVENTS[THEFT - 1], bucket=2)])
    report = made.verified(made.lines_of(LEFT), made.lines_of(other))
    assert made.told(report) == [("missing", 1, "4")]


def test_what_was_refused_is_the_event_of_that_digest_and_of_no_other() -> None:
    events = [*EVENTS, dead_letter(9, made.event(1, THEFT, subject="mallory"))]
    report = made.verified(made.lines_of(made.checked_chain(events, unsent={THEFT})))
    assert ("does_not_follow", 1, "5") in made.told(report)


def test_events_taken_from_a_middle_are_not_hidden_by_numbers_said_to_be_dropped() -> None:
    told = made.event(1, AFTER, type="audit.refusals_dropped", detail="bucket 1: 3-5")
    chain = after([each for each in CHECKED if each.event.sequence not in {3, 4, 5, 6}], told)
    assert made.told(made.verified(made.lines_of(chain))) == [("missing", 1, "3-6")]


def test_an_event_moved_down_is_not_hidden_by_a_forged_dead_letter() -> None:
    chain = after(CHECKED, dead_letter(AFTER, EVENTS[THEFT - 1]))
    chain.append(chain.pop(THEFT - 1))
    report = made.verified(made.lines_of(chain))
    assert report.verdict is Verdict.CANNOT_TELL


def test_a_second_event_under_a_proved_number_is_not_proved() -> None:
    """A key that was made known there, in October, would vouch for a November written anew."""
    key = made.event(1, 3, type="key.created", key_id=made.key(2).kid, event_id="cd" * 10)
    beside = made.chain_of([key], head=made.head_of(CHECKED[:2]))
    forged = after(CHECKED, made.event(1, AFTER, subject="mallory"))
    forged = after(forged, made.checkpoint_event(1, AFTER + 1, made.key(2), {1: made.head_of(forged)}))
    for lines in ([*forged, *beside], [*beside, *forged]):
        report = made.verified(made.lines_of(lines), is_ordered=False)
        assert report.counting_keys == [made.key().kid]
        assert ("sequence_twice", 1, "3") in made.told(report)


def test_what_is_before_an_altered_event_is_proved_by_nothing_behind_it() -> None:
    key = made.event(1, 2, type="key.created", key_id=made.key(2).kid)
    anew = made.chain_of([made.event(1, 1, subject="mallory"), key])
    bridge = json.loads(made.line_of(CHECKED[2]))
    bridge["chain"]["previous"] = anew[-1].link.hex()
    report = made.verified([*made.lines_of(anew), json.dumps(bridge).encode(), *made.lines_of(CHECKED[3:])])
    assert made.told(report) == [("altered", 1, "3")]
    assert report.counting_keys == [made.key().kid]
    assert [str(chain.proved.numbers) for chain in report.chains if chain.proved] == ["4-8"]


@pytest.mark.parametrize("forged_ms", [0, 2 * made.START_MS])
def test_the_time_of_a_forged_event_moves_no_fault_out_of_the_time_asked_for(forged_ms: int) -> None:
    span = Span(made.START_MS + 4 * made.SECOND_MS, made.START_MS + 8 * made.SECOND_MS)
    told = made.checkpoint_event(0, AFTER, made.key(), {1: made.head_of(CHECKED[:8])})
    elsewhere = made.lines_of(made.chain_of([told]))
    cut = CHECKED[:4]
    forged = made.chain_of([made.event(1, 9, time_ms=forged_ms)], head=ChainHead(8, bytes(range(32))))
    beside = made.chain_of([made.event(1, 6, time_ms=forged_ms)], head=made.head_of(CHECKED[:3]))
    following = made.chain_of([made.event(1, 5, time_ms=forged_ms)], head=made.head_of(cut))
    gone = [each for each in CHECKED if each.event.sequence != 5]
    for chain in ([*cut, *forged], [*beside, *gone], [*cut, *following], [*gone, *beside]):
        report = made.verified(elsewhere, made.lines_of(chain), is_ordered=False, span=span)
        assert report.verdict is Verdict.FAULTS


def test_a_chain_written_anew_is_reported_up_to_the_last_checkpoint_that_differs() -> None:
    real = made.checked_chain([made.event(1, number + 1) for number in range(3)])
    later = made.chain_of([made.event(1, number) for number in (5, 6, 7)], head=made.head_of(real))
    told = made.checkpoint_event(0, 1, made.key(), {1: made.head_of([*real, *later])})
    elsewhere = made.lines_of(
        made.chain_of([told, *[made.event(0, 2, checkpoint=real[-1].event.checkpoint)]])
    )
    anew = made.chain_of([made.event(1, number + 1, subject="mallory") for number in range(7)])
    late = Span(since_ms=told.time_ms + 1)
    assert ("checkpoint_differs", 1, "3") in made.told(made.verified(elsewhere, made.lines_of(anew)))
    between = made.verified(elsewhere, made.lines_of(anew)).findings[0].between_ms
    assert between is not None
    assert between[1] == max(real[-1].event.time_ms, told.time_ms)
    assert made.verified(elsewhere, made.lines_of(anew), span=late).verdict is Verdict.FAULTS


def test_many_claims_of_a_key_that_nobody_trusts_do_not_crowd_out_one_that_counts() -> None:
    anew = made.chain_of([made.event(1, number + 1, subject="mallory") for number in range(1_010)])
    real = made.chain_of([made.event(1, number + 1) for number in range(1_010)])
    told = [made.checkpoint_event(0, 1, made.key(), {1: made.head_of(real)})]
    told += [
        made.checkpoint_event(0, number, made.key(2), {1: ChainHead(number, bytes([9] * 32))})
        for number in range(2, 1_005)
    ]
    report = made.verified(made.lines_of(made.chain_of(told)), made.lines_of(anew))
    assert made.told(report) == [("checkpoint_differs", 1, "1010")]
