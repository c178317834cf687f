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
   ``audit.refusals_dropped`` that names them explains it, and so does ``audit.sink_resumed`` for that sink. Without one it is a fault: the outbox was tampered with.
5. **Duplicates.** The same event again is counted and does no harm: export is at least once. Another event under the same
   number, or the same with another link, is named: a store that had lost writes goes on with numbers it has given before.
6. **Order.** A file has an order: what a sink got later is further down. An event that is further down than one that
   follows it is *reordered*; of the few ways to put that, the one that names the fewest events is preferred. An event that
   was refused, and offered again later, may stand where it does. Of sources without an order (a tracing backend), and across files, nothing is said.
7. **Checkpoints.** A claim that the chain had a certain link at a certain number is compared where the walk passes it. Who
   has signed it, and whether that counts, is decided elsewhere (``identity.audit.trust``). An equal claim proves
   everything up to it, back to where the chain was last broken. A claim about what comes after the last event shows that the tail
   was cut off. **Nothing shows a cut that is behind the last checkpoint.**

Memory is bounded by faults and explanations, not by events.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from identity.audit.chain import GENESIS, link_after
from identity.audit.explanations import Numbers, without
from identity.audit.findings import Fault, Finding, Findings
from identity.audit.suspects import MAX_OUTCOMES, Suspect, Suspects

MAX_RUNS = 10_000
MAX_DIFFERING = 1_000
MAX_VARIANTS = 16


class ChainLink(NamedTuple):
    """A sound event; ``source`` and ``line`` say where it was found, by numbers that rise in the order of reading."""

    sequence: int
    event_id: str
    time_ms: int
    previous: bytes
    link: bytes
    source: int
    line: int


class Claim(NamedTuple):
    """That the chain had this link at this number, signed by ``kid`` at ``issued_at_seconds``."""

    sequence: int
    link: bytes
    kid: str
    issued_at_seconds: int


@dataclass(frozen=True, slots=True)
class ChainEvidence:
    """All there is of one chain. ``events`` by sequence, then by where they were found; ``claims`` by sequence.

    ``refused``: digests of the events that the sink would not take. ``ordered``: the sources that have an order.
    """

    sink: str
    bucket: int
    events: Iterable[ChainLink]
    suspects: Suspects = field(default_factory=Suspects)
    refused: Mapping[int, Collection[bytes]] = field(default_factory=dict)
    dropped: Sequence[Numbers] = ()
    claims: Iterable[Claim] = ()
    ordered: Collection[int] = ()


class Proof(NamedTuple):
    """A claim that was found equal, or is about what comes after the end. ``time_ms`` is that of the event."""

    sequence: int
    issued_at_seconds: int
    time_ms: int = 0


@dataclass(slots=True)
class Run:
    """Numbers in which nothing is broken; ``proofs`` are the furthest equal claims, by the key that has signed them."""

    numbers: Numbers
    proofs: dict[str, Proof] = field(default_factory=dict)


@dataclass(slots=True)
class Walked:
    """What the walk along a chain has found. ``differing`` and ``beyond`` are claims, of keys that may not count.

    ``begins_at``: the first event that the sink ever had; 0 where that is not here.
    """

    sink: str
    bucket: int
    events: int = 0
    duplicates: int = 0
    refused: int = 0
    dropped: int = 0
    begins_at: int = 0
    numbers: Numbers | None = None
    first_ms: int = 0
    last_ms: int = 0
    runs: list[Run] = field(default_factory=list)
    differing: list[Claim] = field(default_factory=list)
    beyond: dict[str, Proof] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)


def walk(evidence: ChainEvidence) -> Walked:
    """Along the chain, once."""
    walker = _Walker(evidence)
    for sequence, found in groupby(evidence.events, lambda event: event.sequence):
        walker.pass_by(sequence, walker.told_apart(found))
    return walker.end()


class _Walker:
    """Where the walk has got: after ``sequence``, with ``links`` that the next event may follow."""

    def __init__(self, evidence: ChainEvidence) -> None:
        self._evidence = evidence
        self._walked = Walked(evidence.sink, evidence.bucket)
        self._claims = _Claims(evidence.claims)
        self._order = _Order(evidence.ordered)
        self._sequence = 0
        self._time_ms = 0
        self._links: set[bytes] = {GENESIS.link}
        self._run: Run | None = None

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
        self._cross_to(sequence, {event.previous for event in variants}, first)
        if len(variants) > 1:
            ids = tuple(event.event_id for event in variants)
            self._report(Fault.SEQUENCE_TWICE, Numbers(sequence, sequence), first.time_ms, ids=ids)
        # What the sink refused at first may have been offered again later.
        if sequence not in self._evidence.refused:
            for event in self._order.after(first):
                self._report_order(event)
        walked = self._walked
        walked.events += len(variants)
        walked.first_ms = walked.first_ms if walked.numbers else first.time_ms
        walked.numbers = Numbers(walked.numbers.first if walked.numbers else sequence, sequence)
        walked.last_ms = self._time_ms = first.time_ms
        self._arrive(sequence, {event.link for event in variants})
        self._compare(sequence, self._links, is_sure=True)

    def end(self) -> Walked:
        """Closes the books."""
        # Altered or refused events may be the last ones.
        while step := self._step(self._sequence + 1, self._links, is_sure=True):
            self._arrive(self._sequence + 1, step)
        for event in self._order.after(None):
            self._report_order(event)
        for claim in self._claims.rest():
            known = self._walked.beyond.get(claim.kid)
            if known is None or claim.sequence > known.sequence:
                self._walked.beyond[claim.kid] = Proof(claim.sequence, claim.issued_at_seconds)
        return self._walked

    def _cross_to(self, sequence: int, targets: set[bytes], event: ChainLink) -> None:
        """Accounts for what is between here and there."""
        if self._sequence == 0 and GENESIS.link in targets:
            self._walked.begins_at = sequence
            return
        between = Numbers(self._sequence + 1, sequence - 1)
        links, open_numbers = self._filled(between)
        never = [left for item in open_numbers for left in without(item, self._evidence.dropped)]
        if links & targets:
            self._walked.dropped += _count(open_numbers) - _count(never)
            for numbers in never:
                self._report(Fault.NEVER_EXPORTED, numbers, event.time_ms)
            return
        self._run = None
        # The chain has links for some of them, so that what was dropped cannot be all.
        for numbers in never or open_numbers:
            self._report(Fault.MISSING, numbers, event.time_ms)
        if not open_numbers:
            self._report(
                Fault.DOES_NOT_FOLLOW, Numbers(sequence, sequence), event.time_ms, ids=(event.event_id,)
            )

    def _filled(self, between: Numbers) -> tuple[set[bytes], list[Numbers]]:
        """Through the gap by what there is of it: the links that come next, and the numbers that stay open."""
        if between.size <= 0:
            return self._links, []
        evidence, links, left = self._evidence, self._links, []
        claimed = evidence.suspects.between(evidence.bucket, between.first, between.last)
        refused = [number for number in evidence.refused if between.first <= number <= between.last]
        at = between.first
        for number in [*sorted({*claimed, *refused}), between.last + 1]:
            while at < number and (moved := evidence.suspects.after(links)):
                links = self._pass_suspects(at, [moved], links)
                at += 1
            if at < number:
                left.append(Numbers(at, number - 1))
            if number <= between.last:
                links = self._step(number, links, is_sure=not left)
            at = number + 1
        return links, left

    def _step(self, sequence: int, links: set[bytes], *, is_sure: bool) -> set[bytes]:
        """The links after an event of this number that is altered or was refused; none where there is no such."""
        evidence, after = self._evidence, set[bytes]()
        if digests := evidence.refused.get(sequence):
            self._walked.refused += 1
            after = {link_after(link, digest) for link in links for digest in digests}
        suspects = evidence.suspects.at(evidence.bucket, sequence)
        if not suspects and not after and (moved := evidence.suspects.after(links)):
            suspects = [moved]
        if suspects:
            after |= self._pass_suspects(sequence, suspects, links)
        if after:
            self._compare(sequence, after, is_sure=is_sure and not suspects)
        return set(list(after)[:MAX_OUTCOMES])

    def _pass_suspects(self, sequence: int, suspects: Sequence[Suspect], links: set[bytes]) -> set[bytes]:
        after = set[bytes]()
        for suspect in suspects:
            suspect.stands_at = (self._evidence.bucket, sequence)
            after |= suspect.outcomes(links)
        return after

    def _arrive(self, sequence: int, links: set[bytes]) -> None:
        self._sequence, self._links = sequence, links
        if self._run is None:
            self._run = Run(Numbers(sequence, sequence))
            if len(self._walked.runs) < MAX_RUNS:
                self._walked.runs.append(self._run)
        self._run.numbers = Numbers(self._run.numbers.first, sequence)

    def _compare(self, sequence: int, links: Collection[bytes], *, is_sure: bool) -> None:
        """``is_sure``: that the event had one of these links. A claim of another then differs."""
        for claim in self._claims.at(sequence):
            if claim.link in links and self._run is not None:
                self._run.proofs[claim.kid] = Proof(sequence, claim.issued_at_seconds, self._time_ms)
            elif is_sure and len(self._walked.differing) < MAX_DIFFERING:
                self._walked.differing.append(claim)

    def _report(self, fault: Fault, numbers: Numbers, until_ms: int, *, ids: tuple[str, ...] = ()) -> None:
        since_ms = self._time_ms if self._sequence else 0
        between = (since_ms, max(since_ms, until_ms))
        text = _TEXTS[fault].format(before=self._sequence, first=numbers.first)
        evidence = self._evidence
        self._walked.findings.add(
            Finding(fault, text, evidence.sink, evidence.bucket, numbers, ids, between_ms=between)
        )

    def _report_order(self, event: ChainLink) -> None:
        numbers = Numbers(event.sequence, event.sequence)
        evidence, text = self._evidence, _TEXTS[Fault.REORDERED]
        between = (event.time_ms, event.time_ms)
        self._walked.findings.add(
            Finding(
                Fault.REORDERED, text, evidence.sink, evidence.bucket, numbers, (event.event_id,), "", between
            )
        )


class _Claims:
    """Claims in the order of their numbers, taken as the walk passes."""

    def __init__(self, claims: Iterable[Claim]) -> None:
        self._claims = iter(claims)
        self._next = next(self._claims, None)

    def at(self, sequence: int) -> Iterator[Claim]:
        """Those about this number. What was passed over is about events that are missing, and is never asked for."""
        while self._next is not None and self._next.sequence <= sequence:
            claim, self._next = self._next, next(self._claims, None)
            if claim.sequence == sequence:
                yield claim

    def rest(self) -> Iterator[Claim]:
        """Those about what comes after the end."""
        while self._next is not None:
            claim, self._next = self._next, next(self._claims, None)
            yield claim


class _Order:
    """Finds events that are further down in a source than one that follows them.

    One event is looked ahead: if that fits behind the one before, and the one between is behind both, then the one
    between has been moved down. Anything else that is not behind what was passed has been moved up.
    """

    def __init__(self, ordered: Collection[int]) -> None:
        self._ordered = ordered
        self._passed: dict[int, int] = {}
        self._held: ChainLink | None = None

    def after(self, event: ChainLink | None) -> Iterator[ChainLink]:
        """The events that are known to be out of order now that this one, or the end, has come."""
        held, self._held = self._held, event if event is None or event.source in self._ordered else None
        if held is None:
            return
        passed = self._passed.get(held.source, 0)
        was_moved_down = event is not None and event.source == held.source and passed < event.line < held.line
        if held.line < passed or was_moved_down:
            yield held
        else:
            self._passed[held.source] = held.line


def _count(numbers: Iterable[Numbers]) -> int:
    return sum(item.size for item in numbers)


_TEXTS = {
    Fault.MISSING: "not there, and the sink had it: the chain does not close between {before} and what follows",
    Fault.NEVER_EXPORTED: "passed over: the chain closes above it, and no event explains it",
    Fault.DOES_NOT_FOLLOW: "does not follow {before}: one of both is not the event that was exported",
    Fault.SEQUENCE_TWICE: "exported twice with different content: the store lost writes and gave the number again, or one was put in",
    Fault.REORDERED: "stands after events that follow it",
}
