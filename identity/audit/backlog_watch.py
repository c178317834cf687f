"""Keeps an eye on how much waits in the outbox, and says so before nothing can be issued any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from identity.audit.ports import Backlog, LiveRelay, Oldest, OutboxGauge, RelayRoster
from identity.audit.sink_agreement import sinks_differ
from identity.errors import IdentityError
from identity.readiness import Problem

LOOK_SECONDS = 2.0
NOTED_AT = 0.5
FILLING_AT = 0.8
FULL_AT = 1.0

_log = logging.getLogger(__name__)


class _Waiting:
    """For how long the oldest events of some buckets have waited: by the store's clock, and at least since they were first seen here.

    The store's clock may have gone back, or may be wrong; what waits for long must not look new because of that.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._first_seen: Mapping[int, tuple[str, float]] = {}
        self._since: float | None = None

    def look(self, oldest: Mapping[int, Oldest]) -> None:
        now = self._monotonic()
        before = self._first_seen
        self._first_seen = {
            bucket: before[bucket]
            if bucket in before and before[bucket][0] == each.place
            else (each.place, now)
            for bucket, each in oldest.items()
        }
        self._since = min(
            (min(self._first_seen[bucket][1], now - each.age_ms / 1000) for bucket, each in oldest.items()),
            default=None,
        )

    @property
    def seconds(self) -> float:
        """Of the one that has waited longest; 0 for none."""
        since = self._since  # metrics are read by other threads
        return 0.0 if since is None else self._monotonic() - since


class BacklogWatch:
    """``latest`` is what was seen last; empty at first, and then ``seen`` is ``None``."""

    def __init__(
        self,
        gauge: OutboxGauge,
        roster: RelayRoster,
        sinks: Sequence[str],
        monotonic: Callable[[], float],
    ) -> None:
        self._gauge = gauge
        self._roster = roster
        self._living: Sequence[LiveRelay] = ()
        self._sinks = sinks
        self.latest = Backlog(events=0, fullest=0.0)
        self._waiting = _Waiting(monotonic)
        self._waiting_for = {sink: _Waiting(monotonic) for sink in sinks}
        self._noted = False
        self._has_looked = False

    @property
    def seen(self) -> Backlog | None:
        """What was seen last, if anything was."""
        return self.latest if self._has_looked else None

    @property
    def oldest_seconds(self) -> float:
        """For how long the oldest event has waited; 0 for none."""
        return self._waiting.seconds

    @property
    def oldest_seconds_of(self) -> Mapping[str, float]:
        """For how long the oldest event has waited that a sink does not have."""
        return {sink: waiting.seconds for sink, waiting in self._waiting_for.items()}

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
        self._waiting.look(self.latest.oldest)
        for sink, waiting in self._waiting_for.items():
            waiting.look(self.latest.oldest_of[sink])
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
