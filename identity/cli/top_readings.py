"""What ``identity top`` shows, as numbers: the looks at all processes, put together. Pure.

Rates are of the last two looks and are summed. Gauges that every process reads off the same store (the outbox, the
sinks, sessions) are not: the highest counts. ``None`` is what is not known, or has not happened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from identity.cli.top_metrics import Chooses, Interval, Labels, Look, every, quantiles, rates
from identity.cli.top_servers import ServerState
from identity.telemetry import instruments as table
from identity.telemetry.instruments import Instrument, label_of

QUANTILES = (0.5, 0.95, 0.99)
METHOD, STATUS, ERROR = label_of("rpc.method"), label_of("rpc.response.status_code"), label_of("error.type")
VERDICT, KIND = label_of("identity.refresh.verdict"), label_of("identity.revocation.kind")
SINK, KEY, KEY_STATE = (
    label_of("identity.audit.sink"),
    label_of("identity.key.id"),
    label_of("identity.key.state"),
)
LANE = label_of("identity.store.lane")
VERIFIER_STATE, CONNECTION_STATE, WINDOW = (
    label_of("identity.verifier.state"),
    label_of("db.client.connection.state"),
    label_of("identity.window"),
)
# A stream lasts as long as its verifier; that is no latency.
STREAMS = frozenset({"WatchVerifierState", "Watch"})
_CALLS = f"{table.CALL_DURATION.prometheus_name}_count"
_ROUND_TRIPS = f"{table.STORE_DURATION.prometheus_name}_count"


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """One process: calls and refusals per second, processors in use (1.0 is one), bytes, seconds."""

    state: ServerState
    calls: float
    refused: float
    latency: Latency
    cpu: float | None
    memory: float | None
    uptime: float | None


@dataclass(frozen=True, slots=True)
class MethodReading:
    """One method: per second; ``reasons`` are those of what was refused, the most frequent first."""

    name: str
    calls: float
    refused: float
    reasons: Sequence[str]
    latency: Latency | None


@dataclass(frozen=True, slots=True)
class Counted:
    """A counter: per second, and since the processes have started."""

    rate: float
    total: float


@dataclass(frozen=True, slots=True)
class KeyReading:
    """The key that signs: for how long, and until it should no more; seconds."""

    kid: str
    age: float | None
    left: float | None


@dataclass(frozen=True, slots=True)
class SinkReading:
    """A sink: events behind, seconds behind, delivered per second. ``up``: every relay that was asked delivers."""

    name: str
    behind: float | None
    lag: float | None
    delivered: float
    up: bool | None


@dataclass(frozen=True, slots=True)
class Reading:
    """All of a frame."""

    processes: Sequence[ProcessReading]
    methods: Sequence[MethodReading]
    refreshes: Mapping[str, Counted]
    revocations: Mapping[str, Counted]
    folded: Counted
    worst_address: float | None
    sessions: Mapping[str, float]
    keys: Sequence[KeyReading]
    key_states: Mapping[str, float]
    next_rotation: float | None
    secret_age: float | None
    verifiers: Mapping[str, float]
    verifiers_behind: float | None
    laggards: float | None
    outbox_events: float | None
    outbox_fullest: float | None
    outbox_oldest: float | None
    dead_letters: float | None
    uses_lost: Counted
    sinks: Sequence[SinkReading]
    round_trips: float
    store_errors: float
    store_latency: Latency
    connections: Mapping[str, float]
    store_waiting: float | None
    circuit_open: bool | None

    @property
    def calls(self) -> float:
        """Of all processes, per second."""
        return sum(process.calls for process in self.processes)

    @property
    def has_rates(self) -> bool:
        """Whether any process was looked at twice."""
        return any(process.state.interval for process in self.processes)


def read(states: Sequence[ServerState]) -> Reading:
    """What a round of looks says."""
    looks = [state.look for state in states if state.look]
    intervals = [state.interval for state in states if state.interval]
    return Reading(
        processes=[_process(state) for state in states],
        methods=_methods(looks, intervals),
        refreshes=_counted(looks, intervals, table.REFRESHES, VERDICT),
        revocations=_counted(looks, intervals, table.REVOCATIONS, KIND),
        folded=_counted(looks, intervals, table.REFUSALS_FOLDED, "").get("", Counted(0, 0)),
        worst_address=_highest(looks, table.HIGHEST_ADDRESS_FAILURES),
        sessions=_by(looks, table.ACTIVE_SESSIONS, WINDOW, max),
        keys=_keys(looks),
        key_states=_by(looks, table.KEYS, KEY_STATE, max),
        next_rotation=_lowest(looks, table.NEXT_ROTATION),
        secret_age=_highest(looks, table.REFRESH_SECRET_AGE),
        verifiers=_by(looks, table.VERIFIERS, VERIFIER_STATE, sum),
        verifiers_behind=_highest(looks, table.VERIFIERS_BEHIND),
        laggards=_highest(looks, table.VERIFIER_LAGGARDS),
        outbox_events=_highest(looks, table.OUTBOX_EVENTS),
        outbox_fullest=_highest(looks, table.OUTBOX_FULLEST),
        outbox_oldest=_highest(looks, table.OUTBOX_OLDEST_AGE),
        dead_letters=_highest(looks, table.DEAD_LETTERS),
        uses_lost=_counted(looks, intervals, table.USES_LOST, "").get("", Counted(0, 0)),
        sinks=_sinks(looks, intervals),
        round_trips=_sum(rates(intervals, _ROUND_TRIPS)),
        store_errors=_sum(rates(intervals, _ROUND_TRIPS, where=lambda labels: bool(labels.get(ERROR)))),
        store_latency=_latency(intervals, table.STORE_DURATION, _is_waited_for),
        connections=_by(looks, table.STORE_CONNECTIONS, CONNECTION_STATE, sum),
        store_waiting=_total(looks, table.STORE_WAITING),
        circuit_open=_flag(looks, table.CLAIMS_CIRCUIT_OPEN),
    )


def _process(state: ServerState) -> ProcessReading:
    intervals = [state.interval] if state.interval else []
    looks = [state.look] if state.look else []
    cpu = rates(intervals, table.CPU_TIME.prometheus_name)
    return ProcessReading(
        state,
        calls=_sum(rates(intervals, _CALLS)),
        refused=_sum(rates(intervals, _CALLS, where=_is_refused)),
        latency=_latency(
            intervals, table.CALL_DURATION, lambda labels: short(labels.get(METHOD, "")) not in STREAMS
        ),
        cpu=_sum(cpu) if cpu else None,
        memory=_highest(looks, table.MEMORY_USAGE),
        uptime=_highest(looks, table.UPTIME),
    )


def _methods(looks: Sequence[Look], intervals: Sequence[Interval]) -> Sequence[MethodReading]:
    calls = rates(intervals, _CALLS, METHOD)
    refused = rates(intervals, _CALLS, METHOD, where=_is_refused)
    reasons = rates(intervals, _CALLS, METHOD, STATUS, ERROR, where=_is_refused)
    called = {labels.get(METHOD, "") for look in looks for labels, value in look.of(_CALLS) if value}
    rows = []
    for method in called:
        of_method = [
            (rate, error or status)
            for (name, status, error), rate in reasons.items()
            if name == method and rate
        ]
        rows.append(
            MethodReading(
                short(method),
                calls.get((method,), 0.0),
                refused.get((method,), 0.0),
                [reason for _, reason in sorted(of_method, reverse=True)],
                None
                if short(method) in STREAMS
                else _latency(intervals, table.CALL_DURATION, _of_method(method)),
            )
        )
    return sorted(rows, key=lambda row: (-row.calls, row.name))


def short(method: str) -> str:
    """A method without its service.

    >>> short("grpc_identity.v1.IdentityService/Refresh")
    'Refresh'
    """
    return method.rpartition("/")[2]


def _of_method(method: str) -> Chooses:
    return lambda labels: labels.get(METHOD) == method


def _is_waited_for(labels: Labels) -> bool:
    return labels.get(LANE) == "calls"


def _is_refused(labels: Labels) -> bool:
    return labels.get(STATUS) != "OK"


def _latency(intervals: Sequence[Interval], instrument: Instrument, where: Chooses = every) -> Latency:
    return Latency(*quantiles(intervals, instrument.prometheus_name, QUANTILES, where))


def _counted(
    looks: Sequence[Look], intervals: Sequence[Interval], instrument: Instrument, by: str
) -> Mapping[str, Counted]:
    name = instrument.prometheus_name
    per_second = rates(intervals, name, by)
    totals = _by(looks, instrument, by, sum)
    return {value: Counted(per_second.get((value,), 0.0), total) for value, total in totals.items()}


def _keys(looks: Sequence[Look]) -> Sequence[KeyReading]:
    ages = _by(looks, table.SIGNING_KEY_AGE, KEY, max)
    left = _by(looks, table.SIGNING_KEY_TIME_LEFT, KEY, min)
    return [KeyReading(kid, ages.get(kid), left.get(kid)) for kid in sorted({*ages, *left})]


def _sinks(looks: Sequence[Look], intervals: Sequence[Interval]) -> Sequence[SinkReading]:
    behind = _by(looks, table.SINK_BEHIND, SINK, max)
    lag = _by(looks, table.SINK_LAG, SINK, max)
    up = _by(looks, table.SINK_UP, SINK, min)
    delivered = rates(intervals, table.SINK_DELIVERED.prometheus_name, SINK)
    return [
        SinkReading(
            name,
            behind.get(name),
            lag.get(name),
            delivered.get((name,), 0.0),
            bool(up[name]) if name in up else None,
        )
        for name in sorted({*behind, *lag, *up})
    ]


def _by(
    looks: Sequence[Look], instrument: Instrument, label: str, combine: Callable[[Iterable[float]], float]
) -> Mapping[str, float]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for look in looks:
        for labels, value in look.of(instrument.prometheus_name):
            found[labels.get(label, "")].append(value)
    return {value: combine(values) for value, values in found.items()}


def _values(looks: Sequence[Look], instrument: Instrument) -> Sequence[float]:
    return [value for look in looks for value in look.values(instrument.prometheus_name)]


def _highest(looks: Sequence[Look], instrument: Instrument) -> float | None:
    return max(_values(looks, instrument), default=None)


def _lowest(looks: Sequence[Look], instrument: Instrument) -> float | None:
    return min(_values(looks, instrument), default=None)


def _total(looks: Sequence[Look], instrument: Instrument) -> float | None:
    values = _values(looks, instrument)
    return sum(values) if values else None


def _flag(looks: Sequence[Look], instrument: Instrument) -> bool | None:
    highest = _highest(looks, instrument)
    return None if highest is None else bool(highest)


def _sum(found: Mapping[tuple[str, ...], float]) -> float:
    return sum(found.values())
