"""What is revoked at the server is refused by verifiers, and nothing else is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from grpc_identity import Reason, TokenError, Verifier
from grpc_identity.v1 import identity_service_pb2 as pb


def reason_of(verifier: Verifier, token: str) -> Reason | None:
    try:
        verifier.verify(token)
    except TokenError as error:
        return error.reason
    return None


async def revoke(service: Any, *, caller: Any = None, **fields: Any) -> pb.RevokeResponse:
    request = pb.RevokeRequest(wait_until_applied=Duration(seconds=10), **fields)
    answer: pb.RevokeResponse = await service.identity.Revoke(request, metadata=caller or service.login)
    return answer


async def test_a_revoked_session_is_refused_by_the_time_revoke_answers(
    service: Any, new_session: Any, new_verifier: Any
) -> None:
    verifier = await new_verifier(name="orders-1")
    session, other = await new_session(), await new_session()
    assert reason_of(verifier, session.tokens.access_token) is None
    answer = await revoke(service, session_id=session.tokens.session_id)
    assert (answer.applied, answer.connected, list(answer.pending_verifiers)) == (1, 1, [])
    assert reason_of(verifier, session.tokens.access_token) is Reason.TOKEN_REVOKED
    assert reason_of(verifier, other.tokens.access_token) is None


@pytest.mark.parametrize("target", ["token", "subject", "client_id"])
async def test_what_was_issued_before_is_refused_and_what_is_issued_after_in_the_same_second_lives(
    service: Any, new_session: Any, new_verifier: Any, target: str
) -> None:
    verifier = await new_verifier()
    before = await new_session("alice")
    bystander = await new_session("bob")
    named = {"token": before.tokens.access_token, "subject": "alice", "client_id": "login"}[target]
    await revoke(service, **{target: named})
    after = await new_session("alice")
    assert reason_of(verifier, before.tokens.access_token) is Reason.TOKEN_REVOKED
    assert reason_of(verifier, after.tokens.access_token) is None
    expected = Reason.TOKEN_REVOKED if target == "client_id" else None
    assert reason_of(verifier, bystander.tokens.access_token) is expected


async def test_a_verifier_that_comes_later_learns_what_was_revoked_before(
    service: Any, new_session: Any, new_verifier: Any
) -> None:
    session = await new_session()
    await revoke(service, session_id=session.tokens.session_id)
    verifier = await new_verifier()
    assert reason_of(verifier, session.tokens.access_token) is Reason.TOKEN_REVOKED


async def test_a_stolen_refresh_token_ends_the_access_tokens_of_its_session(
    service: Any, new_session: Any, new_verifier: Any, refused: Any, wait_until: Any
) -> None:
    verifier = await new_verifier()
    session = await new_session()
    spent = session.tokens.refresh_token
    await session.refresh(key="1")
    await session.refresh(key="2")
    assert (await refused(session.refresh(spent, key="3"))).reason == "REFRESH_TOKEN_REUSED"
    token = session.tokens.access_token
    await wait_until(lambda: reason_of(verifier, token) is Reason.TOKEN_REVOKED)


async def test_access_tokens_end_and_the_session_goes_on_with_new_roles(
    service: Any, new_session: Any, new_verifier: Any
) -> None:
    verifier = await new_verifier()
    session = await new_session("alice", roles=["viewer"])
    await revoke(
        service, subject="alice", access_tokens_only=True, new_roles=pb.Roles(roles=["viewer", "refunder"])
    )
    assert reason_of(verifier, session.tokens.access_token) is Reason.TOKEN_REVOKED
    await session.refresh()
    assert verifier.verify(session.tokens.access_token).roles == {"viewer", "refunder"}
    await revoke(service, subject="alice", access_tokens_only=True, new_roles=pb.Roles())
    assert reason_of(verifier, session.tokens.access_token) is Reason.TOKEN_REVOKED
    await session.refresh()
    assert verifier.verify(session.tokens.access_token).roles == frozenset()
    later = await new_session("alice", roles=["auditor"])
    await later.refresh()
    assert verifier.verify(later.tokens.access_token).roles == {"auditor"}
    await revoke(service, subject="alice", access_tokens_only=True)
    await later.refresh()
    assert verifier.verify(later.tokens.access_token).roles == {"auditor"}


async def test_introspection_and_verifiers_agree(service: Any, new_session: Any, new_verifier: Any) -> None:
    verifier = await new_verifier()
    session = await new_session("alice")
    await revoke(service, subject="alice", access_tokens_only=True)
    request = pb.IntrospectRequest(token=session.tokens.access_token)
    assert not (await service.identity.Introspect(request, metadata=service.login)).active
    assert reason_of(verifier, session.tokens.access_token) is Reason.TOKEN_REVOKED
    request = pb.IntrospectRequest(token=session.tokens.refresh_token)
    assert (await service.identity.Introspect(request, metadata=service.login)).active


async def test_a_verifier_needs_the_grant(service: Any, new_session: Any) -> None:
    from grpc_identity import Issuer
    from grpc_identity.errors import StateFeedError

    verifier = Verifier(
        Issuer(
            "https://id.example",
            target=service.addresses.grpc_target,
            audience="orders",
            client_id="login",
            client_secret=service.secrets["login"],
        )
    )
    with pytest.raises(StateFeedError, match="PERMISSION_DENIED"):
        await asyncio.to_thread(verifier.start)
