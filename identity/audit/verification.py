"""Whether the exported events of one chain are complete and unaltered. Pure: events in, findings out.

A chain is what one sink got of one bucket (``identity.audit.chain``). Its events come in the order of their sequence numbers,
which is that of the chain, each as often as it was found. The rules:

1. **Sound.** An event whose digest and ``previous`` give its ``link`` is sound. Any other was *altered*; it is kept apart
   (``identity.audit.suspects``), named, and stands in for itself where its neighbours fit around it.
2. **Follows.** The ``previous`` of an event is the link of the event before it. Where it is, nothing is missing between
   both, whatever the numbers say. The first event of all follows 32 zero bytes, with whatever number: the sink was new then.
3. **Missing.** Where it is not, links are missing. What is there of them fills them in: altered events; the digests of
   events that the sink has refused (``audit.dead_lettered``). Numbers that stay open are *missing*. Where none stays
   open, and it still does not fit, the event *does not follow*: one of both was exchanged for another.
4. **Never exported.** Where the chain closes above numbers that nobody has, the sink never had these. An event
   ``audit.refusals_dropped`` that names them explains it, and so does ``audit.sink_resumed`` for its sink. Without one it is a
   fault: the outbox was tampered with.
   **An explanation counts where it is proved.** One that is not makes a *doubt* of what it explains, and neither a fault nor
   nothing: what is honest may not be proved yet, and who takes events away can write an explanation.
5. **Duplicates.** The same event again is counted and does no harm: export is at least once. Another event under the same
   number, or the same with another link, is named: a store that had lost writes goes on with numbers it has given before.
6. **Order.** A file has an order: what a sink got later is further down. An event that is further down than one that
   follows it is *reordered*; of the few ways to put that, the one that names the fewest events is preferred. An event that
   was refused, and offered again later, may stand where it does. Of sources without an order (a tracing backend), and across files, nothing is said.
7. **Checkpoints.** A claim that the chain had a certain link at a certain number is compared where the walk passes it. Who
   has signed it, and whether that counts, is decided elsewhere (``identity.audit.trust``). An equal claim proves
   everything on the way to it (``identity.audit.runs``), back to where the chain was last broken, or an event altered. A claim about what comes after the last event shows that the tail
   was cut off. **Nothing shows a cut that is behind the last checkpoint.**

8. **Times.** When a fault happened is told by the proved events around it, and by a checkpoint that counts and says that the sink had
   what is missing; by nothing else.

A walk does not know yet what will turn out to be proved, except what a first walk over the same events has found (``known``).
Memory is bounded by faults and explanations, not by events.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from identity.audit.chain import GENESIS, link_after
from identity.audit.explanations import Numbers, without
from identity.audit.file_order import ChainLink, FileOrder
from identity.audit.findings import EVER, FOREVER_MS, Doubt, Fault, Finding, Findings, Reported, Span
from identity.audit.runs import MAX_RUNS, Proof, Run, Way
from identity.audit.suspects import MAX_OUTCOMES, Suspect, Suspects

MAX_VARIANTS = 16


class Claim(NamedTuple):
    """That the chain had this link at this number, signed by ``kid`` at ``issued_at_seconds``, and for the last time later.

    ``last_issued_at_seconds``: 0 where all that was signed is dated later than now.
    """

    sequence: int
    link: bytes
    kid: str
    issued_at_seconds: int
    last_issued_at_seconds: int


@dataclass(frozen=True, slots=True)
class ChainEvidence:
    """All there is of one chain. ``events`` by sequence, then by where they were found; ``claims`` by sequence.

    ``refused``: digests of the events that the sink would not take, and whether that counts. ``dropped``: numbers it never had;
    ``said_dropped``: those of which that does not count. ``explaining``: events, by number and link, of which it matters
    whether they are proved. ``ordered``: the sources that have an order.
    """

    sink: str
    bucket: int
    events: Iterable[ChainLink]
    suspects: Suspects = field(default_factory=Suspects)
    refused: Mapping[int, Mapping[bytes, bool]] = field(default_factory=dict)
    dropped: Sequence[Numbers] = ()
    said_dropped: Sequence[Numbers] = ()
    explaining: Collection[tuple[int, bytes]] = ()
    claims: Iterable[Claim] = ()
    ordered: Collection[int] = ()


@dataclass(slots=True)
class Differing:
    """Claims of one key that the chain had another link: the first of them, how many, and when the last was signed."""

    first: Claim
    count: int
    last_issued_at_seconds: int


@dataclass(slots=True)
class Walked:
    """What the walk along a chain has found. ``differing`` and ``beyond`` are by key, of keys that may not count.

    ``begins_at``: the first event that the sink ever had; 0 where that is not here. ``ends_at``: the last number, there or refused.
    ``explaining``: the runs in which these events stand. ``claimed_at_seconds``: when each key has signed something of this chain last.
    """

    sink: str
    bucket: int
    events: int = 0
    duplicates: int = 0
    refused: int = 0
    dropped: int = 0
    begins_at: int = 0
    ends_at: int = 0
    numbers: Numbers | None = None
    first_ms: int = 0
    last_ms: int = 0
    runs: list[Run] = field(default_factory=list)
    explaining: dict[tuple[int, bytes], Run] = field(default_factory=dict)
    differing: dict[str, Differing] = field(default_factory=dict)
    beyond: dict[str, Proof] = field(default_factory=dict)
    claimed_at_seconds: dict[str, int] = field(default_factory=dict)
    reported: Reported = field(default_factory=Reported)


Known = Mapping[tuple[int, bytes], int]
"""Of each run, by its first number and link: up to which number it is proved."""


def walk(
    evidence: ChainEvidence, span: Span = EVER, known: Known | None = None, counting: Collection[str] = ()
) -> Walked:
    """Along the chain, once. Only what meets ``span`` is reported. ``counting``: the keys that count, as far as is known."""
    walker = _Walker(evidence, span, known or {}, counting)
    for sequence, found in groupby(evidence.events, lambda event: event.sequence):
        walker.pass_by(sequence, walker.told_apart(found))
    return walker.end()


class _Walker:
    """Where the walk has got: after ``sequence``, with the links that the next event may follow."""

    def __init__(self, evidence: ChainEvidence, span: Span, known: Known, counting: Collection[str]) -> None:
        self._evidence = evidence
        self._known = known
        self._counting = counting
        self._walked = Walked(evidence.sink, evidence.bucket, reported=Reported(Findings(span)))
        self._claims = _Claims(evidence.claims, self._walked.claimed_at_seconds)
        self._order = FileOrder(evidence.ordered)
        self._sequence = 0
        self._ways: dict[bytes, Way] = {GENESIS.link: Way()}

    def told_apart(self, found: Iterator[ChainLink]) -> Sequence[ChainLink]:
        """The different events of one number, the first found of each."""
        variants: dict[tuple[str, bytes, bytes], ChainLink] = {}
        for event in found:
            key = (event.event_id, event.previous, event.link)
            if key in variants:
                self._walked.duplicates += 1
            elif len(variants) < MAX_VARIANTS:
                variants[key] = event
        return list(variants.values())

    def pass_by(self, sequence: int, variants: Sequence[ChainLink]) -> None:
        """Goes on to this number."""
        first = variants[0]
        ways = self._cross_to(sequence, {event.previous for event in variants}, first)
        if len(variants) > 1:
            ids = tuple(event.event_id for event in variants)
            self._report(Fault.SEQUENCE_TWICE, Numbers(sequence, sequence), ids)
        # What the sink refused at first may have been offered again later.
        if not any(self._evidence.refused.get(sequence, {}).values()):
            for event in self._order.after(first):
                self._report_order(event)
        self._arrive(sequence, variants, ways)
        walked = self._walked
        walked.events += len(variants)
        walked.first_ms = walked.first_ms if walked.numbers else first.time_ms
        walked.numbers = Numbers(walked.numbers.first if walked.numbers else sequence, sequence)
        walked.last_ms = first.time_ms
        self._compare(sequence, self._ways, is_sure=True)

    def end(self) -> Walked:
        """Closes the books."""
        # Altered or refused events may be the last ones.
        walked, first = self._walked, self._sequence + 1
        while step := self._step(self._sequence + 1, self._ways, is_sure=True):
            self._sequence, self._ways = self._sequence + 1, step
        way = _most_doubted(self._ways.values())
        walked.refused += way.refused
        self._doubt(Numbers(first, self._sequence), way.doubted)
        walked.ends_at = self._sequence
        for event in self._order.after(None):
            self._report_order(event)
        walked.reported.pass_by(FOREVER_MS)
        for claim in self._claims.rest():
            known = walked.beyond.get(claim.kid)
            if known is None or claim.sequence > known.sequence:
                walked.beyond[claim.kid] = Proof(claim.sequence, claim.issued_at_seconds)
        return walked

    def _cross_to(self, sequence: int, targets: set[bytes], event: ChainLink) -> Mapping[bytes, Way]:
        """Accounts for what is between here and there; the links that may come before it."""
        if self._sequence == 0 and GENESIS.link in targets:
            self._walked.begins_at = sequence
            return self._ways
        between = Numbers(self._sequence + 1, sequence - 1)
        if between.size <= 0 and targets <= self._ways.keys():
            return self._ways
        evidence, walked = self._evidence, self._walked
        ways, open_numbers = self._filled(between)
        left = [part for item in open_numbers for part in without(item, evidence.dropped)]
        way = _most_doubted(ways[target] for target in targets if target in ways)
        if targets & ways.keys():
            unsaid = [part for item in left for part in without(item, evidence.said_dropped)]
            walked.refused += way.refused
            walked.dropped += _count(open_numbers) - _count(left)
            self._doubt(between, way.doubted + _count(left) - _count(unsaid))
            for numbers in unsaid:
                self._report(Fault.NEVER_EXPORTED, numbers)
            return ways
        self._doubt(between, _most_doubted(ways.values()).doubted)
        # The chain has links for some of them, so that what was dropped cannot be all.
        for numbers in left or open_numbers:
            self._report(Fault.MISSING, numbers)
        if not open_numbers:
            self._report(Fault.DOES_NOT_FOLLOW, Numbers(sequence, sequence), (event.event_id,))
        elif (had_by_ms := self._had_by_ms(between.last, targets)) is not None:
            walked.reported.is_from_before(had_by_ms)
        return ways

    def _had_by_ms(self, sequence: int, links: Collection[bytes]) -> int | None:
        """When the sink had what is missing up to here at the latest, if a checkpoint that counts says so."""
        return min(
            (
                (claim.issued_at_seconds + 1) * 1000
                for claim in self._claims.at(sequence)
                if claim.kid in self._counting and claim.link in links
            ),
            default=None,
        )

    def _filled(self, between: Numbers) -> tuple[Mapping[bytes, Way], list[Numbers]]:
        """Through the gap by what there is of it: the links that come next, and the numbers that stay open."""
        if between.size <= 0:
            return self._ways, []
        evidence, ways, left = self._evidence, self._ways, []
        claimed = evidence.suspects.between(evidence.bucket, between.first, between.last)
        refused = [number for number in evidence.refused if between.first <= number <= between.last]
        at = between.first
        for number in [*sorted({*claimed, *refused}), between.last + 1]:
            while at < number and (moved := evidence.suspects.after(ways)):
                ways = self._pass_suspects(at, [moved], ways)
                at += 1
            if at < number:
                left.append(Numbers(at, number - 1))
            if number <= between.last:
                ways = self._step(number, ways, is_sure=not left)
            at = number + 1
        return ways, left

    def _step(self, sequence: int, ways: Mapping[bytes, Way], *, is_sure: bool) -> dict[bytes, Way]:
        """The links after an event of this number that is altered or was refused; none where there is no such."""
        evidence, after = self._evidence, dict[bytes, Way]()
        for digest, counts in evidence.refused.get(sequence, {}).items():
            for link, way in ways.items():
                doubted = way.doubted + (not counts)
                after[link_after(link, digest)] = Way(way.run, way.refused + counts, doubted)
        suspects = evidence.suspects.at(evidence.bucket, sequence)
        if not suspects and not after and (moved := evidence.suspects.after(ways)):
            suspects = [moved]
        if suspects:
            after |= self._pass_suspects(sequence, suspects, ways)
        after = dict(list(after.items())[:MAX_OUTCOMES])
        if after:
            self._compare(sequence, after, is_sure=is_sure and not suspects)
        return after

    def _pass_suspects(
        self, sequence: int, suspects: Sequence[Suspect], ways: Mapping[bytes, Way]
    ) -> dict[bytes, Way]:
        after = dict[bytes, Way]()
        told = _most_doubted(ways.values())
        for suspect in suspects:
            suspect.stands_at = (self._evidence.bucket, sequence)
            after |= dict.fromkeys(suspect.outcomes(), Way(None, told.refused, told.doubted))
        for suspect in suspects:
            after |= {link_after(link, suspect.digest): way for link, way in ways.items()}
        return dict(list(after.items())[:MAX_OUTCOMES])

    def _arrive(self, sequence: int, variants: Sequence[ChainLink], ways: Mapping[bytes, Way]) -> None:
        """Puts the events of this number into their runs."""
        after = dict[bytes, Way]()
        for event in variants:
            run = ways.get(event.previous, _NO_WAY).run
            if run is None or len(variants) > 1:
                run = self._new_run(event, run)
            if run is not None:
                run.numbers, run.last_ms = Numbers(run.numbers.first, sequence), event.time_ms
                if (sequence, event.link) in self._evidence.explaining:
                    self._walked.explaining[sequence, event.link] = run
                if run.proved_until >= sequence:
                    self._walked.reported.pass_by(event.time_ms)
            after[event.link] = Way(run)
        self._sequence, self._ways = sequence, after

    def _new_run(self, event: ChainLink, before: Run | None) -> Run | None:
        if len(self._walked.runs) >= MAX_RUNS:
            return None
        numbers = Numbers(event.sequence, event.sequence)
        proved_until = self._known.get((event.sequence, event.link), 0)
        run = Run(numbers, event.link, event.time_ms, before, proved_until)
        self._walked.runs.append(run)
        return run

    def _compare(self, sequence: int, ways: Mapping[bytes, Way], *, is_sure: bool) -> None:
        """``is_sure``: that the event had one of these links. A claim of another then differs."""
        for claim in self._claims.at(sequence):
            if (way := ways.get(claim.link)) is not None:
                if way.run is not None:
                    way.run.prove(claim.kid, Proof(sequence, claim.issued_at_seconds, way.run.last_ms))
            elif is_sure:
                issued_at = claim.issued_at_seconds
                told = self._walked.differing.setdefault(claim.kid, Differing(claim, 0, issued_at))
                told.count += 1
                told.last_issued_at_seconds = max(told.last_issued_at_seconds, issued_at)

    def _report(self, fault: Fault, numbers: Numbers, ids: tuple[str, ...] = ()) -> None:
        text = _TEXTS[fault].format(before=self._sequence)
        walked = self._walked
        walked.reported.add(Finding(fault, text, walked.sink, walked.bucket, numbers, ids))

    def _report_order(self, event: ChainLink) -> None:
        numbers = Numbers(event.sequence, event.sequence)
        if event.sequence in self._evidence.refused:
            self._doubt(numbers, 1)
        else:
            self._report(Fault.REORDERED, numbers, (event.event_id,))

    def _doubt(self, numbers: Numbers, count: int) -> None:
        walked = self._walked
        walked.reported.doubt(Doubt(walked.sink, walked.bucket, numbers, count))


class _Claims:
    """Claims in the order of their numbers, taken as the walk passes."""

    def __init__(self, claims: Iterable[Claim], claimed_at_seconds: dict[str, int]) -> None:
        self._claims = iter(claims)
        self._claimed_at_seconds = claimed_at_seconds
        self._next = next(self._claims, None)

    def at(self, sequence: int) -> Iterator[Claim]:
        """Those about this number. What was passed over is about events that are missing, and is never asked for."""
        while self._next is not None and self._next.sequence <= sequence:
            claim = self._taken(self._next)
            if claim.sequence == sequence:
                yield claim

    def rest(self) -> Iterator[Claim]:
        """Those about what comes after the end."""
        while self._next is not None:
            yield self._taken(self._next)

    def _taken(self, claim: Claim) -> Claim:
        at = self._claimed_at_seconds
        at[claim.kid] = max(at.get(claim.kid, 0), claim.last_issued_at_seconds)
        self._next = next(self._claims, None)
        return claim


def _most_doubted(ways: Iterable[Way]) -> Way:
    return max(ways, key=lambda way: way.doubted, default=_NO_WAY)


def _count(numbers: Iterable[Numbers]) -> int:
    return sum(item.size for item in numbers)


_NO_WAY = Way()
_TEXTS = {
    Fault.MISSING: "not there, and the sink had it: the chain does not close between {before} and what follows",
    Fault.NEVER_EXPORTED: "passed over: the chain closes above it, and no event explains it",
    Fault.DOES_NOT_FOLLOW: "does not follow {before}: one of both is not the event that was exported",
    Fault.SEQUENCE_TWICE: "exported twice with different content: the store lost writes and gave the number again, or one was put in",
    Fault.REORDERED: "stands after events that follow it",
}
