"""Whose checkpoints count, and what they prove. Pure.

The auditor names keys (a JWK set that was fetched or kept, or ids of keys: an id is the thumbprint of its key). Keys leave the
published set, so these are seldom all. The others are found in the audit itself:

1. A key that the auditor has named counts.
2. An event ``key.created`` or ``key.activated`` makes the key that it names count, if a checkpoint of a key that counts proves
   that event: whoever holds that key says that the chain was so. A newer checkpoint proves all events before it, so that the keys of
   today vouch for those of before; and the first event of a new key, proved by its predecessor, vouches forward.
3. A key that a ``key.revoked`` names counts only if the auditor has named it: others may have had it.

What explains that an event is missing counts by the same measure: a checkpoint that counts has to prove the event that says so.

A chain is proved as far as a checkpoint that counts has found it equal. Nobody who lacks such a key can write a chain anew so
that this is not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from identity.audit.explanations import Explained, KeyNamed, Numbers, Place
from identity.audit.findings import Fault, Finding
from identity.audit.recorded_event import timestamp
from identity.audit.runs import Proof, Run
from identity.audit.verification import Differing, Known, Walked


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
    chains: Mapping[tuple[str, int], Walked] = field(default_factory=dict)

    def proved(self, walked: Walked) -> Proved | None:
        """How far the chain is proved, and back to where."""
        ends = [(proof, run.begins_at) for run in walked.runs if (proof := self._furthest(run))]
        if not ends:
            return None
        furthest, begins_at = max(ends)
        return Proved(Numbers(begins_at, furthest.sequence), furthest.time_ms, furthest.issued_at_seconds)

    def checked_at_seconds(self, walked: Walked) -> int | None:
        """When a key that counts has signed last how far this chain has got; 0 where no such time is believed."""
        return max(
            (at for kid, at in walked.claimed_at_seconds.items() if kid in self.counting), default=None
        )

    def proves(self, place: Place) -> bool:
        """Whether the event that stands there is proved."""
        walked = self.chains.get((place.sink, place.bucket))
        run = None if walked is None else walked.explaining.get((place.sequence, place.link))
        return (
            run is not None
            and (furthest := self._furthest(run)) is not None
            and furthest.sequence >= place.sequence
        )

    def known(self, walked: Walked) -> Known:
        """Up to where each run of the chain is proved."""
        return {
            (run.numbers.first, run.first_link): proof.sequence
            for run in walked.runs
            if (proof := self._furthest(run))
        }

    def findings(self, walked: Walked) -> Iterable[Finding]:
        """What checkpoints that count say against the chain."""
        differing = [each for kid, each in walked.differing.items() if kid in self.counting]
        if differing:
            yield _differs(walked, differing)
        beyond = [proof for kid, proof in walked.beyond.items() if kid in self.counting]
        if beyond:
            yield from self._cut_off(walked, max(beyond))

    def _furthest(self, run: Run) -> Proof | None:
        return max((proof for kid, proof in run.proofs.items() if kid in self.counting), default=None)

    def _cut_off(self, walked: Walked, furthest: Proof) -> Iterable[Finding]:
        if furthest.sequence <= walked.ends_at:
            return
        text = f"cut off: the sink had acknowledged events up to {furthest.sequence}, a checkpoint says"
        proved = self.proved(walked)
        since_ms = proved.last_ms if proved else 0
        yield Finding(
            Fault.MISSING,
            text,
            walked.sink,
            walked.bucket,
            Numbers(walked.ends_at + 1, furthest.sequence),
            between_ms=(since_ms, max(since_ms, furthest.issued_at_seconds * 1000)),
        )


def trust(given: Collection[str], chains: Sequence[Walked], explained: Collection[Explained]) -> Trust:
    """By the rules above; ``given`` are the thumbprints of the keys that the auditor has named."""
    found = Trust(set(given), {(walked.sink, walked.bucket): walked for walked in chains})
    named = [(place, says) for place, says in explained if isinstance(says, KeyNamed)]
    # That a key was revoked is believed of anybody: it takes trust away, and gives none.
    revoked = {says.kid for _, says in named if says.revoked}
    open_names = [(place, says.kid) for place, says in named if says.kid not in revoked]
    while news := {kid for place, kid in open_names if kid not in found.counting and found.proves(place)}:
        found.counting |= news
    return found


def _differs(walked: Walked, differing: Sequence[Differing]) -> Finding:
    first = min((each.first for each in differing), key=lambda claim: claim.sequence)
    count = sum(each.count for each in differing)
    more = f", and {count - 1} more checkpoints differ" if count > 1 else ""
    text = (
        f"the checkpoint that {first.kid} has signed at {timestamp(first.issued_at_seconds * 1000)} has another link here: "
        f"events up to this one were written anew{more}"
    )
    lasts_seconds = [each.last_issued_at_seconds for each in differing]
    return Finding(
        Fault.CHECKPOINT_DIFFERS,
        text,
        walked.sink,
        walked.bucket,
        Numbers(first.sequence, first.sequence),
        between_ms=(0, max(lasts_seconds) * 1000) if all(lasts_seconds) else None,
    )
