"""Revoke, Introspect, ListSessions and GetJWKS."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration

from grpc_identity.v1 import clients_pb2, tokens_pb2
from grpc_identity.v1 import identity_service_pb2 as pb

OTHER = clients_pb2.ClientPolicy(
    grants=["GRANT_ISSUE", "GRANT_REFRESH", "GRANT_REVOKE", "GRANT_INTROSPECT"],
    subjects=["robot-*"],
    audiences=["*"],
    scopes=["*"],
)


async def is_active(service: Any, token: str) -> bool:
    answer = await service.identity.Introspect(pb.IntrospectRequest(token=token), metadata=service.login)
    if not answer.active:
        assert answer == pb.IntrospectResponse(active=False)  # nothing else is said
    return bool(answer.active)


async def revoke(service: Any, caller: Any = None, **target: Any) -> pb.RevokeResponse:
    response: pb.RevokeResponse = await service.identity.Revoke(
        pb.RevokeRequest(**target), metadata=caller or service.login
    )
    return response


async def test_revoking_a_refresh_token_ends_its_session_whichever_generation_it_is(
    service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    first = session.tokens.refresh_token
    await session.refresh()
    await revoke(service, token=first, reason="REVOCATION_REASON_LOGOUT")
    assert (await refused(session.refresh())).reason == "FAMILY_REVOKED"
    assert not await is_active(service, session.tokens.access_token)
    await revoke(service, token=first)  # idempotent


async def test_revoking_an_access_token_ends_it_alone(service: Any, new_session: Any) -> None:
    session = await new_session()
    revoked = session.tokens.access_token
    await session.refresh()
    await revoke(service, token=revoked)
    assert not await is_active(service, revoked)
    assert await is_active(service, session.tokens.access_token)
    await session.refresh()


@pytest.mark.parametrize("token", ["unknown", "gidr_" + "x" * 94, "a.b.c"])
async def test_an_unknown_token_is_a_success(service: Any, token: str) -> None:
    assert await revoke(service, token=token) == pb.RevokeResponse()
    assert await revoke(service, session_id="x" * 32) == pb.RevokeResponse()


async def test_nobody_revokes_what_is_anothers_but_an_administrator(
    service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    other = await service.new_client("other", OTHER)
    for target in (
        {"token": session.tokens.refresh_token},
        {"token": session.tokens.access_token},
        {"session_id": session.tokens.session_id},
        {"client_id": "login"},
    ):
        refusal = await refused(revoke(service, other, **target))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "REVOCATION_NOT_ALLOWED")
    assert (await refused(revoke(service, other, subject="alice"))).reason == "SUBJECT_NOT_ALLOWED"
    await session.refresh()
    await revoke(service, service.admin, session_id=session.tokens.session_id)
    assert (await refused(session.refresh())).reason == "FAMILY_REVOKED"


async def test_a_revoked_client_loses_sessions_and_service_tokens_in_every_bucket(
    service: Any, new_session: Any, refused: Any
) -> None:
    sessions = [await new_session(f"user-{number}") for number in range(20)]
    own = await service.identity.IssueTokens(
        pb.IssueTokensRequest(audience=["orders"]), metadata=service.login
    )
    assert await is_active(service, own.tokens.access_token)
    await revoke(service, client_id="login")
    for session in sessions:
        assert (await refused(session.refresh())).reason == "FAMILY_REVOKED"
    assert not await is_active(service, own.tokens.access_token)
    again = await service.identity.IssueTokens(
        pb.IssueTokensRequest(audience=["orders"]), metadata=service.login
    )
    assert await is_active(service, again.tokens.access_token)


async def test_a_revocation_that_does_not_say_what_it_means_is_refused(service: Any, refused: Any) -> None:
    assert "target" in (await refused(revoke(service))).violations
    assert "reason" in (await refused(revoke(service, subject="alice", reason=99))).violations
    only = await refused(revoke(service, client_id="login", access_tokens_only=True))
    assert "access_tokens_only" in only.violations
    roles = pb.Roles(roles=["x" * 100, "y" * 100, "z" * 100])
    too_many = await refused(revoke(service, subject="alice", access_tokens_only=True, new_roles=roles))
    assert "new_roles" in too_many.violations
    assert "new_roles" in (await refused(revoke(service, subject="alice", new_roles=pb.Roles()))).violations
    wait = Duration(seconds=3600)
    too_long = await refused(revoke(service, subject="alice", wait_until_applied=wait))
    assert "wait_until_applied" in too_long.violations


async def test_introspection_tells_what_a_token_is(service: Any, new_session: Any) -> None:
    session = await new_session(roles=["admin"])
    access = await service.identity.Introspect(
        pb.IntrospectRequest(token=session.tokens.access_token), metadata=service.login
    )
    assert access.active
    assert access.token_type == tokens_pb2.TOKEN_TYPE_ACCESS_TOKEN
    assert (access.subject, access.client_id, list(access.audience)) == ("alice", "login", ["orders"])
    assert sorted(access.scopes) == ["orders.read", "orders.write"]
    assert (access.session_id, list(access.roles)) == (session.tokens.session_id, ["admin"])
    assert access.expires_at == session.tokens.access_token_expires_at
    refresh = await service.identity.Introspect(
        pb.IntrospectRequest(token=session.tokens.refresh_token), metadata=service.login
    )
    assert refresh.token_type == tokens_pb2.TOKEN_TYPE_REFRESH_TOKEN
    assert refresh.expires_at == session.tokens.refresh_token_expires_at


async def test_a_spent_refresh_token_is_not_active(service: Any, new_session: Any) -> None:
    session = await new_session()
    spent = session.tokens.refresh_token
    await session.refresh()
    assert not await is_active(service, spent)
    assert await is_active(service, session.tokens.refresh_token)
    assert not await is_active(service, "nonsense")


async def test_the_sessions_of_a_subject_are_listed_newest_first(service: Any, new_session: Any) -> None:
    sessions = []
    for number in range(3):
        context = tokens_pb2.ClientContext(ip_address=f"192.0.2.{number}", device_label=f"Device {number}")
        sessions.append(await new_session(client_context=context))
    await revoke(service, session_id=sessions[1].tokens.session_id)
    await sessions[0].refresh(address="2001:db8:0::1")
    answer = await service.identity.ListSessions(
        pb.ListSessionsRequest(subject="alice"), metadata=service.login
    )
    assert {item.session_id for item in answer.sessions} == {sessions[n].tokens.session_id for n in (0, 2)}
    first = next(item for item in answer.sessions if item.session_id == sessions[0].tokens.session_id)
    assert first.client_context.ip_address == "2001:db8::1"
    assert first.last_used_at.ToMilliseconds() > first.created_at.ToMilliseconds()
    assert (first.client_id, list(first.scopes)) == ("login", ["orders.read", "orders.write"])


async def test_sessions_come_in_pages(service: Any, new_session: Any, refused: Any) -> None:
    started = {(await new_session()).tokens.session_id for _ in range(5)}
    listed: list[str] = []
    page_token = ""
    while True:
        answer = await service.identity.ListSessions(
            pb.ListSessionsRequest(subject="alice", page_size=2, page_token=page_token),
            metadata=service.login,
        )
        listed += [item.session_id for item in answer.sessions]
        page_token = answer.next_page_token
        if not page_token:
            break
    assert len(listed) == 5
    assert set(listed) == started
    for fields in ({"page_size": 101}, {"page_size": -1}, {"page_token": "x"}):
        request = pb.ListSessionsRequest(subject="alice", **fields)
        refusal = await refused(service.identity.ListSessions(request, metadata=service.login))
        assert refusal.reason == "FIELD_INVALID"


async def test_public_keys_are_open_to_all_exactly_as_rfc_7517_has_them(service: Any) -> None:
    answer = await service.identity.GetJWKS(pb.GetJWKSRequest())
    (key,) = [json_format.MessageToDict(item) for item in answer.keys]
    assert set(key) == {"kty", "use", "alg", "kid", "crv", "x", "y"}
    assert (key["kty"], key["use"], key["alg"], key["crv"]) == ("EC", "sig", "ES256", "P-256")
    assert 60 <= answer.max_age.seconds <= 3600
    again = await service.identity.GetJWKS(pb.GetJWKSRequest(if_version=answer.version))
    assert again.not_modified
    assert not again.keys
    assert again.version == answer.version


@pytest.mark.parametrize("algorithm", ["RS256", "EdDSA"])
async def test_other_algorithms_are_a_setting(make_settings: Any, start_service: Any, algorithm: str) -> None:
    running = await start_service(make_settings(keys={"algorithm": algorithm}))
    issued = await running.identity.IssueTokens(
        pb.IssueTokensRequest(subject="alice", audience=["orders"]), metadata=running.login
    )
    assert await is_active(running, issued.tokens.access_token)
    (key,) = (await running.identity.GetJWKS(pb.GetJWKSRequest())).keys
    assert key.alg == algorithm
