"""Once in a while, one of the servers signs how far the chain of each sink has got, and has that recorded.

The servers take turns: whoever comes first in a period has it, and where that one dies, the period passes and the next is somebody's.
For a sink that has got nothing since but what tells of checkpoints, nothing is signed, so that an idle service stays idle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from identity.audit import checkpoints
from identity.audit.checkpoint_turns import CheckpointTurns, LastCheckpoint, OverdueWatch
from identity.audit.event import Circumstances, Event, EventType, Outcome
from identity.audit.ports import EventOutbox, OutboxGauge, RelayRoster, SinkHeads
from identity.audit.sink_agreement import all_sinks
from identity.errors import IdentityError
from identity.keys.ports import NoActiveKeyError, Signer, SignerUnavailableError

ASK_SHARE_OF_PERIOD = 10
MIN_ASK_SECONDS = 0.1
MAX_BUCKETS_TOLD = 10

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Signing:
    """With what a checkpoint is signed. ``signer`` raises ``NoActiveKeyError``; ``public_jwk`` is the public half of a key by its id."""

    issuer: str
    signer: Callable[[], Signer]
    public_jwk: Callable[[str], Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class CheckpointWriter:
    """Signs the chains of ``sinks``, and of every other that a relay names: whoever verifies one needs checkpoints of it."""

    gauge: OutboxGauge
    outbox: EventOutbox
    roster: RelayRoster
    turns: CheckpointTurns
    signing: Signing
    sinks: Sequence[str]
    period_seconds: float
    overdue: OverdueWatch = field(default_factory=OverdueWatch)

    async def run(self) -> None:
        """Takes turns until cancelled."""
        pause = max(self.period_seconds / ASK_SHARE_OF_PERIOD, MIN_ASK_SECONDS)
        while True:
            await asyncio.sleep(pause)
            try:
                await self.take_turn()
            except IdentityError as error:
                _log.debug("no checkpoint was recorded: %s", error.reason)
            except NoActiveKeyError:
                # Readiness tells of it, and the next period may be better.
                _log.warning("no checkpoint was signed: no key signs")
            except SignerUnavailableError as error:
                _log.warning("no checkpoint was signed: %s", error)
            except Exception:
                _log.exception("no checkpoint was signed")

    async def take_turn(self) -> int:
        """Signs and records what is new, if it is this server's turn; how many checkpoints that were.

        Raises ``NoActiveKeyError``, ``SignerUnavailableError`` and ``IdentityError``.
        """
        turn = await self.turns.take(round(self.period_seconds * 1000))
        self.overdue.look(turn, self.period_seconds)
        if not turn.is_taken:
            return 0
        last = turn.last
        sinks = sorted({*self.sinks, *all_sinks(await self.roster.living())})
        found = await self.gauge.heads(sinks)
        for sink, told in found.items():
            if lost := last.went_back(sink, told.heads):
                _log.warning(
                    "sink %s: the chain is not what was signed of it in %d buckets (%s): the store has lost writes",
                    sink,
                    len(lost),
                    ", ".join(map(str, lost[:MAX_BUCKETS_TOLD])),
                )
        news = {sink: told for sink, told in found.items() if told.heads and last.is_news(sink, told.heads)}
        if not news:
            await self._note_quiet(last, found)
            return 0
        events = [event for sink, told in news.items() for event in await self._signed(sink, told)]
        refused = await self.outbox.append(events)
        if refused:
            _log.warning("%d checkpoints found no room in the outbox", len(refused))
            return len(events) - len(refused)
        heads = {sink: told.heads for sink, told in found.items()}
        await self._end(LastCheckpoint(heads, dict.fromkeys(heads, len(events))))
        return len(events)

    async def _end(self, last: LastCheckpoint) -> None:
        await self.turns.done(last)
        self.overdue.has_ended_well()

    async def _note_quiet(self, last: LastCheckpoint, found: Mapping[str, SinkHeads]) -> None:
        """That sinks have got what tells of checkpoints, with its place in their chains."""
        noted = last
        for sink, told in found.items():
            noted = noted.with_heads(sink, told.heads)
        await self._end(noted)

    async def _signed(self, sink: str, told: SinkHeads) -> Sequence[Event]:
        signer = self.signing.signer()
        public_jwk = self.signing.public_jwk(signer.kid)
        if public_jwk is None:
            raise NoActiveKeyError
        signing_inputs = checkpoints.signing_inputs(
            issuer=self.signing.issuer,
            # A whole second that was over.
            issued_at_seconds=(told.until_ms - 1) // 1000,
            sink=sink,
            heads=told.heads,
            algorithm=signer.algorithm,
            public_jwk=public_jwk,
        )
        return [
            Event(
                EventType.CHECKPOINT,
                Outcome.SUCCESS,
                Circumstances(
                    "",
                    "",
                    detail=f"sink {sink}",
                    key_id=signer.kid,
                    checkpoint=checkpoints.compact(each, await signer.sign(each)),
                ),
            )
            for each in signing_inputs
        ]
