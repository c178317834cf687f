"""Exchanging a token to call on in its subject's name (RFC 8693): narrower, no longer, and gone with its session."""

from __future__ import annotations

import base64
import json
from typing import Any

import grpc
import pytest

from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb

EXCHANGER = clients_pb2.ClientPolicy(
    grants=["GRANT_EXCHANGE", "GRANT_INTROSPECT", "GRANT_CLIENT_CREDENTIALS"],
    subjects=["alice", "gateway"],
    audiences=["orders", "stock-test"],
    scopes=["stock.*", "orders.*"],
)
ISSUE = pb.IssueTokensRequest(
    subject="alice",
    audience=["orders", "stock-test"],
    scopes=["orders.read", "stock.read", "bank.read"],
    roles=["clerk"],
    acr="aal2",
    amr=["otp", "pwd"],
)


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


@pytest.fixture
async def gateway(service: Any) -> Any:
    return await service.new_client("gateway", EXCHANGER)


def exchange(service: Any, token: str, metadata: Any, **wanted: Any) -> Any:
    request = pb.ExchangeTokenRequest(subject_token=token, **wanted)
    return service.identity.ExchangeToken(request, metadata=metadata)


async def test_the_new_token_is_narrower_and_names_who_acts(service: Any, gateway: Any) -> None:
    issued = (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens
    answer = await exchange(
        service, issued.access_token, gateway, audience=["stock-test"], scopes=["stock.read"]
    )
    before, after = claims_of(issued.access_token), claims_of(answer.tokens.access_token)
    assert (after["aud"], after["scope"], after["client_id"]) == ("stock-test", "stock.read", "gateway")
    assert after["act"] == {"sub": "gateway"}
    for same in ("iss", "sub", "sid", "roles", "acr", "amr"):
        assert after[same] == before[same], same
    assert after["exp"] <= before["exp"]
    assert after["jti"] != before["jti"]
    assert not answer.tokens.refresh_token
    assert list(answer.tokens.scopes) == ["stock.read"]


async def test_an_exchange_of_an_exchanged_token_keeps_the_chain_and_ends_somewhere(
    service: Any, refused: Any
) -> None:
    token = (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens.access_token
    for number in range(4):
        metadata = await service.new_client(f"hop-{number}", EXCHANGER)
        answer = await exchange(service, token, metadata, audience=["orders"], scopes=["orders.read"])
        token = answer.tokens.access_token
    chain, act = [], claims_of(token).get("act")
    while act:
        chain.append(act["sub"])
        act = act.get("act")
    assert chain == ["hop-3", "hop-2", "hop-1", "hop-0"]
    metadata = await service.new_client("hop-4", EXCHANGER)
    refusal = await refused(exchange(service, token, metadata))
    assert refusal.reason == "SUBJECT_TOKEN_INVALID"


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"audience": ["bank-test"]}, "AUDIENCE_NOT_ALLOWED"),  # not the token's
        ({"audience": ["stock-test"], "scopes": ["stock.write"]}, "SCOPE_NOT_ALLOWED"),  # not the token's
        ({"audience": ["stock-test"], "scopes": ["bank.read"]}, "SCOPE_NOT_ALLOWED"),  # not the policy's
        ({}, "SCOPE_NOT_ALLOWED"),  # all of the token's is more than the policy covers
    ],
)
async def test_nothing_widens(
    service: Any, gateway: Any, refused: Any, wanted: dict[str, Any], reason: str
) -> None:
    issued = (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens
    refusal = await refused(exchange(service, issued.access_token, gateway, **wanted))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, reason)


async def test_who_may_not_act_for_a_subject_or_not_exchange_is_refused(
    service: Any, gateway: Any, refused: Any
) -> None:
    bob = pb.IssueTokensRequest(subject="bob", audience=["orders"], scopes=["orders.read"])
    issued = (await service.identity.IssueTokens(bob, metadata=service.login)).tokens
    assert (await refused(exchange(service, issued.access_token, gateway))).reason == "SUBJECT_NOT_ALLOWED"
    assert (await refused(exchange(service, issued.access_token, service.login))).reason == "GRANT_MISSING"


@pytest.mark.parametrize(
    "what", ["token", "session", "subject", "access_tokens", "client", "nonsense", "refresh_token"]
)
async def test_what_was_taken_back_or_is_no_access_token_is_not_exchanged(
    service: Any, gateway: Any, refused: Any, what: str
) -> None:
    issued = (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens
    token = issued.access_token
    match what:
        case "token":
            revocation = pb.RevokeRequest(token=token)
        case "session":
            revocation = pb.RevokeRequest(session_id=issued.session_id)
        case "subject":
            revocation = pb.RevokeRequest(subject="alice")
        case "access_tokens":
            revocation = pb.RevokeRequest(subject="alice", access_tokens_only=True)
        case "client":
            revocation = pb.RevokeRequest(client_id="login")
        case _:
            revocation = None
            token = "a.b.c" if what == "nonsense" else issued.refresh_token
    if revocation is not None:
        await service.identity.Revoke(revocation, metadata=service.login)
    refusal = await refused(exchange(service, token, gateway, audience=["orders"], scopes=["orders.read"]))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "SUBJECT_TOKEN_INVALID")
    assert token not in refusal.message


async def test_an_exchanged_token_ends_with_the_session(service: Any, gateway: Any) -> None:
    issued = (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens
    exchanged = (
        await exchange(service, issued.access_token, gateway, audience=["orders"], scopes=["orders.read"])
    ).tokens.access_token

    async def is_active() -> bool:
        request = pb.IntrospectRequest(token=exchanged)
        return bool((await service.identity.Introspect(request, metadata=gateway)).active)

    assert await is_active()
    await service.identity.Revoke(pb.RevokeRequest(session_id=issued.session_id), metadata=service.login)
    assert not await is_active()


async def test_a_services_own_token_is_exchanged_and_revoked_where_its_subject_lives(
    service: Any, gateway: Any
) -> None:
    own = pb.IssueTokensRequest(audience=["orders"], scopes=["orders.read"])
    token = (await service.identity.IssueTokens(own, metadata=gateway)).tokens.access_token
    next_hop = await service.new_client("next-hop", EXCHANGER)
    exchanged = (await exchange(service, token, next_hop)).tokens.access_token
    claims = claims_of(exchanged)
    assert (claims["sub"], claims["client_id"], claims["act"]) == ("gateway", "next-hop", {"sub": "next-hop"})
    request = pb.IntrospectRequest(token=exchanged)
    assert (await service.identity.Introspect(request, metadata=gateway)).active
    await service.identity.Revoke(pb.RevokeRequest(token=exchanged), metadata=service.admin)
    assert not (await service.identity.Introspect(request, metadata=gateway)).active


async def test_an_exchange_is_recorded(
    collector: Any, make_settings: Any, start_service: Any, wait_until: Any
) -> None:
    service = await start_service(make_settings(audit={"relay": True}))
    gateway = await service.new_client("gateway", EXCHANGER)
    issued = (await service.identity.IssueTokens(ISSUE, metadata=service.login)).tokens
    await exchange(service, issued.access_token, gateway, audience=["orders"], scopes=["orders.read"])
    await wait_until(lambda: bool(collector.of_type("token.exchanged")))
    (event,) = collector.of_type("token.exchanged")
    assert (event["user.id"], event["session.id"], event["identity.client.id"]) == (
        "alice",
        issued.session_id,
        "gateway",
    )
