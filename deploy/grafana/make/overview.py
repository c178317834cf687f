"""The service at a glance: calls, latency, refusals, refreshing, what was taken away."""

from __future__ import annotations

from form import ORANGE, RED, YELLOW, Dashboard, Panel, Query, Row
from queries import increase, quantile, rate, value

from identity.telemetry import instruments as table

# Theirs is the fault of the caller; what is left is ours.
OURS = ("rpc.response.status_code", "=~", "UNAVAILABLE|INTERNAL|UNKNOWN|DEADLINE_EXCEEDED|DATA_LOSS")
REFUSED = ("rpc.response.status_code", "!=", "OK")
# A stream lasts as long as its verifier.
NO_STREAMS = ("rpc.method", "!~", ".*/Watch.*")
REFRESH = ("rpc.method", "=~", ".*/Refresh")
THEFTS = ("identity.revocation.kind", "=~", "reuse|wrong_client")
IN_TIME_REFUSED = ("identity.refresh.verdict", "!~", "ROTATED|REPEATED|RECOVERED|REPORTED|EXPIRED")
VERDICT, METHOD = "identity.refresh.verdict", "rpc.method"

_calls = rate(table.CALL_DURATION, suffix="_count")
_faults = rate(table.CALL_DURATION, where=[OURS], suffix="_count")

NOW = Row(
    "Now",
    [
        Panel(
            "Ready", "Processes that say at /readyz that they are ready.",
            [Query(value("min", table.READY, "instance"), "{{instance}}")],
            kind="stat", width=6, height=5, names={1: ("ready", "green"), 0: ("not ready", RED)},
        ),
        Panel("Calls", "Answered, all methods.", [Query(_calls)], "reqps", "stat", width=3, height=5),
        Panel(
            "Our faults", "Share of calls that ended with a status that is not the caller's doing.",
            [Query(f"({_faults} or vector(0)) / {_calls}")], "percentunit", "stat", [(0.01, YELLOW), (0.05, RED)],
            width=3, height=5,
        ),
        Panel(
            "Refresh, p99", "99 of 100 refreshes were answered within this time.",
            [Query(quantile(0.99, table.CALL_DURATION, where=[REFRESH]))], "s", "stat", [(0.1, YELLOW), (0.5, RED)],
            width=3, height=5,
        ),
        Panel(
            "Sessions", "Started or refreshed within some 15 minutes; an estimate.",
            [Query(value("max", table.ACTIVE_SESSIONS, where=[("identity.window", "=", "15m")]))],
            kind="stat", width=3, height=5,
        ),
        Panel(
            "Thefts, 24 h", "Sessions that were ended because a spent or another client's refresh token was presented.",
            [Query(increase(table.REVOCATIONS, window="24h", where=[THEFTS]))], kind="stat",
            thresholds=[(0.5, ORANGE), (10, RED)], width=3, height=5,
        ),
        Panel(
            "Outbox, fullest", "Of the room of the fullest bucket; at 100 % it issues nothing.",
            [Query(value("max", table.OUTBOX_FULLEST))], "percentunit", "stat",
            [(0.5, YELLOW), (0.8, ORANGE), (1.0, RED)], width=3, height=5,
        ),
    ],
)  # fmt: skip

CALLS = Row(
    "Calls",
    [
        Panel(
            "Calls by method", "Answered per second.",
            [Query(rate(table.CALL_DURATION, METHOD, suffix="_count"), "{{rpc_method}}")], "reqps", stacked=True,
        ),
        Panel(
            "Latency", "Of all calls but streams.",
            [
                Query(quantile(share, table.CALL_DURATION, where=[NO_STREAMS]), f"p{share * 100:g}")
                for share in (0.5, 0.95, 0.99)
            ],
            "s",
        ),
        Panel(
            "Latency by method, p99", "A stream is not among them: it lasts as long as its verifier.",
            [Query(quantile(0.99, table.CALL_DURATION, METHOD, where=[NO_STREAMS]), "{{rpc_method}}")], "s",
        ),
        Panel(
            "Refused by reason", "Calls with another status than OK; docs/errors.md lists the reasons.",
            [Query(rate(table.CALL_DURATION, "error.type", where=[REFUSED], suffix="_count"), "{{error_type}}")],
            "reqps", stacked=True,
        ),
        Panel(
            "Our faults by status", "Not the caller's doing: the store, the signer, the outbox, or a mistake of the service.",
            [Query(rate(table.CALL_DURATION, "rpc.response.status_code", where=[OURS], suffix="_count"), "{{rpc_response_status_code}}")],
            "reqps", stacked=True,
        ),
        Panel(
            "Calls under way", "Being answered now, by process; at grpc.max_concurrent_calls more are turned away.",
            [Query(value("sum", table.CALLS_UNDER_WAY, "instance"), "{{instance}}")],
        ),
    ],
)  # fmt: skip

REFRESHING = Row(
    "Refreshing",
    [
        Panel(
            "Refreshes by verdict", "REUSED and WRONG_CLIENT are thefts; RECOVERED says that the store has lost writes.",
            [Query(rate(table.REFRESHES, VERDICT), "{{identity_refresh_verdict}}")], "reqps", stacked=True, width=12,
        ),
        Panel(
            "Refused though in time", "Share of refreshes refused for another reason than that the session has run out.",
            [Query(f"({rate(table.REFRESHES, where=[IN_TIME_REFUSED])} or vector(0)) / {rate(table.REFRESHES)}", "refused")],
            "percentunit", thresholds=[(0.1, RED)], width=12,
        ),
        Panel(
            "Refused refreshes by client", "The ten clients with most of them.",
            [
                Query(
                    f"topk(10, {rate(table.CLIENT_REFRESHES, 'identity.client.id', where=[('identity.event.outcome', '=', 'refused')])})",
                    "{{identity_client_id}}",
                )
            ],
            "reqps",
        ),
        Panel(
            "Failures of one address", "Refused refreshes within a minute, of the end-user address that has most. Who it is, the audit says.",
            [Query(value("max", table.HIGHEST_ADDRESS_FAILURES), "highest")], thresholds=[(30, RED)],
        ),
        Panel(
            "Rate-limited", "Calls turned away by a limit, by method.",
            [Query(rate(table.CALL_DURATION, METHOD, where=[("error.type", "=", "RATE_LIMITED")], suffix="_count"), "{{rpc_method}}")],
            "reqps", stacked=True,
        ),
    ],
)  # fmt: skip

SESSIONS = Row(
    "Sessions and what was taken away",
    [
        Panel(
            "Sessions lately", "Started or refreshed lately, all servers together; an estimate.",
            [Query(value("max", table.ACTIVE_SESSIONS, "identity.window"), "within {{identity_window}}")],
        ),
        Panel(
            "Thefts", "Sessions ended within five minutes because of reuse, or because another client presented the token.",
            [
                Query(
                    increase(table.REVOCATIONS, "identity.revocation.kind", window="5m", where=[THEFTS]),
                    "{{identity_revocation_kind}}",
                )
            ],
            stacked=True,
        ),
        Panel(
            "Revocations by kind", "What was taken away, per second.",
            [Query(rate(table.REVOCATIONS, "identity.revocation.kind"), "{{identity_revocation_kind}}")], "cps", stacked=True,
        ),
    ],
)  # fmt: skip

PROCESSES = Row(
    "Processes",
    [
        Panel(
            "Problems", "What /readyz names now; docs/operations.md says what each means.",
            [Query(value("max", table.PROBLEM, "instance", "identity.problem.name"))], kind="table", width=6,
        ),
        Panel(
            "Processors", "In use, by process; 1 is one of them.",
            [Query(rate(table.CPU_TIME, "instance"), "{{instance}}")], width=6,
        ),
        Panel(
            "Memory", "Physical, by process.", [Query(value("sum", table.MEMORY_USAGE, "instance"), "{{instance}}")], "bytes",
            width=6,
        ),
        Panel(
            "Up", "For how long each process has run; a saw is one that dies again and again.",
            [Query(value("max", table.UPTIME, "instance"), "{{instance}}")], "s", width=6,
        ),
    ],
)  # fmt: skip

OVERVIEW = Dashboard(
    "overview",
    "Service",
    "Calls, latency, refusals, refreshing, thefts and revocations of grpc-identity.",
    [NOW, CALLS, REFRESHING, SESSIONS, PROCESSES],
)
