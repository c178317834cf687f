"""Keys over time, as ``identity keys list`` and ``identity keys plan`` draw them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import keys_pb2
from identity.cli.listing import Column

__all__ = ["COLUMNS", "LEGEND", "rows_of", "state_of", "steps_of"]

WIDTH = 40
MAX_NAMED = 3
LEGEND = "░ published, does not sign yet   █ signs   ▒ published, signs no more   │ now   times are UTC"
_STYLES = {"pending": "yellow", "active": "green", "retired": "blue", "removed": "dim", "revoked": "red"}
_DONE = {
    "pending": "is made and published",
    "active": "begins to sign",
    "retired": "stops signing",
    "removed": "is published no more",
}


COLUMNS = (
    Column("kid"),
    Column("state"),
    Column("alg"),
    Column("timeline"),
    Column("signs from"),
    Column("signs until"),
    Column("needed until"),
    Column("published until"),
    Column("verifiers", folds=True),
)


def rows_of(keys: Sequence[keys_pb2.SigningKey], now: datetime) -> Iterator[Sequence[str | Text]]:
    """A row a key, newest first; what is over has no bar."""
    published = [key for key in keys if state_of(key.state) not in {"removed", "revoked"}]
    begins = min((key.created_at.ToDatetime(now.tzinfo) for key in published), default=now)
    ends = max((key.removed_at.ToDatetime(now.tzinfo) for key in published), default=now)
    for key in keys:
        state = state_of(key.state)
        yield (
            key.public_key.kid,
            Text(state, style=_STYLES[state]),
            key.public_key.alg,
            _bar(key, state, begins, ends, now) if key in published else "",
            *(_minute(moment) for moment in (key.activates_at, key.retires_at)),
            _minute(key.needed_until) if key.HasField("needed_until") else "",
            _minute(key.removed_at),
            _verifiers(key),
        )


def steps_of(answer: admin_pb.ListKeysResponse) -> Iterator[Text]:
    """A line a step that is to come, and one for each key that is over and still held."""
    needed = {key.public_key.kid: key.needed_until for key in answer.keys if state_of(key.state) == "retired"}
    for step in answer.steps:
        latest = f", by {_minute(step.at_latest)} at the latest" if step.HasField("at_latest") else ""
        state = state_of(step.state)
        is_end = state == "removed" and step.kid in needed
        yield Text.assemble(
            (_minute(step.at), "bold"),
            f"  {step.kid or 'the next key'} ",
            (_DONE[state], _STYLES[state]),
            latest,
            f"; tokens it signed live until {_minute(needed[step.kid])}" if is_end else "",
        )
    for key in answer.keys:
        if key.holding_verifiers:
            state = state_of(key.state)
            yield Text.assemble(
                f"{key.public_key.kid} is ",
                (state, _STYLES[state]),
                f" and still held by {_names(key.holding_verifiers)}; restart them",
            )


def state_of(state: int) -> str:
    """As people write it."""
    return keys_pb2.KeyState.Name(state).removeprefix("KEY_STATE_").lower()


def _bar(key: keys_pb2.SigningKey, state: str, begins: datetime, ends: datetime, now: datetime) -> Text:
    created, activates, retires, removes = (
        moment.ToDatetime(now.tzinfo)
        for moment in (key.created_at, key.activates_at, key.retires_at, key.removed_at)
    )
    cell = max((ends - begins) / WIDTH, timedelta(seconds=1))
    drawn = Text()
    for place in range(WIDTH):
        start, end = begins + place * cell, begins + (place + 1) * cell
        if start <= now < end:
            drawn.append("│", "bold")
        elif end <= created or start >= removes:
            drawn.append(" ")
        elif end <= activates:
            drawn.append("░", _STYLES[state])
        else:
            drawn.append("█" if start < retires else "▒", _STYLES[state])
    return drawn


def _verifiers(key: keys_pb2.SigningKey) -> str:
    if key.lacking_verifiers:
        return f"lacked by {_names(key.lacking_verifiers)}"
    return f"still held by {_names(key.holding_verifiers)}" if key.holding_verifiers else ""


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more


def _minute(moment: Timestamp) -> str:
    return f"{moment.ToDatetime():%Y-%m-%d %H:%M}"
