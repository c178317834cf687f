"""Moves events from the outbox to the sinks: at least once, in the order of each bucket, off the path of any request.

Read, chain, deliver, advance: the cursor of a sink moves only after the sink has acknowledged what is before it, and an event
leaves the outbox only when every sink has it. Each sink has a task of its own, so that one that hangs holds up no other.
While a sink takes nothing, its relay tries again, ever more slowly. Relays share the buckets out among those that live; what one
that died has left is read again by the next, and its events are the same ones, with the same ids and the same place in the chain.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from identity.audit.chain import ChainedEvent, ChainHead
from identity.audit.chain import chained as chained_after
from identity.audit.ports import Cursor, DeadLetter, LeaseLostError, RelayOutbox, Unread
from identity.audit.recorded_event import RecordedEvent
from identity.audit.sink_agreement import all_sinks
from identity.audit.sinks.ports import AuditSink, Delivered, Delivery, Undelivered
from identity.errors import IdentityError, Reason
from identity.readiness import Problem

FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0
DELIVERY_SECONDS = 30.0
"""Shorter than a bucket is leased: nobody else delivers meanwhile."""
HEARTBEAT_SECONDS = 3.0
MAX_EVENTS_AT_ONCE = 4_096

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RelayPace:
    """How a relay reads: at most ``batch`` events of a bucket at once, and every ``poll_seconds`` while there are none."""

    batch: int
    poll_seconds: float


class SinkRelay:
    """Relays to one sink. ``shape`` is what becomes of an event before it goes out: pseudonyms, for instance."""

    def __init__(
        self,
        outbox: RelayOutbox,
        sink: AuditSink,
        *,
        relay: str,
        sinks: Sequence[str],
        pace: RelayPace,
        shape: Callable[[RecordedEvent], RecordedEvent] = lambda event: event,
    ) -> None:
        self._outbox = outbox
        self.sink = sink
        self._relay = relay
        self.sinks = sinks
        """Those that an event waits for: what any relay that lives names, as was seen last."""
        self._pace = pace
        self._shape = shape
        self.buckets: Sequence[int] = ()
        """Its share from the next round on."""
        self.alive: Sequence[str] = ()
        """The relays that live, as was seen last."""
        self._held: Sequence[int] = ()
        self.delivered = 0
        self.problem = ""
        """Why the sink takes nothing; empty while it does."""

    async def run(self) -> None:
        """Relays until cancelled."""
        retry_seconds = FIRST_RETRY_SECONDS
        said_by_sink = ""
        while True:
            wait_seconds: float = 0
            is_store_away = False
            try:
                delivery = await self.relay_once()
            except IdentityError as error:
                is_store_away = error.reason == Reason.STORE_UNAVAILABLE
                delivery = Undelivered(f"the outbox: {error.reason}", error.retry_after_seconds)
            except Exception as error:  # a defect of one sink's relay is no reason to stop the others
                _log.exception("relaying to %s failed", self.sink.name)
                delivery = Undelivered(f"failed: {type(error).__name__}")
            match delivery:
                case None:
                    wait_seconds = self._pace.poll_seconds
                    # That there is nothing is an answer of the store, which was away, and says nothing of the sink.
                    if self.problem != said_by_sink:
                        retry_seconds = FIRST_RETRY_SECONDS
                        self._note(said_by_sink)
                case Delivered():
                    retry_seconds = FIRST_RETRY_SECONDS
                    said_by_sink = ""
                    self._note("")
                case Undelivered():
                    if not is_store_away:
                        said_by_sink = delivery.problem
                    wait_seconds = max(retry_seconds, delivery.retry_after_seconds or 0)
                    retry_seconds = min(retry_seconds * 2, LAST_RETRY_SECONDS)
                    self._note(delivery.problem)
            if wait_seconds:
                await asyncio.sleep(wait_seconds)

    async def relay_once(self) -> Delivery | None:
        """One round over this relay's buckets; ``None`` when there was nothing. Raises ``IdentityError``."""
        await self._take_share()
        batch = max(1, min(self._pace.batch, MAX_EVENTS_AT_ONCE // max(len(self.buckets), 1)))
        unread = await self._outbox.read(
            self.sink.name, self._relay, self.buckets, alive=self.alive, sinks=self.sinks, batch=batch
        )
        if not unread:
            return None
        following, broken = self._chained(unread)
        delivery = await self._deliver([event for _, events in following for event in events])
        if isinstance(delivery, Delivered):
            for each, events in following:
                await self._advance(each, events, delivery.refused)
        return Undelivered(broken) if broken and isinstance(delivery, Delivered) else delivery

    async def close(self) -> None:
        """Leaves its buckets to others, and lets go of the sink. Raises ``IdentityError``."""
        self.buckets = ()
        try:
            await self._take_share()
        finally:
            await self.sink.close()

    async def _take_share(self) -> None:
        # Between two rounds: nothing of what is given up is being delivered.
        given_up = [bucket for bucket in self._held if bucket not in self.buckets]
        self._held = self.buckets
        if given_up:
            await self._outbox.release(self.sink.name, self._relay, given_up)

    def chained(self, unread: Unread) -> Sequence[ChainedEvent]:
        """As the sink gets them."""
        return list(chained_after(unread.cursor.head, map(self._shape, unread.events)))

    def _chained(
        self, unread: Sequence[Unread]
    ) -> tuple[Sequence[tuple[Unread, Sequence[ChainedEvent]]], str]:
        """What can be chained, by bucket, and what keeps a bucket back: an event that has no canonical form has no digest that
        could stand for it, so the bucket waits, and no other."""
        following, broken = [], ""
        for each in unread:
            try:
                following.append((each, self.chained(each)))
            except Exception as error:
                _log.exception("bucket %d has an event that cannot be chained", each.bucket)
                broken = f"bucket {each.bucket} has an event that cannot be chained: {type(error).__name__}"
        return following, broken

    async def _deliver(self, events: Sequence[ChainedEvent]) -> Delivery:
        try:
            async with asyncio.timeout(DELIVERY_SECONDS):
                return await self.sink.deliver(events)
        except TimeoutError:
            return Undelivered(f"no answer in {DELIVERY_SECONDS:.0f} s")
        except Exception as error:  # a defect of one sink is no reason to stop the others
            _log.exception("%s failed", self.sink.name)
            return Undelivered(f"failed: {type(error).__name__}")

    async def _advance(
        self, unread: Unread, events: Sequence[ChainedEvent], refused: Mapping[str, str]
    ) -> None:
        last = events[-1]
        dead = [
            DeadLetter(each, refused[each.event.event_id])
            for each in events
            if each.event.event_id in refused
        ]
        cursor = Cursor(ChainHead(last.event.sequence, last.link), unread.entries[-1])
        try:
            await self._outbox.advance(self.sink.name, self._relay, unread.bucket, cursor, dead, self.sinks)
        except LeaseLostError:
            _log.info("another relay has taken bucket %d over for %s", unread.bucket, self.sink.name)
            return
        self.delivered += len(events) - len(dead)
        for letter in dead:
            _log.error(
                "%s will never take event %s, which is kept aside: %s",
                self.sink.name,
                letter.item.event.event_id,
                letter.problem,
            )

    def _note(self, problem: str) -> None:
        if problem and not self.problem:
            _log.warning("%s takes no audit events; they wait: %s", self.sink.name, problem)
        elif self.problem and not problem:
            _log.info("%s takes audit events again", self.sink.name)
        self.problem = problem


class AuditRelay:
    """One relay: every sink, and its share of the buckets. ``relay`` names it among others."""

    def __init__(
        self, outbox: RelayOutbox, by_sink: Sequence[SinkRelay], *, relay: str, buckets: int
    ) -> None:
        self._outbox = outbox
        self.by_sink = by_sink
        self._relay = relay
        self._buckets = buckets
        self._own = [each.sink.name for each in by_sink]

    async def run(self) -> None:
        """Relays until cancelled."""
        await self.share_out()
        async with asyncio.TaskGroup() as tasks:
            for each in self.by_sink:
                tasks.create_task(each.run())
            while True:
                await asyncio.sleep(HEARTBEAT_SECONDS)
                await self.share_out()

    async def drain(self) -> None:
        """Relays what is there now and returns, for an orderly end; leaves what a sink does not take at once."""
        await asyncio.gather(*(_drained(each) for each in self.by_sink))

    async def close(self) -> None:
        """Leaves its buckets to others, and lets go of the sinks."""
        try:
            for each in self.by_sink:
                await each.close()
            await self._outbox.leave(self._relay)
        except IdentityError:
            _log.info("what this relay had is free for others when its leases end")

    def problems(self) -> Sequence[Problem]:
        """Sinks that take nothing. None of them blocks: events wait, and as long as there is room for them everything else goes on."""
        return [
            Problem("audit_sink_takes_nothing", f"{each.sink.name}: {each.problem}", blocks=False)
            for each in self.by_sink
            if each.problem
        ]

    async def share_out(self) -> None:
        """Says that this relay lives, and takes its share of the buckets."""
        try:
            living = await self._outbox.relays(self._relay, self._own)
        except IdentityError as error:
            _log.warning("the audit relay cannot reach the outbox: %s", error.reason)
            return
        sinks = all_sinks(living)
        for each in self.by_sink:
            # Of a bucket's relays one has to have this sink; another has the bucket for other sinks.
            having = [relay.name for relay in living if each.sink.name in relay.sinks]
            each.sinks = sinks
            each.alive = [relay.name for relay in living]
            each.buckets = share_of(self._relay, having, self._buckets)


def share_of(relay: str, alive: Sequence[str], buckets: int) -> Sequence[int]:
    """The buckets that fall to a relay; all of them, once each, over those that live."""
    if relay not in alive:
        return ()
    return range(alive.index(relay), buckets, len(alive))


async def _drained(relay: SinkRelay) -> None:
    while isinstance(await relay.relay_once(), Delivered):
        pass
