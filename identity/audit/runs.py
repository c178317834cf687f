"""Pieces of a chain that its hashes hold together, and what a signature over the end of one proves of it.

A link is made of everything before it. So a checkpoint that finds a link equal proves each event on the way to it, and nothing
beside that way: not a second event under the same number, not what stands before an altered event or a gap.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from identity.audit.explanations import Numbers

MAX_RUNS = 10_000
"""Of a chain; what comes after more is taken to be unproved."""


class Proof(NamedTuple):
    """A claim that was found equal, or is about what comes after the end. ``time_ms`` is that of the event."""

    sequence: int
    issued_at_seconds: int
    time_ms: int = 0


@dataclass(slots=True, eq=False)
class Run:
    """Events of which each follows the one before. ``before``: the run that this one goes on from, where a chain forks.

    ``proofs`` are the furthest equal claims, by the key that has signed them; ``proved_until``: the last number that one which
    counts has proved, as far as is known while walking.
    """

    numbers: Numbers
    first_link: bytes
    last_ms: int
    before: Run | None = None
    proved_until: int = 0
    proofs: dict[str, Proof] = field(default_factory=dict)

    @property
    def begins_at(self) -> int:
        """Where the way begins whose end this run is."""
        run = self
        while run.before is not None:
            run = run.before
        return run.numbers.first

    def prove(self, kid: str, proof: Proof) -> None:
        """Notes a claim, here and on the way to here."""
        self.proofs[kid] = proof
        run = self.before
        while run is not None and run.proofs.get(kid, _NONE).sequence < run.numbers.last:
            run.proofs[kid] = Proof(run.numbers.last, proof.issued_at_seconds, run.last_ms)
            run = run.before


class Way(NamedTuple):
    """How a link was come by: the run that ends there, and how many since then are not there but were refused.

    ``run``: ``None`` where nothing is known of what is before. ``doubted``: of the refused, those whose explanation does not count.
    """

    run: Run | None = None
    refused: int = 0
    doubted: int = 0


_NONE = Proof(0, 0)
