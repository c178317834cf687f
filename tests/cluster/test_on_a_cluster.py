"""What holds on one server holds on a cluster: the same tests, with another store. All of them run there by ``make test-cluster``."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from audit.test_relay import issue
from concurrency import test_histories_are_linear as linear
from hypothesis.stateful import run_state_machine_as_test
from model.test_families_follow_their_rules import machine, test_a_history_that_meets_every_rule
from rpc.test_refresh_table import *  # noqa: F403
from verifiers.test_revocations_reach_verifiers import *  # noqa: F403

from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import identity_service_pb2 as pb

assert test_a_history_that_meets_every_rule

EXAMPLES = 20
# One of each kind: with one key, without, and one that ends.
LINEAR_ROUNDS = 3


def test_the_service_and_its_rules_agree(stepwise: Any) -> None:
    run_state_machine_as_test(
        machine(stepwise),
        settings=hypothesis.settings(
            max_examples=EXAMPLES,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )


async def test_two_hundred_calls_at_three_servers_have_one_successor(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "ROUNDS", LINEAR_ROUNDS)
    await linear.test_calls_at_once_look_as_if_one_had_followed_the_other(fleet)


async def test_events_of_every_bucket_reach_the_backend_and_leave_the_outbox(
    collector: Any, make_settings: Any, start_service: Any, wait_until: Any
) -> None:
    service = await start_service(make_settings(audit={"relay": True, "relay_poll_ms": 10}))
    for number in range(64):
        await issue(service, subject=f"person-{number}")

    async def is_drained() -> bool:
        return bool((await service.server.store.outbox.backlog(["otlp"])).events == 0)

    await wait_until(lambda: len(collector.of_type("tokens.issued")) >= 64)
    await wait_until(is_drained)
    issued = collector.of_type("tokens.issued")
    assert {event["identity.event.bucket"] for event in issued} == set(range(8))


async def test_revoking_all_of_a_client_holds_at_every_primary(
    service: Any, new_session: Any, refused: Any
) -> None:
    sessions = [await new_session(f"person-{number}") for number in range(24)]
    await service.identity.Revoke(pb.RevokeRequest(client_id="login"), metadata=service.login)
    for session in sessions:
        assert (await refused(session.refresh())).reason == "FAMILY_REVOKED"


async def test_a_clients_disabling_is_known_at_once(service: Any, new_session: Any, refused: Any) -> None:
    session = await new_session()
    disable = admin_pb.SetClientDisabledRequest(client_id="login", disabled=True)
    await service.administration.SetClientDisabled(disable, metadata=service.admin)
    assert (await refused(session.refresh())).reason == "CLIENT_DISABLED"
