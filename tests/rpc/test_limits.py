"""Limits: exact about the wait, counted where they say, and never hiding a theft."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1 import tokens_pb2


@pytest.fixture
async def limited(make_settings: Any, start_service: Any) -> Any:
    """A service with the limits it ships with."""
    return await start_service(make_settings(limits={"refreshes_per_family_per_minute": 5}))


async def start(service: Any, subject: str = "alice") -> tokens_pb2.TokenSet:
    request = pb.IssueTokensRequest(subject=subject, audience=["orders"])
    tokens: tokens_pb2.TokenSet = (await service.identity.IssueTokens(request, metadata=service.login)).tokens
    return tokens


async def refresh(service: Any, token: str, *, key: str = "", address: str = "") -> str:
    request = pb.RefreshRequest(refresh_token=token, idempotency_key=key)
    request.client_context.ip_address = address
    answer = await service.identity.Refresh(request, metadata=service.login)
    live: str = answer.tokens.refresh_token
    return live


async def test_a_session_refreshes_five_times_a_minute_and_retry_info_is_exact(
    limited: Any, refused: Any
) -> None:
    token = (await start(limited)).refresh_token
    for _ in range(5):
        token = await refresh(limited, token)
    refusal = await refused(refresh(limited, token))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert 11 < refusal.retry_after_seconds <= 12
    limited.travel(seconds=refusal.retry_after_seconds - 0.5)
    assert (await refused(refresh(limited, token))).reason == "RATE_LIMITED"
    limited.travel(seconds=0.5)
    await refresh(limited, token)


async def test_a_limit_hides_no_theft(limited: Any, refused: Any) -> None:
    first = token = (await start(limited)).refresh_token
    for _ in range(5):
        token = await refresh(limited, token)
    assert (await refused(refresh(limited, token))).reason == "RATE_LIMITED"
    assert (await refused(refresh(limited, first))).reason == "REFRESH_TOKEN_REUSED"
    assert (await refused(refresh(limited, token))).reason == "FAMILY_REVOKED"


async def test_guessing_from_one_address_stops_there_and_locks_out_nobody_else(
    make_settings: Any, start_service: Any, refused: Any
) -> None:
    service = await start_service(make_settings(limits={"address_failures_per_minute": 3}))
    honest = (await start(service)).refresh_token
    reasons = [
        (await refused(refresh(service, f"gidr_guess-{number}", address="192.0.2.66"))).reason
        for number in range(5)
    ]
    assert reasons == ["REFRESH_TOKEN_INVALID"] * 3 + ["RATE_LIMITED"] * 2
    other = await refused(refresh(service, "gidr_guess", address="192.0.2.7"))
    assert other.reason == "REFRESH_TOKEN_INVALID"
    # Failures spend another budget than successes: who shares the address with the thief goes on.
    await refresh(service, honest, address="192.0.2.66")


async def test_refusals_of_authentic_tokens_count_against_the_address_too(
    make_settings: Any, start_service: Any, refused: Any
) -> None:
    service = await start_service(
        make_settings(limits={"address_failures_per_minute": 2}, redis={"buckets": 1})
    )
    tokens = await start(service)
    await service.identity.Revoke(pb.RevokeRequest(session_id=tokens.session_id), metadata=service.login)
    reasons = [
        (await refused(refresh(service, tokens.refresh_token, address="192.0.2.66"))).reason for _ in range(4)
    ]
    assert reasons == ["FAMILY_REVOKED"] * 2 + ["RATE_LIMITED"] * 2


async def test_the_strict_profile_holds_an_address_to_five_successes(
    make_settings: Any, start_service: Any, refused: Any
) -> None:
    service = await start_service(make_settings(limits={"profile": "strict"}, redis={"buckets": 1}))
    sessions = [(await start(service, f"user-{number}")).refresh_token for number in range(6)]
    for token in sessions[:5]:
        await refresh(service, token, address="192.0.2.1")
    refusal = await refused(refresh(service, sessions[5], address="192.0.2.1"))
    assert refusal.reason == "RATE_LIMITED"
    await refresh(service, sessions[5], address="192.0.2.2")  # a refused refresh has spent nothing


async def test_a_client_with_too_much_under_way_is_told_early(service: Any) -> None:
    from grpc_identity.v1 import clients_pb2

    policy = clients_pb2.ClientPolicy(
        grants=["GRANT_ISSUE"], subjects=["*"], audiences=["orders"], concurrent_calls=2
    )
    busy = await service.new_client("busy", policy)
    request = pb.IssueTokensRequest(subject="alice", audience=["orders"])
    calls = (service.identity.IssueTokens(request, metadata=busy) for _ in range(60))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(refused) < 60
    assert {error.code() for error in refused} <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
    await service.identity.IssueTokens(request, metadata=busy)  # what is over is not counted


async def test_a_message_beyond_the_bound_is_refused(service: Any, refused: Any) -> None:
    request = pb.IntrospectRequest(token="x" * 100_000)
    refusal = await refused(service.identity.Introspect(request, metadata=service.login))
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_nobody_waits_for_a_clock_of_the_store_that_has_gone_back(
    make_settings: Any, start_service: Any, refused: Any
) -> None:
    limits = {"refreshes_per_family_per_minute": 5, "address_failures_per_minute": 2}
    service = await start_service(make_settings(limits=limits, redis={"buckets": 1}))
    clock = service.server.store.clock
    clock.frozen_at_ms = (right_ms := 1_900_000_000_000)
    older = (await start(service, "bob")).refresh_token
    clock.frozen_at_ms = right_ms + 3_600_000
    newer = (await start(service)).refresh_token
    for _ in range(5):
        older = await refresh(service, older, address="192.0.2.66")
        newer = await refresh(service, newer, address="192.0.2.66")
    for token in (older, newer):
        assert (await refused(refresh(service, token))).reason == "RATE_LIMITED"

    over = await start(service)
    await service.identity.Revoke(pb.RevokeRequest(session_id=over.session_id), metadata=service.login)

    async def fail() -> str:
        reason: str = (await refused(refresh(service, over.refresh_token, address="192.0.2.66"))).reason
        return reason

    assert [await fail() for _ in range(3)] == ["FAMILY_REVOKED"] * 2 + ["RATE_LIMITED"]
    clock.frozen_at_ms = right_ms + 1_000
    for token in (older, newer):
        await refresh(service, token, address="192.0.2.66")
    assert [await fail() for _ in range(3)] == ["FAMILY_REVOKED"] * 2 + ["RATE_LIMITED"]
