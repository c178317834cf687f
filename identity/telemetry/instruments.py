"""Every instrument of the service's own telemetry: the one table that code, docs/telemetry.md, dashboards and alerts go by.

Names, units and attributes are OpenTelemetry's, from its semantic conventions where these have one (``rpc.*``, ``db.client.*``,
``process.*``); all others are ``identity.*``. What Prometheus calls them follows by OpenTelemetry's own rules, so that a query finds
the same series whether ``/metrics`` was scraped or OTLP pushed.

No attribute has more values than somebody who operates the service has put there: methods, reasons, sinks, keys, nodes, and
``MAX_CLIENTS`` clients. Addresses, subjects and sessions are never among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

MAX_CLIENTS = 100
"""So many clients have series of their own, those that were first; all others are one, ``OTHER_CLIENTS``."""
OTHER_CLIENTS = "_other"


class Kind(StrEnum):
    """As OpenTelemetry has them."""

    COUNTER = "counter"
    UP_DOWN_COUNTER = "up-down counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Where(StrEnum):
    """Which process has it. A server has what the relay has where that runs inside it (``audit.relay``)."""

    SERVER = "server"
    RELAY = "relay"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One instrument. ``unit`` by UCUM, empty for a plain yes or no; ``buckets`` are upper bounds, in the unit."""

    name: str
    kind: Kind
    unit: str
    where: Where
    description: str
    attributes: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """As it is scraped; a histogram's series add ``_bucket``, ``_sum`` and ``_count``."""
        name = self.prometheus_base
        return name + "_total" if self.kind is Kind.COUNTER else name

    @property
    def prometheus_base(self) -> str:
        """Without what Prometheus adds to a counter."""
        suffix = _UNIT_SUFFIXES.get(self.unit, "")
        if self.unit == "1" and self.kind is not Kind.GAUGE:
            suffix = ""
        return label_of(self.name) + suffix

    @property
    def labels(self) -> tuple[str, ...]:
        """The attributes, as Prometheus calls them."""
        return tuple(label_of(name) for name in self.attributes)


def label_of(attribute: str) -> str:
    """What Prometheus calls an attribute.

    >>> label_of("rpc.response.status_code")
    'rpc_response_status_code'
    """
    return attribute.replace(".", "_")


_UNIT_SUFFIXES: Mapping[str, str] = MappingProxyType({"s": "_seconds", "By": "_bytes", "1": "_ratio"})
# As the conventions advise for calls; for the store they begin at 1 ms, which is where a near one has ended.
_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_STORE_BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_SOURCE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

CALL_DURATION = Instrument(
    "rpc.server.call.duration",
    Kind.HISTOGRAM,
    "s",
    Where.SERVER,
    "Calls that were answered, and how long that took; of a stream, how long it lasted.",
    ("rpc.system.name", "rpc.method", "rpc.response.status_code", "error.type"),
    _CALL_BUCKETS,
)
CALLS_UNDER_WAY = Instrument(
    "identity.call.under_way",
    Kind.UP_DOWN_COUNTER,
    "{call}",
    Where.SERVER,
    "Calls of clients that are being answered; streams of verifiers are not among them.",
)
REFRESHES = Instrument(
    "identity.refreshes",
    Kind.COUNTER,
    "{refresh}",
    Where.SERVER,
    "Refresh tokens presented, by verdict. REUSED and WRONG_CLIENT are thefts, REPORTED is a reuse that the client's policy lets live; "
    "RECOVERED says that the store has lost writes.",
    ("identity.refresh.verdict",),
)
CLIENT_REFRESHES = Instrument(
    "identity.client.refreshes",
    Kind.COUNTER,
    "{refresh}",
    Where.SERVER,
    "Refresh tokens presented, by client and outcome.",
    ("identity.client.id", "identity.event.outcome"),
)
HIGHEST_ADDRESS_FAILURES = Instrument(
    "identity.refresh.address_failures",
    Kind.GAUGE,
    "{refresh}",
    Where.SERVER,
    "Refused refreshes of that one end-user address that had most of them, in the last minute, at this server.",
)
REVOCATIONS = Instrument(
    "identity.revocations",
    Kind.COUNTER,
    "{revocation}",
    Where.SERVER,
    "What was taken away, by what it was, or by the theft that was the cause; what was gone already counts as well.",
    ("identity.revocation.kind",),
)
ACTIVE_SESSIONS = Instrument(
    "identity.session.active",
    Kind.GAUGE,
    "{session}",
    Where.SERVER,
    "Sessions that were started or refreshed lately, of all servers; an estimate (HyperLogLog, standard error 0.8 %).",
    ("identity.window",),
)
KEYS = Instrument(
    "identity.key.count",
    Kind.UP_DOWN_COUNTER,
    "{key}",
    Where.SERVER,
    "Signing keys that are published, by state.",
    ("identity.key.state",),
)
SIGNING_KEY_AGE = Instrument(
    "identity.signing_key.age",
    Kind.GAUGE,
    "s",
    Where.SERVER,
    "For how long the active key has signed.",
    ("identity.key.id",),
)
SIGNING_KEY_TIME_LEFT = Instrument(
    "identity.signing_key.time_left",
    Kind.GAUGE,
    "s",
    Where.SERVER,
    "Until the active key should sign no more; negative: it signs longer than it should.",
    ("identity.key.id",),
)
NEXT_ROTATION = Instrument(
    "identity.signing_key.next_rotation",
    Kind.GAUGE,
    "s",
    Where.SERVER,
    "Until another key takes over, at the earliest; 0: it is time, and not all verifiers hold it.",
)
REFRESH_SECRET_AGE = Instrument(
    "identity.refresh_secret.age",
    Kind.GAUGE,
    "s",
    Where.SERVER,
    "For how long the secret has been in use that authenticates new refresh tokens.",
)
OUTBOX_EVENTS = Instrument(
    "identity.audit.outbox.events",
    Kind.UP_DOWN_COUNTER,
    "{event}",
    Where.BOTH,
    "Events that wait in the outbox, of all buckets.",
)
OUTBOX_FULLEST = Instrument(
    "identity.audit.outbox.fullest",
    Kind.GAUGE,
    "1",
    Where.BOTH,
    "The share of its room that the fullest bucket has taken; at 1 that issues nothing.",
)
OUTBOX_OLDEST_AGE = Instrument(
    "identity.audit.outbox.oldest_age",
    Kind.GAUGE,
    "s",
    Where.BOTH,
    "How old the oldest event is that waits; 0 for none.",
)
DEAD_LETTERS = Instrument(
    "identity.audit.dead_letters",
    Kind.UP_DOWN_COUNTER,
    "{event}",
    Where.BOTH,
    "Events that a sink has refused for good, and that are kept aside.",
)
SINK_BEHIND = Instrument(
    "identity.audit.sink.behind",
    Kind.UP_DOWN_COUNTER,
    "{event}",
    Where.BOTH,
    "Events that a sink does not have yet.",
    ("identity.audit.sink",),
)
SINK_LAG = Instrument(
    "identity.audit.sink.lag",
    Kind.GAUGE,
    "s",
    Where.BOTH,
    "How old the oldest event is that a sink does not have yet; 0 for none.",
    ("identity.audit.sink",),
)
SINK_UP = Instrument(
    "identity.audit.sink.up",
    Kind.GAUGE,
    "",
    Where.RELAY,
    "1 while a sink takes what this relay gives it, 0 while it does not.",
    ("identity.audit.sink",),
)
SINK_DELIVERED = Instrument(
    "identity.audit.sink.delivered",
    Kind.COUNTER,
    "{event}",
    Where.RELAY,
    "Events that a sink has acknowledged to this relay.",
    ("identity.audit.sink",),
)
REFUSALS_QUEUED = Instrument(
    "identity.audit.refusals.queued",
    Kind.UP_DOWN_COUNTER,
    "{event}",
    Where.SERVER,
    "Refusals in memory, on their way to the outbox.",
)
REFUSALS_FOLDED = Instrument(
    "identity.audit.refusals.folded",
    Kind.COUNTER,
    "{event}",
    Where.SERVER,
    "Refusals that were counted and not recorded one by one, because there were so many.",
)
USES_LOST = Instrument(
    "identity.audit.uses.lost",
    Kind.COUNTER,
    "{record}",
    Where.SERVER,
    "Records of how tokens were used that other servers could not keep, as those report.",
)
VERIFIERS = Instrument(
    "identity.verifier.count",
    Kind.UP_DOWN_COUNTER,
    "{verifier}",
    Where.SERVER,
    "Verifiers that watch this server, or did until half a minute ago.",
    ("identity.verifier.state",),
)
VERIFIERS_BEHIND = Instrument(
    "identity.verifier.behind",
    Kind.GAUGE,
    "{change}",
    Where.SERVER,
    "Changes that the verifier of this server that is furthest behind has not applied.",
)
VERIFIER_LAGGARDS = Instrument(
    "identity.verifier.laggards",
    Kind.GAUGE,
    "{verifier}",
    Where.SERVER,
    "Verifiers and servers that lack a key whose time to sign has come.",
)
STORE_DURATION = Instrument(
    "db.client.operation.duration",
    Kind.HISTOGRAM,
    "s",
    Where.BOTH,
    "Round trips to the store. Calls share them: there are fewer of these than of identity.store.calls.",
    ("db.system.name", "db.operation.name", "identity.store.lane", "error.type"),
    _STORE_BUCKETS,
)
STORE_CONNECTIONS = Instrument(
    "db.client.connection.count",
    Kind.UP_DOWN_COUNTER,
    "{connection}",
    Where.BOTH,
    "Connections to the store.",
    ("db.client.connection.pool.name", "db.client.connection.state"),
)
STORE_CALLS = Instrument(
    "identity.store.calls",
    Kind.COUNTER,
    "{call}",
    Where.BOTH,
    "Scripts and commands that the store was given.",
    ("identity.store.lane",),
)
STORE_WAITING = Instrument(
    "identity.store.call.waiting",
    Kind.UP_DOWN_COUNTER,
    "{call}",
    Where.BOTH,
    "Scripts and commands that wait for a round trip.",
    ("identity.store.lane",),
)
CLAIMS_QUESTIONS = Instrument(
    "identity.claims_source.questions",
    Kind.COUNTER,
    "{question}",
    Where.SERVER,
    "Questions to the claims source, by what came of them.",
    ("identity.claims_source.occasion", "identity.claims_source.outcome"),
)
CLAIMS_DURATION = Instrument(
    "identity.claims_source.duration",
    Kind.HISTOGRAM,
    "s",
    Where.SERVER,
    "How long the claims source took to answer, or to fail.",
    (),
    _SOURCE_BUCKETS,
)
CLAIMS_CIRCUIT_OPEN = Instrument(
    "identity.claims_source.circuit_open",
    Kind.GAUGE,
    "",
    Where.SERVER,
    "1 while the claims source is left alone because it did not answer.",
)
READY = Instrument(
    "identity.ready",
    Kind.GAUGE,
    "",
    Where.BOTH,
    "1 while the process is ready, as /readyz says it.",
)
PROBLEM = Instrument(
    "identity.problem",
    Kind.GAUGE,
    "",
    Where.BOTH,
    "1 for each problem that /readyz names now; it is gone with the problem.",
    ("identity.problem.name",),
)
CPU_TIME = Instrument(
    "process.cpu.time",
    Kind.COUNTER,
    "s",
    Where.BOTH,
    "What the process has used of the processors.",
    ("cpu.mode",),
)
MEMORY_USAGE = Instrument(
    "process.memory.usage",
    Kind.UP_DOWN_COUNTER,
    "By",
    Where.BOTH,
    "Physical memory of the process.",
)
UPTIME = Instrument(
    "process.uptime",
    Kind.GAUGE,
    "s",
    Where.BOTH,
    "For how long the process has run.",
)

INSTRUMENTS = tuple(value for value in list(globals().values()) if isinstance(value, Instrument))
"""All of them."""

ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        "rpc.system.name": "`grpc`",
        "rpc.method": "Service and method, such as `grpc_identity.v1.IdentityService/Refresh`.",
        "rpc.response.status_code": "The gRPC status, such as `OK` or `UNAUTHENTICATED`.",
        "error.type": "Of a call, the [reason](errors.md) that it was refused for; of a round trip to the store, what has failed. Not there for a success.",
        "identity.refresh.verdict": "`ROTATED`, `REPEATED` (a retry), `RECOVERED`, `REPORTED`, and of what was refused `UNKNOWN`, `WRONG_CLIENT`, `REVOKED`, `EXPIRED`, `REUSED`, "
        "`SCOPE_EXCEEDED`, `AUDIENCE_EXCEEDED`, `RATE_LIMITED`, `OUTBOX_FULL`.",
        "identity.client.id": f"The client, of the {MAX_CLIENTS} that were first since the start; `{OTHER_CLIENTS}` for all others.",
        "identity.event.outcome": "`success` or `refused`, as in the audit.",
        "identity.revocation.kind": "Asked for: `token`, `session`, `other_sessions`, `subject`, `access_tokens`, `client`, `client_disabled`, `erasure`. By theft, a session: `reuse`, `wrong_client`.",
        "identity.window": "`15m` or `24h`; each reaches back up to twice, or an hour, longer.",
        "identity.key.state": "`pending`, `active` or `retired`.",
        "identity.key.id": "The key's id (`kid`).",
        "identity.audit.sink": "As in `audit.sinks`.",
        "identity.verifier.state": "`connected` or `lost`.",
        "db.system.name": "`redis`",
        "db.operation.name": "`PIPELINE`",
        "identity.store.lane": "`calls`, or `background` for what nobody waits for.",
        "db.client.connection.pool.name": "`store`, or the node of a cluster.",
        "db.client.connection.state": "`idle` or `used`.",
        "identity.claims_source.occasion": "`ISSUE` or `REFRESH`.",
        "identity.claims_source.outcome": "`active`, `disabled`, or what has failed: `deadline`, `unreachable`, `bad_answer`, `circuit_open`.",
        "identity.problem.name": "As in `/readyz`.",
        "cpu.mode": "`user` or `system`.",
    }
)
"""What each attribute can be; docs/telemetry.md has the same."""
