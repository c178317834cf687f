"""What verifying finds: the closed set of faults, and where each is."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from identity.audit.explanations import Numbers

MAX_FINDINGS = 1_000
"""Of a chain, and of what belongs to none; the rest is counted."""


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
    UNREADABLE = "unreadable"
    """Something in the export is no event."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``numbers`` are sequence numbers of ``bucket``; ``place`` is file and line where there are such.

    ``between_ms``: when it happened, as far as the times of events around it tell.
    """

    fault: Fault
    text: str
    sink: str = ""
    bucket: int | None = None
    numbers: Numbers | None = None
    event_ids: tuple[str, ...] = ()
    place: str = ""
    between_ms: tuple[int, int] | None = None


@dataclass(slots=True)
class Findings:
    """The first ``MAX_FINDINGS``, and how many more there are."""

    kept: list[Finding] = field(default_factory=list)
    more: int = 0

    def add(self, finding: Finding) -> None:
        """Keeps or counts it."""
        if len(self.kept) < MAX_FINDINGS:
            self.kept.append(finding)
        else:
            self.more += 1
