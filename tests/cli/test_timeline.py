"""What ``identity keys list`` and ``identity keys plan`` draw of an answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from grpc_identity.v1 import admin_service_pb2 as admin_pb
from identity.cli import timeline
from identity.cli.listing import show
from identity.keys.keyring import KeyRecord, Keyring, KeyState
from identity.keys.plan import needed_until, steps_to_come
from identity.keys.schedule import Schedule
from identity.rpc import translation

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SCHEDULE = Schedule()
HOUR = timedelta(hours=1)
LAST_TOKEN = SCHEDULE.max_token_ttl + SCHEDULE.skew


def record(kid: str, state: KeyState, *, signs: timedelta, until: timedelta) -> KeyRecord:
    retires_at = NOW + until
    return KeyRecord(
        kid, "ES256", state, NOW + signs - 24 * HOUR, NOW + signs, NOW + signs, retires_at,
        retires_at + SCHEDULE.keep_after_retirement, {"kid": kid, "alg": "ES256"}, b"sealed",
    )  # fmt: skip


KEYS = Keyring(
    4,
    (
        record("leaked", KeyState.REVOKED, signs=-200 * HOUR, until=-150 * HOUR),
        record("gone", KeyState.REMOVED, signs=-150 * HOUR, until=-100 * HOUR),
        record("old", KeyState.RETIRED, signs=-100 * HOUR, until=timedelta(minutes=-10)),
        record("present", KeyState.ACTIVE, signs=timedelta(minutes=-10), until=89 * 24 * HOUR),
        record("next", KeyState.PENDING, signs=20 * HOUR, until=110 * 24 * HOUR),
    ),
)


@pytest.fixture
def answer() -> admin_pb.ListKeysResponse:
    lacking = {"next": ["billing/a"], "old": []}
    holding = {"leaked": ["orders/a", "orders/b", "orders/c", "orders/d"], "old": ["orders/a"]}
    return admin_pb.ListKeysResponse(
        keys=[
            translation.signing_key(key, SCHEDULE, lacking.get(key.kid, ()), holding.get(key.kid, ()))
            for key in reversed(KEYS.keys)
        ],
        steps=[translation.key_step(step) for step in steps_to_come(KEYS, NOW, SCHEDULE)],
    )


def drawn(*parts: Any) -> str:
    console = Console(width=300)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get()


def listed(answer: admin_pb.ListKeysResponse, width: int) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        show(console, timeline.COLUMNS, list(timeline.rows_of(answer.keys, NOW)))
    return capture.get()


@pytest.mark.parametrize(
    ("kid", "ends"),
    [
        ("leaked", None),
        ("gone", NOW - 100 * HOUR + LAST_TOKEN),
        ("old", NOW - timedelta(minutes=10) + LAST_TOKEN),
        ("present", NOW + 89 * 24 * HOUR + LAST_TOKEN),
        ("next", None),
    ],
)
def test_a_key_is_needed_until_its_last_token_is_over_and_never_after_it_is_published(
    kid: str, ends: datetime | None
) -> None:
    key = KEYS.get(kid)
    assert key is not None
    assert needed_until(key, SCHEDULE) == ends
    assert ends is None or ends < key.removes_at


def test_a_key_that_was_removed_before_it_signed_is_needed_by_nobody() -> None:
    given_up = record("x", KeyState.REMOVED, signs=HOUR, until=timedelta(0))
    assert needed_until(given_up, SCHEDULE) is None


def test_the_list_says_who_lacks_a_key_and_who_still_holds_one_that_is_over(
    answer: admin_pb.ListKeysResponse,
) -> None:
    rows = {line.split("│")[1].strip(): line for line in listed(answer, 300).splitlines()
            if line.startswith("│")}  # fmt: skip
    assert set(rows) == {"leaked", "gone", "old", "present", "next"}
    assert "lacked by billing/a" in rows["next"]
    assert "still held by orders/a, orders/b, orders/c and 1 more" in rows["leaked"]
    # What is published is meant to be held.
    assert "held by" not in rows["old"]
    for kid in ("old", "gone", "present"):
        ends = needed_until(KEYS.get(kid), SCHEDULE)  # type: ignore[arg-type]
        assert f"{ends:%Y-%m-%d %H:%M}" in rows[kid]
    assert rows["leaked"].count("2026") == rows["next"].count("2026") == 3


def test_the_plan_says_until_when_tokens_of_a_retired_key_live_and_who_holds_what_is_revoked(
    answer: admin_pb.ListKeysResponse,
) -> None:
    lines = drawn(*timeline.steps_of(answer)).splitlines()
    ends = NOW - timedelta(minutes=10) + LAST_TOKEN
    (old,) = [line for line in lines if "  old " in line]
    assert old.endswith(f"is published no more; tokens it signed live until {ends:%Y-%m-%d %H:%M}")
    assert (
        lines[-1]
        == "leaked is revoked and still held by orders/a, orders/b, orders/c and 1 more; restart them"
    )
