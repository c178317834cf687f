"""Keys and who verifies with them."""

from __future__ import annotations

from form import ORANGE, RED, YELLOW, Dashboard, Panel, Query, Row
from queries import value

from identity.telemetry import instruments as table

DAY = 86_400

KEYS = Dashboard(
    "keys",
    "Keys and verifiers",
    "The signing keys, when they change, and the verifiers that have to follow.",
    [
        Row(
            "Keys",
            [
                Panel(
                    "Time left", "Until the key that signs should sign no more. Below zero it signs longer than it should.",
                    [Query(value("min", table.SIGNING_KEY_TIME_LEFT, "identity.key.id"), "{{identity_key_id}}")],
                    "dtdurations", "stat", width=6, height=6,
                ),
                Panel(
                    "Next rotation", "Until another key takes over, at the earliest. Zero for long: somebody lacks it.",
                    [Query(value("min", table.NEXT_ROTATION))], "dtdurations", "stat", width=6, height=6,
                ),
                Panel(
                    "Age of the key that signs", "For how long it has signed; 90 days at most, unless keys.sign_days says less.",
                    [Query(value("max", table.SIGNING_KEY_AGE, "identity.key.id"), "{{identity_key_id}}")],
                    "dtdurations", "stat", [(89 * DAY, YELLOW), (90 * DAY, RED)], width=6, height=6,
                ),
                Panel(
                    "Age of the refresh secret", "Replaced every 90 days by default (keys.secret_days).",
                    [Query(value("max", table.REFRESH_SECRET_AGE))], "dtdurations", "stat",
                    [(91 * DAY, YELLOW), (120 * DAY, RED)], width=6, height=6,
                ),
                Panel(
                    "Published keys", "By state: a pending one is published for a day before it signs.",
                    [Query(value("max", table.KEYS, "identity.key.state"), "{{identity_key_state}}")], stacked=True, width=12,
                ),
                Panel(
                    "Key that signs, by process", "Every process signs with the same key within a second of a switch.",
                    [Query(value("max", table.SIGNING_KEY_AGE, "instance", "identity.key.id"), "{{instance}} {{identity_key_id}}")],
                    "dtdurations", width=12,
                ),
            ],
        ),
        Row(
            "Verifiers",
            [
                Panel(
                    "Verifiers", "That watch a server, or did until half a minute ago.",
                    [Query(value("sum", table.VERIFIERS, "identity.verifier.state"), "{{identity_verifier_state}}")], stacked=True,
                ),
                Panel(
                    "Changes not applied", "Of the verifier furthest behind, by server. It may accept what was revoked since.",
                    [Query(value("max", table.VERIFIERS_BEHIND, "instance"), "{{instance}}")],
                ),
                Panel(
                    "Lack a key that is due", "Verifiers and servers for which the next key waits; identity keys list names them.",
                    [Query(value("max", table.VERIFIER_LAGGARDS), "laggards")], thresholds=[(1, ORANGE)],
                ),
            ],
        ),
    ],
)  # fmt: skip
