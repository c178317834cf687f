"""IssueTokens: what is given to whom, and what is refused without changing anything."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import jwt
import pytest

from grpc_identity.v1 import clients_pb2, tokens_pb2
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.tokens.family_id import FamilyId


async def verified(service: Any, access_token: str, audience: str = "orders") -> dict[str, Any]:
    """The claims, read by an independent library with the published keys."""
    jwks = await service.identity.GetJWKS(pb.GetJWKSRequest())
    header = jwt.get_unverified_header(access_token)
    key = next(key for key in jwks.keys if key.kid == header["kid"])
    members = {name.name: value for name, value in key.ListFields()}
    claims: dict[str, Any] = jwt.decode(
        access_token,
        jwt.PyJWK(members).key,
        algorithms=[header["alg"]],
        audience=audience,
        issuer="https://id.example",
        options={"require": ["exp", "iat", "jti", "sub"]},
    )
    return claims


async def test_a_session_gets_an_access_token_that_says_what_was_asked_for(
    service: Any, new_session: Any
) -> None:
    session = await new_session(
        subject="alice",
        roles=["admin"],
        acr="2",
        amr=["pwd", "otp"],
        client_kind=tokens_pb2.CLIENT_KIND_MOBILE,
    )
    claims = await verified(service, session.tokens.access_token)
    assert claims["sub"] == "alice"
    assert claims["client_id"] == "login"
    assert claims["sid"] == session.tokens.session_id
    assert claims["scope"] == "orders.read orders.write"
    assert (claims["roles"], claims["acr"], claims["amr"]) == (["admin"], "2", ["pwd", "otp"])
    assert claims["exp"] - claims["iat"] == 600
    assert claims["exp"] == session.tokens.access_token_expires_at.seconds
    assert claims["iat"] + 400 < session.tokens.refresh_after.seconds < claims["exp"]


async def test_a_client_gets_a_token_of_its_own_and_no_refresh_token(service: Any) -> None:
    response = await service.identity.IssueTokens(
        pb.IssueTokensRequest(audience=["orders"], scopes=["orders.read"]), metadata=service.login
    )
    claims = await verified(service, response.tokens.access_token)
    assert claims["sub"] == claims["client_id"] == "login"
    assert "sid" not in claims
    assert not response.tokens.refresh_token
    assert not response.tokens.HasField("refresh_token_expires_at")
    assert not response.tokens.session_id


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"audience": ["billing"]}, "AUDIENCE_NOT_ALLOWED"),
        ({"scopes": ["orders.delete"]}, "SCOPE_NOT_ALLOWED"),
        ({"roles": ["root"]}, "ROLE_NOT_ALLOWED"),
        ({"subject": "someone-else"}, "SUBJECT_NOT_ALLOWED"),
        ({"subject": ""}, "GRANT_MISSING"),
    ],
)
async def test_what_the_policy_does_not_cover_is_refused(
    service: Any, refused: Any, fields: dict[str, Any], reason: str
) -> None:
    narrow = await service.new_client(
        "narrow",
        clients_pb2.ClientPolicy(
            grants=["GRANT_ISSUE"],
            subjects=["user-*"],
            audiences=["orders"],
            scopes=["orders.read"],
            roles=["customer"],
        ),
    )
    request = {"subject": "user-1", "audience": ["orders"], "scopes": ["orders.read"]} | fields
    refusal = await refused(service.identity.IssueTokens(pb.IssueTokensRequest(**request), metadata=narrow))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, reason)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"audience": []}, "audience"),
        ({"audience": ["orders", "orders"]}, "audience"),
        ({"audience": [""]}, "audience[0]"),
        ({"audience": ["a b"]}, "audience[0]"),
        ({"audience": [f"a{number}" for number in range(17)]}, "audience"),
        ({"scopes": ['quo"te']}, "scopes[0]"),
        ({"scopes": [f"s{number}" for number in range(33)]}, "scopes"),
        ({"subject": "x" * 129}, "subject"),
        ({"subject": "line\nbreak"}, "subject"),
        ({"roles": ["é"]}, "roles[0]"),
        ({"acr": "x" * 129}, "acr"),
        ({"amr": [f"m{number}" for number in range(9)]}, "amr"),
        ({"idempotency_key": "x" * 129}, "idempotency_key"),
        ({"client_context": tokens_pb2.ClientContext(ip_address="300.1.1.1")}, "client_context.ip_address"),
        ({"client_context": tokens_pb2.ClientContext(user_agent="x" * 513)}, "client_context.user_agent"),
        ({"subject": "", "acr": "2"}, "acr"),
    ],
)
async def test_a_field_out_of_bounds_is_named(
    service: Any, refused: Any, fields: dict[str, Any], field: str
) -> None:
    request = {"subject": "alice", "audience": ["orders"]} | fields
    refusal = await refused(
        service.identity.IssueTokens(pb.IssueTokensRequest(**request), metadata=service.login)
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert field in refusal.violations


async def test_claims_over_one_kibibyte_are_refused_and_start_no_session(service: Any, refused: Any) -> None:
    refusal = await refused(
        service.identity.IssueTokens(
            pb.IssueTokensRequest(
                subject="alice",
                audience=["orders"],
                scopes=[f"orders.scope-number-{n:03}" for n in range(32)],
            ),
            metadata=service.login,
        )
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOKEN_TOO_LARGE")
    assert await service.server.store.reader.list_families("alice", offset=0, limit=10) == []


async def test_a_retry_with_the_same_key_gets_the_same_session(
    service: Any, new_session: Any, refused: Any
) -> None:
    first = await new_session(idempotency_key="login-4711")
    again = await new_session(idempotency_key="login-4711")
    assert again.tokens.refresh_token == first.tokens.refresh_token
    assert again.tokens.session_id == first.tokens.session_id
    assert again.tokens.access_token != first.tokens.access_token
    assert (await verified(service, again.tokens.access_token))["sid"] == first.tokens.session_id
    assert len(await service.server.store.reader.list_families("alice", offset=0, limit=10)) == 1
    refusal = await refused(new_session(idempotency_key="login-4711", scopes=["orders.read"]))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IDEMPOTENCY_KEY_REUSED")


async def test_parallel_attempts_with_one_key_start_one_session(service: Any, new_session: Any) -> None:
    sessions = await asyncio.gather(*(new_session(idempotency_key="once") for _ in range(50)))
    assert len({session.tokens.refresh_token for session in sessions}) == 1


@pytest.mark.parametrize(("kind", "days"), [("CLIENT_KIND_WEB", 7), ("CLIENT_KIND_MOBILE", 30)])
async def test_the_kind_of_client_decides_the_absolute_lifetime(
    service: Any, new_session: Any, kind: str, days: int
) -> None:
    session = await new_session(client_kind=kind)
    family = await service.server.store.reader.find_family(FamilyId.parse(session.tokens.session_id))
    assert family.absolute_expiry_ms - family.created_ms == days * 24 * 3600 * 1000
    idle_seconds = session.tokens.refresh_token_expires_at.seconds - family.created_ms // 1000
    assert abs(idle_seconds - 48 * 3600) <= 1


async def test_an_end_user_is_believed_only_from_who_may_forward_one(service: Any, new_session: Any) -> None:
    context = tokens_pb2.ClientContext(ip_address="192.0.2.7", user_agent="Browser/1", device_label="Laptop")
    policy = clients_pb2.ClientPolicy(
        grants=["GRANT_ISSUE"], subjects=["*"], audiences=["orders"], scopes=["*"]
    )
    other = await service.new_client("no-forwarding", policy)
    for caller, expected in ((service.login, "192.0.2.7"), (other, "")):
        session = await new_session(caller=caller, client_context=context)
        state = await service.server.store.reader.find_family(FamilyId.parse(session.tokens.session_id))
        assert state.end_user.ip_address == expected


@pytest.mark.parametrize("target", ["session_id", "subject"])
async def test_a_retry_brings_no_session_back_that_was_ended_meanwhile(
    service: Any, new_session: Any, refused: Any, target: str
) -> None:
    first = await new_session(idempotency_key="login-1")
    named = {"session_id": first.tokens.session_id, "subject": "alice"}[target]
    await service.identity.Revoke(pb.RevokeRequest(**{target: named}), metadata=service.login)
    refusal = await refused(new_session(idempotency_key="login-1"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "FAMILY_REVOKED")
    await new_session(idempotency_key="login-2")


@pytest.mark.parametrize(
    "fields", [{"subject": "{}"}, {"audience": ["{}"]}, {"scopes": ["a:{}"]}, {"roles": ["{}"]}]
)
@pytest.mark.parametrize("kind", ["refresh_token", "access_token"])
async def test_a_token_in_the_place_of_a_name_is_refused_and_told_to_nobody(
    service: Any, new_session: Any, refused: Any, fields: dict[str, Any], kind: str
) -> None:
    token = getattr((await new_session()).tokens, kind)

    def filled(value: Any) -> Any:
        return value.format(token) if isinstance(value, str) else [each.format(token) for each in value]

    request = {"subject": "alice", "audience": ["orders"]} | {
        name: filled(value) for name, value in fields.items()
    }
    call = service.identity.IssueTokens(pb.IssueTokensRequest(**request), metadata=service.login)
    refusal = await refused(call)
    assert refusal.reason == "FIELD_INVALID"
    assert token not in repr(refusal)
    if list(fields) == ["subject"]:
        call = service.identity.Revoke(pb.RevokeRequest(subject=token), metadata=service.login)
        assert (await refused(call)).reason == "FIELD_INVALID"
    waiting = await service.server.store.outbox_view.after({}, at_most=1000)
    assert waiting
    assert token not in repr(waiting)


async def test_a_token_that_an_end_user_sends_along_is_not_recorded(service: Any, new_session: Any) -> None:
    token = (await new_session()).tokens.refresh_token
    context = tokens_pb2.ClientContext(user_agent=f"App/1 {token}", device_label=token)
    session = await new_session(client_context=context)
    state = await service.server.store.reader.find_family(FamilyId.parse(session.tokens.session_id))
    assert state.end_user.user_agent == f"App/1 …{token[-6:]}"
    assert state.end_user.device_label == f"…{token[-6:]}"
