"""A server is killed at each step of issuing, refreshing and revoking. The caller asks again, elsewhere, with its key."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from concurrency.server_process import STEPS

from grpc_identity.v1 import identity_service_pb2 as pb

ISSUE = pb.IssueTokensRequest(subject="alice", audience=["orders"], idempotency_key="issue-1")


async def dies_of(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


async def types_of(fleet: Any) -> list[str]:
    return [event["type"] for event in await fleet.events("alice")]


@pytest.mark.parametrize("step", STEPS)
async def test_issuing_ends_in_one_session(fleet: Any, step: str) -> None:
    dying, other = fleet.add_server(dies=step), fleet.add_server()
    await dies_of(dying.IssueTokens(ISSUE, metadata=fleet.metadata))
    first = (await other.IssueTokens(ISSUE, metadata=fleet.metadata)).tokens
    again = (await other.IssueTokens(ISSUE, metadata=fleet.metadata)).tokens
    assert (again.session_id, again.refresh_token) == (first.session_id, first.refresh_token)
    repeated = ["tokens.reissued"] * (1 if step == STEPS[0] else 2)
    assert await types_of(fleet) == ["tokens.issued", *repeated]
    refresh = pb.RefreshRequest(refresh_token=first.refresh_token, idempotency_key="a")
    assert (await other.Refresh(refresh, metadata=fleet.metadata)).tokens.session_id == first.session_id


@pytest.mark.parametrize("step", STEPS)
async def test_refreshing_ends_in_one_successor(fleet: Any, step: str) -> None:
    other = fleet.add_server()
    tokens = (await other.IssueTokens(ISSUE, metadata=fleet.metadata)).tokens
    dying = fleet.add_server(dies=step)
    refresh = pb.RefreshRequest(refresh_token=tokens.refresh_token, idempotency_key="a")
    await dies_of(dying.Refresh(refresh, metadata=fleet.metadata))
    first = (await other.Refresh(refresh, metadata=fleet.metadata)).tokens
    again = (await other.Refresh(refresh, metadata=fleet.metadata)).tokens
    assert first.refresh_token == again.refresh_token
    repeated = ["refresh.retry_answered"] * (1 if step == STEPS[0] else 2)
    assert await types_of(fleet) == ["tokens.issued", "tokens.refreshed", *repeated]
    # It works, and whoever holds the one before does not.
    onward = pb.RefreshRequest(refresh_token=first.refresh_token, idempotency_key="b")
    await other.Refresh(onward, metadata=fleet.metadata)
    with pytest.raises(grpc.aio.AioRpcError):
        await other.Refresh(refresh, metadata=fleet.metadata)


@pytest.mark.parametrize("step", STEPS[:2])
async def test_revoking_ends_in_a_revoked_session(fleet: Any, step: str) -> None:
    other = fleet.add_server()
    tokens = (await other.IssueTokens(ISSUE, metadata=fleet.metadata)).tokens
    dying = fleet.add_server(dies=step)
    revoke = pb.RevokeRequest(session_id=tokens.session_id)
    await dies_of(dying.Revoke(revoke, metadata=fleet.metadata))
    await other.Revoke(revoke, metadata=fleet.metadata)
    recorded = ["session.revoked"] * (1 if step == STEPS[0] else 2)
    assert await types_of(fleet) == ["tokens.issued", *recorded]
    refresh = pb.RefreshRequest(refresh_token=tokens.refresh_token, idempotency_key="a")
    with pytest.raises(grpc.aio.AioRpcError):
        await other.Refresh(refresh, metadata=fleet.metadata)
