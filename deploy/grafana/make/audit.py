"""The way of the audit: outbox, relays, sinks, dead letters."""

from __future__ import annotations

from form import ORANGE, RED, YELLOW, Dashboard, Panel, Query, Row
from queries import rate, value

from identity.telemetry import instruments as table

SINK = "identity.audit.sink"
FILLING = [(0.5, YELLOW), (0.8, ORANGE), (1.0, RED)]

AUDIT = Dashboard(
    "audit",
    "Audit",
    "What waits in the audit outbox, how far each sink has got, and what was refused for good.",
    [
        Row(
            "Outbox",
            [
                Panel(
                    "Fullest bucket", "Of the room of one bucket (audit.outbox_max_events). At 100 % it issues nothing.",
                    [Query(value("max", table.OUTBOX_FULLEST))], "percentunit", "gauge", FILLING, width=6, maximum=1.0,
                ),
                Panel(
                    "Filling", "At 50 % see to the sinks, at 80 % hurry; at 100 % nothing is issued in that bucket.",
                    [Query(value("max", table.OUTBOX_FULLEST), "fullest bucket")], "percentunit", thresholds=FILLING, width=9,
                ),
                Panel(
                    "Events that wait", "In all buckets.", [Query(value("max", table.OUTBOX_EVENTS), "events")], width=9,
                ),
                Panel(
                    "Oldest event", "How old it is. It leaves when every sink has it.",
                    [Query(value("max", table.OUTBOX_OLDEST_AGE), "oldest")], "s", thresholds=[(120, ORANGE)], width=12,
                ),
                Panel(
                    "Dead letters", "Refused by a sink for good, and kept aside: identity audit dead-letters lists them.",
                    [Query(value("max", table.DEAD_LETTERS), "dead letters")], thresholds=[(1, ORANGE)], width=12,
                ),
            ],
        ),
        Row(
            "Sinks",
            [
                Panel(
                    "Events behind", "That a sink does not have yet.",
                    [Query(value("max", table.SINK_BEHIND, SINK), "{{identity_audit_sink}}")],
                ),
                Panel(
                    "Lag", "How old the oldest event is that a sink does not have yet.",
                    [Query(value("max", table.SINK_LAG, SINK), "{{identity_audit_sink}}")], "s", thresholds=[(120, ORANGE)],
                ),
                Panel(
                    "Delivered", "Events that sinks have acknowledged, per second.",
                    [Query(rate(table.SINK_DELIVERED, SINK), "{{identity_audit_sink}}")], "cps", stacked=True,
                ),
                Panel(
                    "Sinks, as relays find them", "Whether a sink takes what each relay gives it.",
                    [Query(value("min", table.SINK_UP, "instance", SINK), "{{identity_audit_sink}} {{instance}}")],
                    kind="stat", width=12, names={1: ("takes", "green"), 0: ("takes nothing", RED)},
                ),
                Panel(
                    "Refusals on their way", "In memory until they are in the outbox; 2,000 at most.",
                    [Query(value("sum", table.REFUSALS_QUEUED, "instance"), "{{instance}}")], thresholds=[(2000, RED)], width=6,
                ),
                Panel(
                    "Uses lost", "Records of uses of tokens that other servers could not keep: their spools ran full.",
                    [Query(rate(table.USES_LOST), "lost")], "cps", thresholds=[(0.001, RED)], width=6,
                ),
                Panel(
                    "Refusals folded", "Counted and not recorded one by one: so many come at once.",
                    [Query(rate(table.REFUSALS_FOLDED), "folded")], "cps", width=6,
                ),
            ],
        ),
    ],
)  # fmt: skip
