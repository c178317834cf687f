"""Keeps an eye on how much waits in the outbox, and says so before nothing can be issued any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from identity.audit.ports import Backlog, LiveRelay, OutboxGauge, RelayRoster
from identity.audit.sink_agreement import sinks_differ
from identity.errors import IdentityError
from identity.readiness import Problem

LOOK_SECONDS = 2.0
NOTED_AT = 0.5
FILLING_AT = 0.8
FULL_AT = 1.0

_log = logging.getLogger(__name__)


class BacklogWatch:
    """``latest`` is what was seen last; empty at first, and then ``seen`` is ``None``."""

    def __init__(self, gauge: OutboxGauge, roster: RelayRoster, sinks: Sequence[str]) -> None:
        self._gauge = gauge
        self._roster = roster
        self._living: Sequence[LiveRelay] = ()
        self._sinks = sinks
        self.latest = Backlog(events=0, fullest=0.0, oldest_ms=0)
        self._noted = False
        self._has_looked = False

    @property
    def seen(self) -> Backlog | None:
        """What was seen last, if anything was."""
        return self.latest if self._has_looked else None

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Looks once. While the store is away, what was seen last is all that is known."""
        try:
            self.latest = await self._gauge.backlog(self._sinks)
            self._living = await self._roster.living()
        except IdentityError:
            return
        self._has_looked = True
        # Half full is no problem yet; the log says it once, and again when it is over.
        if (self.latest.fullest >= NOTED_AT) is not self._noted:
            self._noted = not self._noted
            state = "more" if self._noted else "less"
            _log.warning(
                "the fullest bucket of the audit outbox is %s than half full (%s)", state, self._whom()
            )

    def problems(self) -> Sequence[Problem]:
        """None of them blocks: revoking goes on, and so does issuing in the other buckets."""
        return [*self._of_room(), *self.differing()]

    def differing(self) -> Sequence[Problem]:
        """That not all relays have the sinks that are named here."""
        return sinks_differ(self._sinks, self._living)

    def _of_room(self) -> Sequence[Problem]:
        latest = self.latest
        if latest.fullest >= FULL_AT:
            return [
                Problem(
                    "audit_outbox_full",
                    f"A bucket of the audit outbox is full, and issues nothing ({self._whom()}). See to the sinks, or to the "
                    "relays: identity audit relay",
                    blocks=False,
                )
            ]
        if latest.fullest >= FILLING_AT:
            return [
                Problem(
                    "audit_outbox_filling",
                    f"The fullest bucket of the audit outbox is {latest.fullest:.0%} full ({self._whom()}); at 100% it issues "
                    "nothing. See to the sinks, or to the relays: identity audit relay",
                    blocks=False,
                )
            ]
        return []

    def _whom(self) -> str:
        waiting = [f"{count} events wait for {sink}" for sink, count in self.latest.behind.items() if count]
        return ", ".join(waiting) or f"{self.latest.events} events wait"
