"""The report of an auditor's question: are these events complete and unaltered? Evidence in, findings and verdict out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from identity.audit.evidence import Evidence
from identity.audit.explanations import Numbers
from identity.audit.findings import EVER, Doubt, Fault, Finding, Findings, Span
from identity.audit.recorded_event import timestamp
from identity.audit.suspects import Suspect
from identity.audit.trust import Proved, Trust, trust
from identity.audit.verification import Walked, walk

MAX_PLACES = 5
"""Places that a remark names."""


class Verdict(IntEnum):
    """The exit code of ``identity audit verify``."""

    GOOD = 0
    FAULTS = 1
    CANNOT_TELL = 2


@dataclass(frozen=True, slots=True)
class ChainReport:
    """One bucket, as one sink got it. ``begins_at``: the first event the sink ever had, 0 where that is not here."""

    sink: str
    bucket: int
    events: int
    duplicates: int
    refused: int
    dropped: int
    begins_at: int
    numbers: Numbers | None
    first_ms: int
    last_ms: int
    proved: Proved | None

    @property
    def unproved(self) -> int:
        """How many numbers come after the last checkpoint that counts, as far as is known."""
        if self.numbers is None:
            return 0
        return self.numbers.last - (self.proved.numbers.last if self.proved else self.numbers.first - 1)


@dataclass(frozen=True, slots=True)
class Report:
    """``remarks`` are no faults, and what a reader has to know; ``checked_until_seconds``: by sink, the newest checkpoints that count of all buckets;
    0 where they are all later than now. ``left_out``: faults outside of the time asked for (``span``); ``doubts_left_out``: numbers there
    that are in doubt."""

    chains: Sequence[ChainReport]
    findings: Sequence[Finding]
    more_findings: int
    left_out: int
    doubts_left_out: int
    span: Span
    remarks: Sequence[str]
    checkpoints: int
    checked_until_seconds: dict[str, int]
    counting_keys: Sequence[str]
    unknown_keys: Sequence[str]
    verdict: Verdict


def report_of(evidence: Evidence, keys: Collection[str], span: Span = EVER) -> Report:
    """Walks every chain. ``keys``: thumbprints of the keys that the auditor trusts."""
    walks = [walk(chain) for chain in evidence.chains()]
    judged = trust(keys, walks, evidence.explained)
    if any(walked.reported for walked in walks):
        # What explains it, and when it was, can be told now that it is known what is proved.
        known = {(walked.sink, walked.bucket): judged.known(walked) for walked in walks}
        walks = [
            walk(chain, span, known[chain.sink, chain.bucket], judged.counting)
            for chain in evidence.chains(judged.proves)
        ]
    found = _findings(evidence, walks, judged, span)
    chains = [_chain_report(walked, judged) for walked in walks]
    sinks = sorted({walked.sink for walked in walks})
    checked: dict[str, int] = {}
    for walked in walks:
        # A checkpoint holds a part of the buckets: the sink is checked as far as the one of them that is checked least.
        if (seconds := judged.checked_at_seconds(walked)) is not None:
            checked[walked.sink] = min(checked.get(walked.sink, seconds), seconds)
    signers = {kid for sink, kid in evidence.signers if sink in sinks}
    unknown = sorted(signers - judged.counting)
    doubts = [doubt for walked in walks for doubt in walked.reported.doubts]
    more_doubts = sum(walked.reported.more_doubts for walked in walks)
    remarks = [
        *_remarks(chains, sinks, checked, unknown, span, named=bool(keys)),
        *_doubtful(doubts, more_doubts),
    ]
    remarks += [
        f"{place}: the last line has no end, and was left out: a crash has left it, or it is being written"
        for place in evidence.torn
    ]
    remarks += [
        f"sink {sink}: the checkpoint of {timestamp(seconds * 1000)} is later than now; it proves events, and no time. Whoever "
        "signed it had a wrong clock, or the one here is wrong"
        for (sink, kid), seconds in sorted(evidence.still_to_come.items())
        if sink in sinks and kid in judged.counting
    ]
    issuers = sorted(evidence.issuers)
    if len(issuers) > 1:
        remarks.append(
            f"checkpoints of {len(issuers)} issuers ({', '.join(issuers[:MAX_PLACES])}): what services export that do not share "
            "a store has the same numbers; verify what each has exported by itself"
        )
    unproved = [name for name, places in evidence.asked_for.items() if not any(map(judged.proves, places))]
    remarks += [
        f"no checkpoint that counts proves event {name}, by which the time is told" for name in unproved
    ]
    return Report(
        chains,
        found.kept,
        found.more,
        found.left_out,
        sum(walked.reported.doubts_left_out for walked in walks),
        span,
        remarks,
        evidence.checkpoints,
        checked,
        sorted(signers & judged.counting),
        unknown,
        _verdict(bool(found.kept or found.more), bool(doubts or unproved), chains, sinks, checked, span),
    )


def _findings(evidence: Evidence, walks: Sequence[Walked], judged: Trust, span: Span) -> Findings:
    together = Findings(span)
    for finding in _all_findings(evidence, walks, judged):
        together.add(finding)
    together.more += evidence.more_suspects + evidence.findings.more
    for walked in walks:
        together.more += walked.reported.findings.more
        together.left_out += walked.reported.findings.left_out
    return together


def _all_findings(evidence: Evidence, walks: Sequence[Walked], judged: Trust) -> Iterator[Finding]:
    yield from evidence.findings.kept
    for suspect in evidence.suspects():
        yield _altered(evidence, suspect)
    for walked in walks:
        yield from walked.reported.findings.kept
        yield from judged.findings(walked)


def _altered(evidence: Evidence, suspect: Suspect) -> Finding:
    claims = (suspect.bucket, suspect.sequence)
    bucket, sequence = suspect.stands_at or claims
    text = "altered: its digest does not give its link"
    if claims != (bucket, sequence):
        text += f"; it says it were {suspect.sequence} of bucket {suspect.bucket}"
    return Finding(
        Fault.ALTERED,
        text,
        suspect.sink,
        bucket,
        Numbers(sequence, sequence),
        (suspect.event_id,),
        evidence.place(suspect.source, suspect.line),
        # Its time may be what was altered.
        None,
    )


def _chain_report(walked: Walked, judged: Trust) -> ChainReport:
    return ChainReport(
        walked.sink,
        walked.bucket,
        walked.events,
        walked.duplicates,
        walked.refused,
        walked.dropped,
        walked.begins_at,
        walked.numbers,
        walked.first_ms,
        walked.last_ms,
        judged.proved(walked),
    )


def _remarks(
    chains: Sequence[ChainReport],
    sinks: Sequence[str],
    checked: dict[str, int],
    unknown: Sequence[str],
    span: Span,
    *,
    named: bool,
) -> Iterator[str]:
    if not chains:
        yield "there are no events"
    for sink in sinks:
        if sink not in checked:
            yield (
                f"sink {sink}: no checkpoint counts, so that nothing is proved: whoever can write there could have written "
                "it all anew"
            )
        elif behind := sum(chain.unproved for chain in chains if chain.sink == sink):
            yield (
                f"sink {sink}: {behind} events come after the last checkpoint; if there were more, and they were cut off, "
                "that cannot be seen"
            )
        if sink in checked and span.until_ms is not None and checked[sink] * 1000 < span.until_ms:
            yield f"sink {sink}: the last checkpoint is from before the end of the time asked for"
        if sink in checked and span.since_ms is not None and checked[sink] * 1000 < span.since_ms:
            yield f"sink {sink}: the last checkpoint is from before the time asked for, of which nothing is proved"
    if unknown:
        name = (
            "none of the keys that were named vouches for them: name the JWK set of their time"
            if named
            else "name a JWK set"
        )
        yield f"checkpoints of unknown keys were left out of account: {', '.join(unknown)}; {name} with --keys"
    for chain in chains:
        if chain.begins_at > 1:
            yield f"sink {chain.sink}, bucket {chain.bucket}: its chain begins with {chain.begins_at}; the sink was new then"


def _doubtful(doubts: Sequence[Doubt], more: int) -> Iterator[str]:
    if not doubts:
        return
    places = [f"sink {each.sink}, bucket {each.bucket}: {each.numbers}" for each in doubts[:MAX_PLACES]]
    if more or len(doubts) > MAX_PLACES:
        places.append("…")
    count = sum(each.count for each in doubts) + more
    yield (
        f"in doubt, since no checkpoint that counts proves the events that explain it: {count} numbers ({'; '.join(places)}). A sink "
        "may have refused them, or somebody may have written the explanation of what he took out; verify again with a later checkpoint"
    )


def _verdict(
    has_faults: bool,
    has_doubts: bool,
    chains: Sequence[ChainReport],
    sinks: Sequence[str],
    checked: dict[str, int],
    span: Span,
) -> Verdict:
    if has_faults:
        return Verdict.FAULTS
    if has_doubts or not chains or any(sink not in checked for sink in sinks):
        return Verdict.CANNOT_TELL
    # Of a time that no checkpoint reaches nothing is known, not even that there was none of it.
    if min(checked.values()) * 1000 < max(span.since_ms or 0, span.until_ms or 0):
        return Verdict.CANNOT_TELL
    return Verdict.GOOD
