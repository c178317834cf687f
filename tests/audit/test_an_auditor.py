"""Who has the exported spans alone can tell who had which session when, what it was used for, and why it ended.

The truth is that of those who called: ten thousand things at random, on a clock that runs ahead so that sessions end by
themselves, too.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import random
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from audit.auditor import Session, account_of
from audit.workload import METHODS, POLICY, Between, Known, Travelling, Use, Workload, of_many

from grpc_identity import Issuer, Policy, UsageAudit, Verifier, scope
from grpc_identity.aio import AuthInterceptor
from grpc_identity.usage import UsageRecorder
from grpc_identity.v1 import clients_pb2, identity_service_pb2_grpc
from identity.app import IdentityServer
from identity.bootstrap import bootstrap_client

OPERATIONS = 10_000
SUBJECTS = 20
CLIENTS = ("login", "mobile", "desk")
ADMIN = clients_pb2.ClientPolicy(grants=["GRANT_ADMIN"], calls_per_second=1_000_000)
SHOP = clients_pb2.ClientPolicy(grants=["GRANT_VERIFY", "GRANT_REPORT_USAGE"], calls_per_second=1_000_000)
RULES = (
    Policy()
    .require("/shop.Orders/Read", scope("read"), audit=UsageAudit.USE)
    .require("/shop.Orders/Write", scope("write"), audit=UsageAudit.MUST)
)


@pytest_asyncio.fixture
async def workload(
    make_settings: Callable[..., Any], collector: Any, tmp_path: Path
) -> AsyncIterator[Workload]:
    """A service whose events go to the collector, and what is asked of it."""
    settings = make_settings(
        audit={"relay": True, "relay_poll_ms": 50},
        limits={
            "refreshes_per_family_per_minute": 1_000_000,
            "address_failures_per_minute": 1_000_000,
            "address_successes_per_minute": 1_000_000,
        },
    )
    policies = dict.fromkeys(CLIENTS, POLICY) | {"admin": ADMIN, "shop": SHOP}
    client_secrets = {
        name: await bootstrap_client(settings, client_id=name, display_name=name, policy=policy)
        for name, policy in policies.items()
    }
    metadata = {
        name: (("authorization", "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()),)
        for name, secret in client_secrets.items()
    }
    clock, seed = Travelling(), secrets.randbits(32)
    print(f"seed {seed}")
    server = IdentityServer(settings, clock=clock)
    addresses = await server.start()
    async with grpc.aio.insecure_channel(addresses.grpc_target) as channel:
        stub = identity_service_pb2_grpc.IdentityServiceStub(channel)  # type: ignore[no-untyped-call]

        async def call(method: str, request: Any, client_id: str) -> Any:
            return await getattr(stub, method)(request, metadata=metadata[client_id])

        def travel(seconds: float) -> None:
            clock.ahead_seconds += seconds
            server.store.clock.offset_ms = int(clock.ahead_seconds * 1000)

        async def is_delivered() -> bool:
            return not usage.waiting and not (await server.store.outbox.backlog(["otlp"])).events

        shop = a_shop(addresses.grpc_target, client_secrets["shop"], clock, tmp_path)
        async with shop as (use, usage):
            yield Workload(CLIENTS, call, use, clock, random.Random(seed), travel, is_delivered)
    await server.stop(0)


@contextlib.asynccontextmanager
async def a_shop(
    target: str, client_secret: str, clock: Travelling, spool: Path
) -> AsyncIterator[tuple[Use, UsageRecorder]]:
    """A server of somebody else that takes the tokens, and a caller of it."""

    async def order(request: bytes, context: Any) -> bytes:
        if request:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "sold out")
        return b""

    known = {"client_id": "shop", "client_secret": client_secret}
    issuer = Issuer("https://id.example", target=target, audience="orders", **known)
    async with (
        Verifier(issuer, clock=clock.wall) as verifier,
        UsageRecorder(target, **known, directory=spool / "spool") as usage,
    ):
        server = grpc.aio.server(interceptors=[AuthInterceptor(verifier, RULES, usage=usage)])
        handlers = {name: grpc.unary_unary_rpc_method_handler(order) for name in METHODS}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

            async def use(token: str, method: str, fails: bool) -> str:
                called = channel.unary_unary(f"/shop.Orders/{method}")(
                    b"fail" if fails else b"", metadata=(("authorization", f"Bearer {token}"),)
                )
                return (await called.code()).name

            yield use, usage
        await server.stop(None)


@pytest.mark.timeout(300)
async def test_ten_thousand_operations_are_told_from_spans_alone(
    workload: Workload, collector: Any, wait_until: Any
) -> None:
    rounds = itertools.count(1)

    async def between_rounds() -> None:
        workload.travel(workload.chance.choice([0, 30, 300, 900]))
        if next(rounds) % 10 == 0:
            await workload.revoke_client(workload.chance.choice(CLIENTS))

    await of_many(workload, SUBJECTS, OPERATIONS, between_rounds)
    # Refusals that were only counted are told when their window is over.
    workload.travel(3600)
    await wait_until(workload.is_delivered, seconds=60)
    # What becomes of a call may be noted just after its caller has heard of it.
    await wait_until(lambda: len(collector.of_type("token.used")) >= workload.uses)
    await wait_until(lambda: account_of(collector.spans).refusals == workload.refused)

    account = account_of(collector.spans)
    assert account.sessions.keys() == workload.known.keys()
    for known in workload.known.values():
        assert_same(account.sessions[known.session_id], known)
    assert account.revoked_tokens == workload.revoked_tokens
    assert account.refusals == workload.refused
    assert not account.lost_uses
    ends = {session.ended.why for session in account.sessions.values()}
    assert ends == {
        "expired",
        "session.revoked",
        "subject.revoked",
        "subject.erased",
        "client.revoked",
        "refresh.reuse_detected",
        "refresh.wrong_client",
    }
    print(f"{dict(workload.done)}: {len(account.sessions)} sessions, {len(collector.spans)} spans")


def assert_same(told: Session, known: Known) -> None:
    assert (told.subject, told.client_id) == (known.subject, known.client_id)
    assert known.started.holds(told.started_ms)
    assert told.tokens == known.given
    assert told.addresses == known.addresses
    assert told.expires_ms == known.expires_ms
    left = list(told.uses)
    for method, token_id, status, when in known.uses:
        # An end may be noted just after the caller has heard of it.
        noted = Between(when.from_ms, when.to_ms + 1000)
        same = [
            use for use in left if use[:4] == (method, token_id, status, "shop") and noted.holds(use.at_ms)
        ]
        assert same, (method, token_id, status, when, left)
        left.remove(same[0])
    assert not left
    ended = told.ended
    if known.ended is None:
        assert (ended.why, ended.at_ms) == ("expired", known.expires_ms)
    else:
        why, cause, by, when = known.ended
        assert (ended.why, ended.cause, ended.by) == (why, cause, by)
        assert when.holds(ended.at_ms)
