"""Whose turn it is to sign how far the sinks have got, and what the one before has left for that."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from identity.audit.chain import GENESIS, ChainHead


@dataclass(frozen=True, slots=True)
class LastCheckpoint:
    """How far each sink had got in each bucket when it was last signed, and how many events that tell of checkpoints it may have got
    since."""

    heads: Mapping[str, Mapping[int, ChainHead]] = field(default_factory=dict)
    recorded: Mapping[str, int] = field(default_factory=dict)

    def serialised(self) -> str:
        """A JSON object."""
        heads = {
            sink: {bucket: [head.sequence, head.link.hex()] for bucket, head in told.items()}
            for sink, told in self.heads.items()
        }
        return json.dumps({"heads": heads, "recorded": self.recorded}, separators=(",", ":"))

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
            return cls(heads, recorded)
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


class CheckpointTurns(Protocol):
    """Whose turn it is to sign, among all servers."""

    async def take(self, period_ms: int) -> LastCheckpoint | None:
        """Takes the turn of this period; ``None``: somebody has it. Raises ``STORE_UNAVAILABLE``."""
        ...

    async def done(self, last: LastCheckpoint) -> None:
        """Leaves word for whoever has the next turn. Raises ``STORE_UNAVAILABLE``."""
        ...
