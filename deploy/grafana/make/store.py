"""What the service waits for: the store, and the claims source."""

from __future__ import annotations

from form import RED, Dashboard, Panel, Query, Row
from queries import quantile, rate, value

from identity.telemetry import instruments as table

LANE = "identity.store.lane"

STORE = Dashboard(
    "store",
    "Store and claims source",
    "Round trips to Redis or Valkey, connections, what waits; questions to the claims source.",
    [
        Row(
            "Store",
            [
                Panel(
                    "Round trips", "Per second. Calls share them.",
                    [Query(rate(table.STORE_DURATION, LANE, suffix="_count"), "{{identity_store_lane}}")], "ops", stacked=True,
                ),
                Panel(
                    "Latency of round trips", "On the lane of calls.",
                    [
                        Query(quantile(share, table.STORE_DURATION, where=[(LANE, "=", "calls")]), f"p{share * 100:g}")
                        for share in (0.5, 0.95, 0.99)
                    ],
                    "s", thresholds=[(0.1, RED)],
                ),
                Panel(
                    "Failed round trips", "By what has failed; callers get UNAVAILABLE and try again.",
                    [
                        Query(
                            rate(table.STORE_DURATION, "error.type", where=[("error.type", "!=", "")], suffix="_count"),
                            "{{error_type}}",
                        )
                    ],
                    "ops", stacked=True,
                ),
                Panel(
                    "Calls in a round trip", "How many share one; at redis.max_batch more wait for the next.",
                    [Query(f"{rate(table.STORE_CALLS, LANE)} / {rate(table.STORE_DURATION, LANE, suffix='_count')}", "{{identity_store_lane}}")],
                ),
                Panel(
                    "Calls that wait", "For a round trip.",
                    [Query(value("sum", table.STORE_WAITING, LANE), "{{identity_store_lane}}")],
                ),
                Panel(
                    "Connections", "To the store or, in a cluster, to each node.",
                    [
                        Query(
                            value("sum", table.STORE_CONNECTIONS, "db.client.connection.pool.name", "db.client.connection.state"),
                            "{{db_client_connection_pool_name}} {{db_client_connection_state}}",
                        )
                    ],
                    stacked=True,
                ),
            ],
        ),
        Row(
            "Claims source",
            [
                Panel(
                    "Questions", "By what came of them. circuit_open: it was not even asked.",
                    [
                        Query(
                            rate(table.CLAIMS_QUESTIONS, "identity.claims_source.outcome"),
                            "{{identity_claims_source_outcome}}",
                        )
                    ],
                    "reqps", stacked=True,
                ),
                Panel(
                    "Latency of the claims source", "To answer, or to fail.",
                    [Query(quantile(share, table.CLAIMS_DURATION), f"p{share * 100:g}") for share in (0.5, 0.95, 0.99)], "s",
                ),
                Panel(
                    "Circuit", "Left alone while it does not answer, by process.",
                    [Query(value("max", table.CLAIMS_CIRCUIT_OPEN, "instance"), "{{instance}}")],
                    kind="stat", names={0: ("asked", "green"), 1: ("left alone", RED)},
                ),
            ],
        ),
    ],
)  # fmt: skip
