"""Pages of ``/metrics`` as a service writes them, made from the table of instruments: a small service that only counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from identity.telemetry import instruments as table
from identity.telemetry.instruments import INSTRUMENTS, Instrument, Kind, Where

REFRESH = "grpc_identity.v1.IdentityService/Refresh"
ISSUE = "grpc_identity.v1.IdentityService/IssueTokens"
WATCH = "grpc_identity.v1.IdentityService/WatchVerifierState"


class CountingProcess:
    """One process; ``add``, ``set`` and ``observe`` as it lives, ``page`` whenever it is scraped."""

    def __init__(self, where: Where = Where.SERVER) -> None:
        self.registry = CollectorRegistry()
        self._metrics: dict[Instrument, Any] = {
            each: self._made(each) for each in INSTRUMENTS if each.where in {where, Where.BOTH}
        }

    def _made(self, each: Instrument) -> Any:
        common = (each.prometheus_base, each.description, each.labels)
        match each.kind:
            case Kind.COUNTER:
                return Counter(*common, registry=self.registry)
            case Kind.HISTOGRAM:
                return Histogram(
                    *common, registry=self.registry, buckets=each.buckets or Histogram.DEFAULT_BUCKETS
                )
            case _:
                return Gauge(*common, registry=self.registry)

    def _of(self, instrument: Instrument, labels: tuple[str, ...]) -> Any:
        metric = self._metrics[instrument]
        return metric.labels(*labels) if labels else metric

    def add(self, instrument: Instrument, *labels: str, count: float = 1) -> None:
        self._of(instrument, labels).inc(count)

    def set(self, instrument: Instrument, *labels: str, to: float) -> None:
        self._of(instrument, labels).set(to)

    def call(
        self, method: str, *, seconds: float = 0.003, status: str = "OK", reason: str = "", times: int = 1
    ) -> None:
        for _ in range(times):
            self._of(table.CALL_DURATION, ("grpc", method, status, reason)).observe(seconds)

    def round_trip(self, *, seconds: float = 0.0004, error: str = "", times: int = 1) -> None:
        for _ in range(times):
            self._of(table.STORE_DURATION, ("redis", "PIPELINE", "calls", error)).observe(seconds)

    def page(self) -> str:
        return generate_latest(self.registry).decode()


def a_busy_server() -> CountingProcess:
    """A server some hours into its day; nothing is wrong but a session that was stolen."""
    made = CountingProcess()
    gauges: Mapping[tuple[Any, ...], float] = {
        (table.CALLS_UNDER_WAY,): 3,
        (table.HIGHEST_ADDRESS_FAILURES,): 4,
        (table.ACTIVE_SESSIONS, "15m"): 1830,
        (table.ACTIVE_SESSIONS, "24h"): 21_406,
        (table.KEYS, "pending"): 1,
        (table.KEYS, "active"): 1,
        (table.KEYS, "retired"): 1,
        (table.SIGNING_KEY_AGE, "Qm3kT9wq1xYz7Lr0"): 88.6 * 86_400,
        (table.SIGNING_KEY_TIME_LEFT, "Qm3kT9wq1xYz7Lr0"): 1.4 * 86_400,
        (table.NEXT_ROTATION,): 0.4 * 86_400,
        (table.REFRESH_SECRET_AGE,): 31 * 86_400,
        (table.OUTBOX_EVENTS,): 5_312,
        (table.OUTBOX_FULLEST,): 0.56,
        (table.OUTBOX_OLDEST_AGE,): 21,
        (table.DEAD_LETTERS,): 0,
        (table.SINK_BEHIND, "otlp"): 5_312,
        (table.SINK_BEHIND, "file"): 12,
        (table.SINK_LAG, "otlp"): 21,
        (table.SINK_LAG, "file"): 0.2,
        (table.VERIFIERS, "connected"): 14,
        (table.VERIFIERS, "lost"): 1,
        (table.VERIFIERS_BEHIND,): 2,
        (table.VERIFIER_LAGGARDS,): 0,
        (table.STORE_CONNECTIONS, "store", "idle"): 3,
        (table.STORE_CONNECTIONS, "store", "used"): 5,
        (table.STORE_WAITING, "calls"): 0,
        (table.READY,): 1,
        (table.MEMORY_USAGE,): 148 * 1024 * 1024,
        (table.UPTIME,): 5 * 3600 + 420,
    }
    for (instrument, *labels), value in gauges.items():
        made.set(instrument, *labels, to=value)
    totals = {"ROTATED": 48_211, "REPEATED": 310, "EXPIRED": 122, "REVOKED": 61, "REUSED": 2, "UNKNOWN": 7}
    for verdict, total in totals.items():
        made.add(table.REFRESHES, verdict, count=total)
    for kind, total in {"session": 412, "subject": 9, "reuse": 2}.items():
        made.add(table.REVOCATIONS, kind, count=total)
    return made


def a_second_of(server: CountingProcess, load: float = 1.0) -> None:
    """What happens to it in a second or so."""
    count = round(24 * load)
    server.call(REFRESH, seconds=0.004, times=count)
    server.call(REFRESH, seconds=0.03, times=max(count // 12, 1))
    server.call(ISSUE, seconds=0.005, times=max(count // 6, 1))
    server.call(REFRESH, status="UNAUTHENTICATED", reason="REFRESH_TOKEN_EXPIRED", seconds=0.002)
    server.add(table.REFRESHES, "ROTATED", count=count)
    server.add(table.REFRESHES, "EXPIRED")
    server.round_trip(times=count)
    server.add(table.CPU_TIME, "user", count=0.18 * load)
    server.add(table.CPU_TIME, "system", count=0.05 * load)
