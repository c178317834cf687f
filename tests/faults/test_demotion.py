"""A primary and its replica change places, as people or other programs have them do; the service knows one name for them."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration
from redis import Redis

from grpc_identity.v1 import identity_service_pb2 as pb


def client(server: Any) -> Any:
    return Redis.from_url(server.connection_url)


async def test_a_name_that_names_the_old_primary_is_a_problem_and_one_that_moves_is_followed(
    way: Any, new_pair: Any, make_settings: Any, start_service: Any, refused: Any, wait_until: Any
) -> None:
    pair = new_pair()
    await way.lead_to(pair.primary.port)
    await wait_until(pair.is_in_step)
    service = await start_service(make_settings(redis={"url": way.url, "timeout_ms": 1000}))
    issue = pb.IssueTokensRequest(subject="alice", audience=["orders"])
    tokens = (await service.identity.IssueTokens(issue, metadata=service.login)).tokens
    await wait_until(pair.is_in_step)
    client(pair.replica).replicaof("NO", "ONE")
    client(pair.primary).replicaof("127.0.0.1", pair.replica.port)

    # The way still leads to the old one.
    request = pb.RefreshRequest(refresh_token=tokens.refresh_token, idempotency_key="one")
    refusal = await refused(service.identity.Refresh(request, metadata=service.login))
    assert (refusal.reason, refusal.retry_after_seconds) == ("STORE_UNAVAILABLE", 1.0)
    assert [problem.name for problem in await service.server.store.problems()] == ["store_read_only"]
    # Verifiers are not told that they are current by a store that may be far behind.
    await wait_until(lambda: not service.server._feed.is_current)

    # Only new connections are led elsewhere, as by a name; those that are open stay.
    way.upstream_port = pair.replica.port

    async def goes_on() -> bool:
        try:
            await service.identity.Refresh(request, metadata=service.login)
        except Exception:
            return False
        return True

    await wait_until(goes_on)
    await wait_until(lambda: service.server._feed.is_current)
    assert not await service.server.store.problems()


async def test_questions_are_heard_where_one_of_a_clock_that_was_ahead_is_lost(
    way: Any, new_pair: Any, make_settings: Any, start_service: Any, wait_until: Any
) -> None:
    """Servers ask each other how far a revocation has got, and whoever asks waits for each of them."""
    pair = new_pair()
    await way.lead_to(pair.primary.port)
    await wait_until(pair.is_in_step)
    service = await start_service(make_settings(redis={"url": way.url, "timeout_ms": 1000}))
    await wait_until(lambda: service.server._feed.is_current)
    await wait_until(pair.is_in_step)
    pair.hold_back()
    client(pair.primary).client_kill_filter(_type="replica")  # nor will it hear what is sent from here on
    question = "9000000000000-0"
    client(pair.primary).xadd(service.server.store.keys.questions, {"wait_ms": 0}, id=question)
    await wait_until(lambda: service.server._feed._last_question == question)
    await way.lead_to(pair.lose_the_primary())

    async def is_heard() -> bool:
        request = pb.RevokeRequest(subject="nobody", wait_until_applied=Duration(seconds=1))
        try:
            answer = await service.identity.Revoke(request, metadata=service.login)
        except Exception:
            return False
        return not answer.pending_verifiers

    await wait_until(is_heard, seconds=30)
