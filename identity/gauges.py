"""What can be looked at: the gauges of a process, each from what its parts have in memory.

Nothing here asks the store: a scrape waits for nobody, and tells what was so at the last look of whoever looks anyway.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from prometheus_client import Histogram

from identity.audit.backlog_watch import BacklogWatch
from identity.audit.ports import Backlog
from identity.audit.recorder import RefusalRecorder
from identity.audit.relay.relay import AuditRelay
from identity.keys.keyring import KeyRecord, KeyState, SecretPurpose
from identity.keys.plan import steps_to_come
from identity.keys.secrets import accepted, in_use
from identity.keys.service import KeyService
from identity.readiness import Problem
from identity.sessions.recent import RecentSessions
from identity.store.redis.connection import LaneWatch
from identity.store.redis.topology import StoreConnection
from identity.telemetry import instruments as table
from identity.telemetry.meters import Labels, Meters
from identity.verifiers.feed import VerifierFeed
from identity.verifiers.roster import Roster

CALLS, BACKGROUND = "calls", "background"
_DB_SYSTEM, _DB_OPERATION = "redis", "PIPELINE"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class StoreMeters:
    """Counts what goes over the lanes to the store: before there is a connection to look at."""

    def __init__(self, meters: Meters) -> None:
        self._meters = meters
        self._durations = meters.histogram(table.STORE_DURATION)
        self._calls = meters.counter(table.STORE_CALLS)

    def watch(self, lane: str) -> LaneWatch:
        """For the round trips of one lane."""
        count = self._calls.labels(lane).inc
        succeeded = self._child(lane, "")

        def over(calls: int, seconds: float, failure: str) -> None:
            count(calls)
            (self._child(lane, failure) if failure else succeeded).observe(seconds)

        return over

    def look_at(self, connection: StoreConnection) -> None:
        """Observes the connections, and what waits for them."""

        def connections() -> Mapping[Labels, float]:
            seen: dict[Labels, float] = {}
            for server in connection.servers():
                idle, used = server.connections
                pool = server.name or "store"
                seen |= {(pool, "idle"): idle, (pool, "used"): used}
            return seen

        def waiting() -> Mapping[Labels, float]:
            servers = connection.servers()
            return {
                (CALLS,): sum(server.calls.waiting for server in servers),
                (BACKGROUND,): sum(server.background.waiting for server in servers),
            }

        self._meters.observe(table.STORE_CONNECTIONS, connections)
        self._meters.observe(table.STORE_WAITING, waiting)

    def _child(self, lane: str, failure: str) -> Histogram:
        return self._durations.labels(_DB_SYSTEM, _DB_OPERATION, lane, failure)


def observe_keys(meters: Meters, keys: KeyService) -> None:
    """Ages of the keys, and what comes next."""

    def of_active(seconds: Callable[[KeyRecord, datetime], float]) -> Callable[[], Mapping[Labels, float]]:
        def observed() -> Mapping[Labels, float]:
            active = keys.keyring.active
            return {} if active is None else {(active.kid,): seconds(active, keys.clock.now())}

        return observed

    def by_state() -> Mapping[Labels, float]:
        found = Counter(key.state for key in keys.keyring.published)
        states = (KeyState.PENDING, KeyState.ACTIVE, KeyState.RETIRED)
        return {(state.value.lower(),): found[state] for state in states}

    def next_rotation() -> float | None:
        now = keys.clock.now()
        coming = [
            step.at
            for step in steps_to_come(keys.keyring, now, keys.schedule)
            if step.state is KeyState.ACTIVE
        ]
        return (min(coming) - now).total_seconds() if coming else None

    def secret_age() -> float | None:
        kept = accepted(keys.keyring, SecretPurpose.REFRESH_TOKEN)
        now = keys.clock.now()
        return (now - in_use(kept, now).created_at).total_seconds() if kept else None

    def laggards() -> float:
        return len({name for names in keys.laggards.values() for name in names})

    meters.observe(table.KEYS, by_state)
    meters.observe(
        table.SIGNING_KEY_AGE, of_active(lambda key, now: (now - key.activates_at).total_seconds())
    )
    meters.observe(
        table.SIGNING_KEY_TIME_LEFT, of_active(lambda key, now: (key.retires_at - now).total_seconds())
    )
    meters.observe_one(table.NEXT_ROTATION, next_rotation)
    meters.observe_one(table.REFRESH_SECRET_AGE, secret_age)
    meters.observe_one(table.VERIFIER_LAGGARDS, laggards)


def observe_verifiers(meters: Meters, roster: Roster, feed: VerifierFeed) -> None:
    """Who watches this server, and how far behind."""

    def by_state() -> Mapping[Labels, float]:
        verifiers = roster.verifiers()
        lost = sum(verifier.lost_at is not None for verifier in verifiers)
        return {("connected",): len(verifiers) - lost, ("lost",): lost}

    def behind() -> float:
        last = feed.log.last_number
        return max(
            (
                last - max(verifier.applied_number, 0)
                for verifier in roster.verifiers()
                if verifier.lost_at is None
            ),
            default=0,
        )

    meters.observe(table.VERIFIERS, by_state)
    meters.observe_one(table.VERIFIERS_BEHIND, behind)


def observe_backlog(meters: Meters, watch: BacklogWatch) -> None:
    """What waits in the outbox, as it was seen last; nothing before the first look."""

    def seen(value: Callable[[Backlog], float]) -> Callable[[], float | None]:
        def observed() -> float | None:
            backlog = watch.seen
            return None if backlog is None else value(backlog)

        return observed

    def behind() -> Mapping[Labels, float]:
        backlog = watch.seen
        return {} if backlog is None else {(sink,): count for sink, count in backlog.behind.items()}

    def lag() -> Mapping[Labels, float]:
        return (
            {(sink,): age for sink, age in watch.oldest_seconds_of.items()} if watch.seen is not None else {}
        )

    meters.observe_one(table.OUTBOX_EVENTS, seen(lambda backlog: backlog.events))
    meters.observe_one(table.OUTBOX_FULLEST, seen(lambda backlog: backlog.fullest))
    meters.observe_one(table.OUTBOX_OLDEST_AGE, seen(lambda _: watch.oldest_seconds))
    meters.observe_one(table.DEAD_LETTERS, seen(lambda backlog: backlog.dead_letters))
    meters.observe(table.SINK_BEHIND, behind)
    meters.observe(table.SINK_LAG, lag)


def observe_relay(meters: Meters, relay: AuditRelay) -> None:
    """What this relay has delivered, and whether its sinks take anything."""
    meters.observe(
        table.SINK_UP, lambda: {(each.sink.name,): float(not each.problem) for each in relay.by_sink}
    )
    meters.observe(
        table.SINK_DELIVERED, lambda: {(each.sink.name,): each.delivered for each in relay.by_sink}
    )


def observe_refusals(meters: Meters, recorder: RefusalRecorder) -> None:
    """What is on its way to the outbox, and what was counted instead."""
    meters.observe_one(table.REFUSALS_QUEUED, lambda: recorder.queued)
    meters.observe_one(table.REFUSALS_FOLDED, lambda: recorder.folded)


def observe_sessions(meters: Meters, recent: RecentSessions) -> None:
    """How many sessions are in use."""
    meters.observe(
        table.ACTIVE_SESSIONS, lambda: {(window,): count for window, count in recent.latest.items()}
    )


def observe_health(meters: Meters, problems: Callable[[], Sequence[Problem]]) -> None:
    """Readiness as it was found last."""
    meters.observe_one(table.READY, lambda: float(not any(problem.blocks for problem in problems())))
    meters.observe(table.PROBLEM, lambda: {(problem.name,): 1.0 for problem in problems()})


def observe_process(meters: Meters) -> None:
    """What the process uses."""
    began = time.monotonic()

    def cpu() -> Mapping[Labels, float]:
        used = os.times()
        return {("user",): used.user, ("system",): used.system}

    meters.observe(table.CPU_TIME, cpu)
    meters.observe_one(table.MEMORY_USAGE, _resident_bytes)
    meters.observe_one(table.UPTIME, lambda: time.monotonic() - began)


def _resident_bytes() -> float:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:
        # Where there is no such file: the highest it ever was, in KiB but on macOS.
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest if sys.platform == "darwin" else highest * 1024
