"""Whose checkpoints count, and what they prove. Pure.

The auditor names keys (a JWK set that was fetched or kept, or ids of keys: an id is the thumbprint of its key). Keys leave the
published set, so these are seldom all. The others are found in the audit itself:

1. A key that the auditor has named counts.
2. An event ``key.created`` or ``key.activated`` makes the key that it names count, if a checkpoint of a key that counts proves
   that event: whoever holds that key says that the chain was so. A newer checkpoint proves all events before it, so that the keys of
   today vouch for those of before; and the first event of a new key, proved by its predecessor, vouches forward.
3. A key that a ``key.revoked`` names counts only if the auditor has named it: others may have had it.

A chain is proved as far as a checkpoint that counts has found it equal. Nobody who lacks such a key can write a chain anew so
that this is not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from identity.audit.explanations import NamedKey, Numbers
from identity.audit.findings import Fault, Finding
from identity.audit.verification import Claim, Proof, Walked


@dataclass(frozen=True, slots=True)
class Proved:
    """How much of a chain is proved: these numbers, by a checkpoint of that moment."""

    numbers: Numbers
    last_ms: int
    issued_at_seconds: int


@dataclass(slots=True)
class Trust:
    """``counting``: the keys that count, in the end."""

    counting: set[str] = field(default_factory=set)

    def proved(self, walked: Walked) -> Proved | None:
        """The last run of the chain that a checkpoint proves something of."""
        for run in reversed(walked.runs):
            proofs = [proof for kid, proof in run.proofs.items() if kid in self.counting]
            if proofs:
                furthest = max(proofs)
                return Proved(
                    Numbers(run.numbers.first, furthest.sequence),
                    furthest.time_ms,
                    furthest.issued_at_seconds,
                )
        return None

    def proves(self, walked: Walked, sequence: int) -> bool:
        """Whether the event of that number is proved."""
        return any(
            run.numbers.first <= sequence <= proof.sequence
            for run in walked.runs
            for kid, proof in run.proofs.items()
            if kid in self.counting
        )

    def findings(self, walked: Walked) -> Iterable[Finding]:
        """What checkpoints that count say against the chain."""
        differing = [claim for claim in walked.differing if claim.kid in self.counting]
        if differing:
            yield _differs(walked, differing)
        beyond = [proof for kid, proof in walked.beyond.items() if kid in self.counting]
        if beyond:
            yield from _cut_off(walked, max(beyond))


def trust(
    given: Collection[str], chains: Sequence[Walked], named: Collection[NamedKey], revoked: Collection[str]
) -> Trust:
    """By the rules above; ``given`` are the thumbprints of the keys that the auditor has named."""
    found = Trust(set(given))
    by_name = {(walked.sink, walked.bucket): walked for walked in chains}
    open_names = [key for key in named if key.kid not in revoked]
    while news := {
        key.kid
        for key in open_names
        if key.kid not in found.counting
        and (walked := by_name.get((key.sink, key.bucket))) is not None
        and found.proves(walked, key.sequence)
    }:
        found.counting |= news
    return found


def _differs(walked: Walked, differing: Sequence[Claim]) -> Finding:
    first = differing[0]
    more = f", and {len(differing) - 1} more checkpoints differ" if len(differing) > 1 else ""
    text = (
        f"the checkpoint that {first.kid} has signed at {first.issued_at_seconds} has another link here: events up to "
        f"this one were written anew{more}"
    )
    return Finding(
        Fault.CHECKPOINT_DIFFERS,
        text,
        walked.sink,
        walked.bucket,
        Numbers(first.sequence, first.sequence),
        between_ms=(0, first.issued_at_seconds * 1000),
    )


def _cut_off(walked: Walked, furthest: Proof) -> Iterable[Finding]:
    last = walked.runs[-1].numbers.last if walked.runs else 0
    if furthest.sequence <= last:
        return
    text = f"cut off: the sink had acknowledged events up to {furthest.sequence}, a checkpoint says"
    numbers = Numbers(last + 1, furthest.sequence)
    between = (walked.last_ms, max(walked.last_ms, furthest.issued_at_seconds * 1000))
    yield Finding(Fault.MISSING, text, walked.sink, walked.bucket, numbers, between_ms=between)
