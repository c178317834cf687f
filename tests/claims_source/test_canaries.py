"""Whom the source is asked about, and what it says, turns up where it belongs and nowhere else."""

from __future__ import annotations

import logging
from typing import Any

import grpc
import pytest
from claims_source.source import active, disabled

from grpc_identity.v1 import claims_source_pb2 as source_pb2

SUBJECT = "CANARY-subject-71c2"
ROLE = "CANARY-role-20be"
CLAIM = "CANARY-claim-9d44"
DETAILS = "CANARY-details-e513"


@pytest.mark.parametrize("service", [{"breaker_failures": 2}], indirect=True, ids=[""])
async def test_neither_subject_nor_claims_turn_up_in_logs_errors_or_metrics(
    source: Any, service: Any, new_session: Any, caplog: Any, until_answered: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    source.details = DETAILS
    source.answer = active(ROLE, tenant=CLAIM)
    sessions = [await new_session(SUBJECT) for _ in range(4)]
    errors: list[str] = []

    async def both(session: Any) -> None:
        for call in (session.refresh(), new_session(SUBJECT)):
            try:
                await call
            except grpc.aio.AioRpcError as error:
                errors.append(f"{error!r} {error.details()} {error.trailing_metadata()}")

    for bad in (
        source_pb2.GetClaimsResponse(),
        active(f"{ROLE} {ROLE}"),
        active(ROLE, tenant={CLAIM: CLAIM}),
        active(ROLE, sub=CLAIM),
        active(ROLE, tenant=CLAIM * 20),
    ):
        source.answer = bad
        await both(sessions[0])
    source.is_away = True
    for _ in range(3):
        await both(sessions[1])
    source.is_away, source.answer = False, active(ROLE, plan=CLAIM)
    await until_answered(lambda: new_session(SUBJECT))
    await sessions[2].refresh()
    source.answer = disabled()
    await both(sessions[3])
    assert len(errors) >= 10
    metrics = "\n".join(
        str(sample) for metric in service.server.meters.registry.collect() for sample in metric.samples
    )
    places = {"a log": caplog.text, "an error": "\n".join(errors), "a metric": metrics}
    for place, text in places.items():
        assert len(text) > 100, place
        for canary in (SUBJECT, ROLE, CLAIM, DETAILS):
            assert canary not in text, f"{canary} in {place}"
