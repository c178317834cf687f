"""Whose turn it is to sign how far the sinks have got, and what the one before has left for that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from identity.audit.chain import GENESIS, ChainHead
from identity.readiness import Problem

OVERDUE_PERIODS = 5
OVERDUE_MIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LastCheckpoint:
    """How far each sink had got in each bucket when it was last signed, and how many events that tell of checkpoints it may have got
    since. ``at_ms``: when that turn, or one that had nothing to sign, ended, by the clock of the store."""

    heads: Mapping[str, Mapping[int, ChainHead]] = field(default_factory=dict)
    recorded: Mapping[str, int] = field(default_factory=dict)
    at_ms: int = 0

    def serialised(self) -> str:
        """A JSON object."""
        heads = {
            sink: {bucket: [head.sequence, head.link.hex()] for bucket, head in told.items()}
            for sink, told in self.heads.items()
        }
        members = {"heads": heads, "recorded": self.recorded, "at_ms": self.at_ms}
        return json.dumps(members, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str | bytes) -> LastCheckpoint:
        """What ``serialised`` gave; anything else is as if nothing was ever signed."""
        try:
            members = json.loads(text)
            heads = {
                str(sink): {
                    int(bucket): ChainHead(int(number), bytes.fromhex(link))
                    for bucket, (number, link) in told.items()
                }
                for sink, told in members["heads"].items()
            }
            recorded = {str(sink): int(count) for sink, count in members["recorded"].items()}
            return cls(heads, recorded, int(members["at_ms"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()

    def went_back(self, sink: str, heads: Mapping[int, ChainHead]) -> Sequence[int]:
        """The buckets that the sink had got further in, or on another way: the store has lost writes."""
        return [
            bucket
            for bucket, known in self.heads.get(sink, {}).items()
            if (head := heads.get(bucket, GENESIS)) != known and head.sequence <= known.sequence
        ]

    def is_news(self, sink: str, heads: Mapping[int, ChainHead]) -> bool:
        """Whether the sink has got something else since than the events that told of those checkpoints.

        What one bucket has lost and another has got does not cancel out.
        """
        return bool(self.went_back(sink, heads)) or self._got(sink, heads) > self.recorded.get(sink, 0)

    def with_heads(self, sink: str, heads: Mapping[int, ChainHead]) -> LastCheckpoint:
        """Where these are no news: with the links of what tells of checkpoints, so that it is seen when those are lost."""
        left = self.recorded.get(sink, 0) - self._got(sink, heads)
        return LastCheckpoint({**self.heads, sink: heads}, {**self.recorded, sink: left})

    def _got(self, sink: str, heads: Mapping[int, ChainHead]) -> int:
        known = self.heads.get(sink, {})
        return sum(
            max(head.sequence - known.get(bucket, GENESIS).sequence, 0) for bucket, head in heads.items()
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """``is_taken``: whoever asked has it; else somebody has. ``now_ms`` is the time of the store."""

    is_taken: bool
    last: LastCheckpoint
    now_ms: int


@dataclass(slots=True)
class OverdueWatch:
    """Whether turns end well, whoever takes them: one whose server cannot sign is over all the same. Counted from when it was first asked."""

    since_ms: int | None = None
    overdue_seconds: float = 0.0

    def look(self, turn: Turn, period_seconds: float) -> None:
        """After having asked for a turn."""
        self.since_ms = turn.now_ms if self.since_ms is None else self.since_ms
        waited_seconds = (turn.now_ms - max(turn.last.at_ms, self.since_ms)) / 1000
        bound = max(OVERDUE_PERIODS * period_seconds, OVERDUE_MIN_SECONDS)
        self.overdue_seconds = waited_seconds if waited_seconds > bound else 0.0

    def has_ended_well(self) -> None:
        """The turn of this server."""
        self.overdue_seconds = 0.0

    def problems(self) -> Sequence[Problem]:
        """It does not block: what was exported is only not proved yet."""
        if not self.overdue_seconds:
            return []
        return [
            Problem(
                "audit_checkpoints_overdue",
                f"No server has signed how far the sinks have got for {self.overdue_seconds:.0f} s: what is exported since cannot be "
                "proved. The log of the servers says why",
                blocks=False,
            )
        ]


class CheckpointTurns(Protocol):
    """Whose turn it is to sign, among all servers."""

    async def take(self, period_ms: int) -> Turn:
        """Takes the turn of this period, if nobody has it. Raises ``STORE_UNAVAILABLE``."""
        ...

    async def done(self, last: LastCheckpoint) -> None:
        """Leaves word for whoever has the next turn, with the time. Raises ``STORE_UNAVAILABLE``."""
        ...
