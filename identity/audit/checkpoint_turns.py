"""Whose turn it is to sign how far the sinks have got, and what the one before has left for that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from identity.audit.chain import ChainHead


@dataclass(frozen=True, slots=True)
class LastCheckpoint:
    """Up to which sequence number each sink had got in each bucket when it was last signed, and how many checkpoints were recorded
    right after that."""

    sequences: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    recorded: int = 0

    def serialised(self) -> str:
        """A JSON object."""
        return json.dumps({"sequences": self.sequences, "recorded": self.recorded})

    @classmethod
    def parse(cls, text: str | bytes) -> LastCheckpoint:
        """What ``serialised`` gave; anything else is as if nothing was ever signed."""
        try:
            members = json.loads(text)
            sequences = {
                str(sink): {int(bucket): int(number) for bucket, number in told.items()}
                for sink, told in members["sequences"].items()
            }
            return cls(sequences, int(members["recorded"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()

    def is_news(self, sink: str, heads: Mapping[int, ChainHead]) -> bool:
        """Whether the sink has got more since than the events that told of those checkpoints."""
        known = self.sequences.get(sink, {})
        return sum(head.sequence - known.get(bucket, 0) for bucket, head in heads.items()) > self.recorded


class CheckpointTurns(Protocol):
    """Whose turn it is to sign, among all servers."""

    async def take(self, period_ms: int) -> LastCheckpoint | None:
        """Takes the turn of this period; ``None``: somebody has it. Raises ``STORE_UNAVAILABLE``."""
        ...

    async def done(self, last: LastCheckpoint) -> None:
        """Leaves word for whoever has the next turn. Raises ``STORE_UNAVAILABLE``."""
        ...
