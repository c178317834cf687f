"""What verifying finds: the closed set of faults, and where each is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from identity.audit.explanations import Numbers

MAX_FINDINGS = 1_000
"""Of a chain, and of what belongs to none; the rest is counted."""
FOREVER_MS = 2**63


class Fault(StrEnum):
    """What is wrong. docs/audit.md says what each may come from."""

    MISSING = "missing"
    """The chain has a link for it, and it is not there: the sink had it."""
    NEVER_EXPORTED = "never_exported"
    """A sequence number was passed over, and the chain closes above it: the sink never had it, and no event says why."""
    ALTERED = "altered"
    """Its digest does not give its link."""
    DOES_NOT_FOLLOW = "does_not_follow"
    """Its link is sound, and made for another event before it: one of both was exchanged."""
    SEQUENCE_TWICE = "sequence_twice"
    """Two events, or two places in the chain, have the same number."""
    REORDERED = "reordered"
    """The sink has it after events that follow it."""
    CHECKPOINT_DIFFERS = "checkpoint_differs"
    """A good signature says that the chain had another link here: what is up to here was written anew."""
    CHECKPOINT_FORGED = "checkpoint_forged"
    """An event is sound, and the checkpoint in it is none of the key that it names."""
    CONTRADICTED = "contradicted"
    """An event is sound, and beside it stands something under the names of its attributes that it does not say."""
    UNREADABLE = "unreadable"
    """Something in the export is no event."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``numbers`` are sequence numbers of ``bucket``; ``place`` is file and line where there are such.

    ``between_ms``: when it happened, as far as the times of *proved* events around it tell: the time of any other is whatever
    somebody has written.
    """

    fault: Fault
    text: str
    sink: str = ""
    bucket: int | None = None
    numbers: Numbers | None = None
    event_ids: tuple[str, ...] = ()
    place: str = ""
    between_ms: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Doubt:
    """``count`` numbers that are not there, or not in order; an event explains that, and no checkpoint that counts proves that event."""

    sink: str
    bucket: int
    numbers: Numbers
    count: int


@dataclass(frozen=True, slots=True)
class Span:
    """The time that the question is about, both ends included; ``None``: all there is.

    What lies outside is walked too, since a chain has to be followed from where it begins, and not reported.
    """

    since_ms: int | None = None
    until_ms: int | None = None

    def meets(self, between_ms: tuple[int, int] | None) -> bool:
        """Whether something of that time is in the span. What has no time is."""
        if between_ms is None:
            return True
        first, last = between_ms
        return (self.since_ms is None or last >= self.since_ms) and (
            self.until_ms is None or first <= self.until_ms
        )


EVER = Span()


@dataclass(slots=True)
class Findings:
    """Of those in the span the first ``MAX_FINDINGS``, how many more there are, and how many outside of it were left out."""

    span: Span = EVER
    kept: list[Finding] = field(default_factory=list)
    more: int = 0
    left_out: int = 0

    def add(self, finding: Finding) -> None:
        """Keeps or counts it, if it is asked for."""
        if not self.span.meets(finding.between_ms):
            self.left_out += 1
        elif len(self.kept) < MAX_FINDINGS:
            self.kept.append(finding)
        else:
            self.more += 1

    def __bool__(self) -> bool:
        return bool(self.kept)


@dataclass(slots=True)
class Reported:
    """What is wrong with a chain, told in the order of walking along it: when it was is known at the next proved event.

    All that waits for that event has the same time, so that the first of it and a count are enough.
    """

    findings: Findings = field(default_factory=Findings)
    doubts: list[Doubt] = field(default_factory=list)
    more_doubts: int = 0
    doubts_left_out: int = 0
    _since_ms: int = 0
    _waiting: list[Finding] = field(default_factory=list)
    _more_waiting: int = 0
    _waiting_doubts: list[Doubt] = field(default_factory=list)
    _more_waiting_doubts: int = 0

    def add(self, finding: Finding) -> None:
        """A fault behind the last proved event."""
        if len(self._waiting) < MAX_FINDINGS:
            self._waiting.append(finding)
        else:
            self._more_waiting += 1

    def doubt(self, doubt: Doubt) -> None:
        """A doubt behind the last proved event."""
        if not doubt.count:
            return
        if len(self._waiting_doubts) < MAX_FINDINGS:
            self._waiting_doubts.append(doubt)
        else:
            self._more_waiting_doubts += doubt.count

    def pass_by(self, time_ms: int) -> None:
        """A proved event of that time, or the end of all times."""
        since_ms, self._since_ms = self._since_ms, time_ms
        self._tell(since_ms, time_ms)

    def is_from_before(self, time_ms: int) -> None:
        """All that waits is; what follows may be as well."""
        self._tell(self._since_ms, time_ms)

    def _tell(self, one_ms: int, other_ms: int) -> None:
        between_ms = (min(one_ms, other_ms), max(one_ms, other_ms))
        if not self.findings.span.meets(between_ms):
            self.findings.left_out += len(self._waiting) + self._more_waiting
            self.doubts_left_out += sum(each.count for each in self._waiting_doubts)
            self.doubts_left_out += self._more_waiting_doubts
        elif self._waiting or self._waiting_doubts:
            for finding in self._waiting:
                self.findings.add(replace(finding, between_ms=between_ms))
            self.findings.more += self._more_waiting
            room = MAX_FINDINGS - len(self.doubts)
            self.doubts += self._waiting_doubts[:room]
            self.more_doubts += self._more_waiting_doubts
            self.more_doubts += sum(each.count for each in self._waiting_doubts[room:])
        self._waiting, self._more_waiting = [], 0
        self._waiting_doubts, self._more_waiting_doubts = [], 0

    def __bool__(self) -> bool:
        return bool(self.findings.kept or self.doubts)
