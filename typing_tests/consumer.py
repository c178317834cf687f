"""What a user writes, as a type checker sees it: nothing here runs. Checked by mypy (strict) and pyright (strict)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, assert_type

import grpc
import grpc.aio

from grpc_identity import (
    ClientCredentials,
    ForwardedToken,
    Issuer,
    Policy,
    Principal,
    Reason,
    SessionEndedError,
    SessionTokens,
    StaleRevocations,
    TokenError,
    UsageAudit,
    UsageRecorder,
    Verifier,
    claim,
    current_principal,
    current_principal_or_none,
    retry_options,
    role,
    scope,
)
from grpc_identity import aio as identity_aio
from grpc_identity import sync as identity_sync
from grpc_identity.testing import Flaw, InMemoryIssuer, InMemoryUsage, RecordedUse
from grpc_identity.v1 import auth_pb2, tokens_pb2
from grpc_identity.v1 import identity_service_pb2 as pb


def verifier() -> Verifier:
    return Verifier(
        Issuer(
            "https://id.example",
            target="id.example:443",
            audience="orders",
            client_id="orders",
            client_secret="...",
            credentials=grpc.ssl_channel_credentials(),
        ),
        Issuer("https://other.example", jwks="https://other.example/jwks.json", audience={"orders", "shop"}),
        leeway_seconds=10,
        max_stale_hours=4,
        stale_revocations=StaleRevocations.REFUSE,
        name="orders-1",
    )


def policy() -> Policy:
    return (
        Policy.from_protos(pb.DESCRIPTOR, auth_pb2.DESCRIPTOR)
        .public(Policy.HEALTH)
        .require("/shop.v1.Orders/Refund", scope("orders.write") & claim("amr", has="mfa"))
        .require("shop.v1.Reports", scope("reports.read") | role("auditor"), audience="reports")
        .check(pb.DESCRIPTOR.services_by_name["IdentityService"])
    )


async def serve_aio() -> None:
    async with verifier() as started:
        assert_type(started, Verifier)
        assert_type(started.ready, bool)
        server = grpc.aio.server(interceptors=[identity_aio.AuthInterceptor(started, policy())])
        await server.start()


def serve_sync(pool: grpc.Server) -> None:
    del pool
    with verifier() as started:
        interceptor: grpc.ServerInterceptor = identity_sync.AuthInterceptor(
            started, policy(), stream_grace_seconds=5.0
        )
        del interceptor


def handler() -> str:
    caller = current_principal()
    assert_type(caller, Principal)
    assert_type(caller.subject, str)
    assert_type(caller.scopes, frozenset[str])
    assert_type(caller.session_id, str | None)
    assert_type(caller.expires_at, datetime)
    assert_type(caller.auth_time, datetime | None)
    assert_type(current_principal_or_none(), Principal | None)
    return caller.subject


async def verify(started: Verifier, token: str) -> Principal | None:
    try:
        assert_type(started.verify(token), Principal)
        assert_type(started.verify(token).claims["tenant"], Any)
        return await started.verify_async(token)
    except TokenError as error:
        assert_type(error.reason, Reason)
        assert_type(error.retry_after_seconds, float | None)
        return None


async def call(token_set: tokens_pb2.TokenSet, ended: Callable[[SessionEndedError], None]) -> None:
    own = ClientCredentials(
        "id.example:443", client_id="billing", client_secret="...", audience="orders", scopes=["orders.read"]
    )
    person = SessionTokens(
        "id.example:443", client_id="bff", client_secret="...", tokens=token_set, on_session_ended=ended
    )
    async with own, person:
        assert_type(await own.token_async(), str)
        assert_type(person.token(), str)
        secure = grpc.ssl_channel_credentials()
        for source in (own, person):
            channel = grpc.aio.secure_channel(
                "orders:443",
                secure,
                options=retry_options(pb.DESCRIPTOR),
                interceptors=source.aio_interceptors(),
            )
            await channel.close()
        blocking = grpc.intercept_channel(grpc.secure_channel("orders:443", secure), *own.sync_interceptors())
        blocking.close()
    forwarded = identity_aio.client_interceptors(ForwardedToken(), target="127.0.0.1:50052")
    grpc.aio.insecure_channel("127.0.0.1:50052", interceptors=forwarded)


def test_double() -> None:
    issuer = InMemoryIssuer(audience="orders")
    assert_type(issuer.mint(subject="alice", roles=["clerk"], ttl_seconds=60), str)
    assert_type(issuer.mint_broken(Flaw.EXPIRED), str)
    issuer.revoke(session_id="s-1")
    assert_type(Verifier(issuer.trusted()).verify(issuer.mint()), Principal)


async def recorded() -> None:
    usage = UsageRecorder(
        "id.example:443", client_id="orders", client_secret="s", directory="/var/lib/orders"
    )
    policy = Policy().require("/shop.v1.Orders/Refund", audit=UsageAudit.MUST)
    async with usage as started:
        assert_type(started, UsageRecorder)
        assert_type(started.waiting, int)
        identity_aio.AuthInterceptor(verifier(), policy, usage=usage)
    with usage:
        identity_sync.AuthInterceptor(verifier(), policy, usage=usage)
    in_memory = InMemoryUsage()
    identity_aio.AuthInterceptor(verifier(), policy, usage=in_memory)
    assert_type(in_memory.used, list[RecordedUse])
