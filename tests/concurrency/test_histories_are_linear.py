"""Two hundred calls about one session at three servers at once look as if one had followed the other.

Each call is found again among the audit events by the trace it names, and the events of a bucket are numbered: that is
the order which is claimed. It must keep to real time (a call that was over before another began comes first), and the
rules, walked in that order, must give every answer that a caller got. ``LINEAR_ROUNDS`` says how many rounds (15).
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from grpc_identity.v1 import identity_service_pb2 as pb
from identity.sessions.issue import digest_of
from identity.tokens.family import Family, Presentation, Rules, decide
from identity.tokens.refresh_token import RefreshTokenCodec

ROUNDS = int(os.environ.get("LINEAR_ROUNDS", "15"))
CALLS = 200
SERVERS = 3
DAY_MS = 24 * 3600 * 1000
RULES = Rules(per_family=1_000_000)
REFUSED = {
    "REVOKED": "FAMILY_REVOKED",
    "REUSED": "REFRESH_TOKEN_REUSED",
    "EXPIRED": "REFRESH_TOKEN_EXPIRED",
}
# How the callers of a round behave: with one key, with none, each with its own, all of that, and somebody who logs out.
MIXES = ("one key", "no keys", "own keys", "mixed", "one key, revoked", "mixed, revoked")


@dataclass(frozen=True)
class Call:
    """A call that is over: what was asked, when, and what the answer was."""

    trace_id: str
    kind: str
    key: str
    began: float
    ended: float
    generation: int
    reason: str


def reason_of(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    assert status is not None
    assert any(detail.Unpack(info) for detail in status.details)
    return info.reason


async def call(fleet: Any, stub: Any, codec: RefreshTokenCodec, kind: str, key: str, tokens: Any) -> Call:
    trace_id = secrets.token_hex(16)
    metadata = (*fleet.metadata, ("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01"))
    began, generation, reason = time.monotonic(), -1, ""
    try:
        if kind == "revoke":
            await stub.Revoke(pb.RevokeRequest(session_id=tokens.session_id), metadata=metadata)
        else:
            request = pb.RefreshRequest(refresh_token=tokens.refresh_token, idempotency_key=key)
            answer = await stub.Refresh(request, metadata=metadata)
            generation = codec.decode(answer.tokens.refresh_token).generation
    except grpc.aio.AioRpcError as error:
        reason = reason_of(error)
    return Call(trace_id, kind, key, began, time.monotonic(), generation, reason)


def keys_of(mix: str) -> list[str]:
    match mix.split(",", maxsplit=1)[0]:
        case "one key":
            return ["one"] * CALLS
        case "no keys":
            return [""] * CALLS
        case "own keys":
            return [f"own-{number}" for number in range(CALLS)]
        case _:
            return random.choices(["", "one", "two"], k=CALLS)


def check(calls: list[Call], events: list[dict[str, str]], family: Family) -> Family:
    """The family at the end. Fails where the history cannot have happened by the rules."""
    by_trace = {item.trace_id: item for item in calls}
    ordered = [by_trace.pop(event["circumstances"].split('"traceparent":"00-')[1][:32]) for event in events]
    assert not by_trace, "a call has left no event"
    latest_begin = -1.0
    for item in ordered:
        # Whatever came later in the order had not ended before this one began.
        assert item.ended >= latest_begin, "the order contradicts real time"
        latest_begin = max(latest_begin, item.began)
    for item, event in zip(ordered, events, strict=True):
        if item.kind == "revoke":
            assert item.reason == ""
            family = replace(family, revoked=family.revoked or "REVOKED_BY_USER")
            continue
        shown = Presentation(
            family.secret_hash, "login", 0, idempotency_key=digest_of(item.key) if item.key else b""
        )
        decision = decide(family, shown, RULES, now_ms=int(event["at"]))
        assert decision.family is not None
        family = decision.family
        expected = (-1, REFUSED[decision.verdict]) if decision.verdict in REFUSED else (family.generation, "")
        assert (item.generation, item.reason) == expected, (item, decision.verdict)
    return family


@pytest.mark.timeout(3600)
async def test_calls_at_once_look_as_if_one_had_followed_the_other(fleet: Any) -> None:
    from identity.clock import SystemClock
    from identity.config import Settings
    from identity.parts import StoreParts, key_service

    stubs = [fleet.add_server() for _ in range(SERVERS)]
    settings = Settings(**fleet.settings)
    parts = StoreParts(settings)
    service = key_service(settings, SystemClock(), parts)
    await service.start()
    await parts.close()
    found = service.refresh_token_secrets()
    codec = RefreshTokenCodec(found.by_id, found.active_id)
    outcomes = dict.fromkeys(("alive", "ended"), 0)
    for number in range(ROUNDS):
        mix = MIXES[number % len(MIXES)]
        subject = f"subject-{number}"
        issue = pb.IssueTokensRequest(subject=subject, audience=["orders"])
        tokens = (await stubs[0].IssueTokens(issue, metadata=fleet.metadata)).tokens
        kinds = ["refresh"] * CALLS
        if "revoked" in mix:
            for place in random.sample(range(CALLS), 3):
                kinds[place] = "revoke"
        calls = await asyncio.gather(
            *(
                call(fleet, stubs[place % SERVERS], codec, kind, key, tokens)
                for place, (kind, key) in enumerate(zip(kinds, keys_of(mix), strict=True))
            )
        )
        started, *events = await fleet.events(subject)
        token = codec.decode(tokens.refresh_token)
        now_ms = int(started["at"])
        family = check(
            calls,
            events,
            Family(
                token.family_secret_hash, "login", 0, b"", now_ms, now_ms, now_ms + 7 * DAY_MS, 2 * DAY_MS,
                int(started["seq"]),
            ),
        )  # fmt: skip
        successors = {item.generation for item in calls if item.generation >= 0}
        assert successors <= {1}, "more than one successor"
        if mix in ("one key", "no keys"):
            assert (family.revoked, family.generation) == (None, 1), "a session was lost"
        outcomes["ended" if family.revoked else "alive"] += 1
    print(f"{ROUNDS} rounds of {CALLS} calls at {SERVERS} servers: {outcomes}")
    assert all(outcomes.values())
