"""Between two nodes, without a node, with a demoted one: what callers, verifiers and operators are told meanwhile."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from store_cluster import slot_of
from stores import NODE_TIMEOUT_MS, STORE, Node, become, open_client

from grpc_identity import Reason, TokenError, Verifier
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.app import IdentityServer
from identity.tokens.family_id import FamilyId

IMPATIENT = {"timeout_ms": 800}


@pytest.fixture
def make_settings(make_settings: Any) -> Any:
    """A store that is away is noticed soon."""
    return lambda **sections: make_settings(**sections | {"redis": IMPATIENT | sections.get("redis", {})})


def bucket_of(service: Any, subject: str) -> Any:
    return service.server.store.keys.of_name(subject)


def issue(subject: str) -> pb.IssueTokensRequest:
    return pb.IssueTokensRequest(subject=subject, audience=["orders"])


def other_than(cluster: Any, node: Any) -> Any:
    return next(primary for primary in cluster.primaries() if primary is not node)


def subject_elsewhere(service: Any, cluster: Any, node: Any) -> str:
    """Somebody whose sessions are at another primary."""
    return next(
        name
        for name in (f"person-{number}" for number in range(1000))
        if cluster.owner(slot_of(bucket_of(service, name).ledger)) is not node
    )


async def test_while_a_slot_is_between_two_nodes_its_callers_wait_or_are_told_so_and_nothing_is_done(
    service: Any, cluster: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session("alice")
    bucket = bucket_of(service, "alice")
    slot = slot_of(bucket.ledger)
    source = cluster.owner(slot)
    target = other_than(cluster, source)
    spared = await new_session(subject_elsewhere(service, cluster, source))
    cluster.begin_to_move(slot, target, bucket.ledger)
    try:
        revoke = pb.RevokeRequest(subject="alice")
        refusals = await asyncio.gather(
            refused(session.refresh(key="same")),
            refused(new_session("alice")),
            refused(service.identity.Revoke(revoke, metadata=service.login)),
        )
        assert {refusal.reason for refusal in refusals} == {"STORE_UNAVAILABLE"}
        await spared.refresh()
    finally:
        await asyncio.to_thread(cluster.move_by_key, slot, target)
    await session.refresh(key="same")
    events = open_client(cluster.url).xrange(bucket.outbox)
    kinds = [fields[b"type"] for _, fields in events if fields[b"subject"] == b"alice"]
    assert kinds == [b"tokens.issued", b"tokens.refreshed"]


async def test_a_call_that_waits_for_its_slot_is_answered_when_it_has_arrived(
    cluster: Any, make_settings: Any, start_service: Any
) -> None:
    service = await start_service(make_settings(redis={"timeout_ms": 5000}))
    tokens = (await service.identity.IssueTokens(issue("alice"), metadata=service.login)).tokens
    bucket = bucket_of(service, "alice")
    slot = slot_of(bucket.ledger)
    target = other_than(cluster, cluster.owner(slot))
    cluster.begin_to_move(slot, target, bucket.ledger)
    request = pb.RefreshRequest(refresh_token=tokens.refresh_token)
    waiting = asyncio.ensure_future(service.identity.Refresh(request, metadata=service.login))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    await asyncio.to_thread(cluster.move_by_key, slot, target)
    assert (await waiting).tokens.session_id == tokens.session_id


async def test_a_script_that_finds_something_gone_has_written_nothing(
    service: Any, cluster: Any, new_session: Any, refused: Any
) -> None:
    """What a script looks up by itself is not among its keys, so that the cluster notices only when it is there."""
    first, second = await new_session("bob"), await new_session("bob")
    bucket = bucket_of(service, "bob")
    # Everything that the scripts name is there.
    roles = pb.RevokeRequest(subject="bob", access_tokens_only=True, new_roles=pb.Roles(roles=["reader"]))
    await service.identity.Revoke(roles, metadata=service.login)
    slot = slot_of(bucket.ledger)
    source = cluster.owner(slot)
    target = other_than(cluster, source)
    family = FamilyId.parse(second.tokens.session_id)
    assert family is not None
    before = source.client.xlen(bucket.outbox)
    cluster.begin_to_move(slot, target, bucket.family(family))
    try:
        erase = pb.EraseSubjectRequest(subject="bob")
        elsewhere = pb.RevokeRequest(all_but_session_id=first.tokens.session_id)
        refusals = await asyncio.gather(
            refused(service.identity.EraseSubject(erase, metadata=service.admin)),
            refused(service.identity.Revoke(elsewhere, metadata=service.login)),
        )
        assert {refusal.reason for refusal in refusals} == {"STORE_UNAVAILABLE"}
        assert source.client.xlen(bucket.outbox) == before
    finally:
        await asyncio.to_thread(cluster.move_by_key, slot, target)
    erased = await service.identity.EraseSubject(erase, metadata=service.admin)
    assert erased.sessions_removed == 2


async def test_a_verifier_hears_of_revocations_after_slots_have_moved_and_a_replica_has_taken_over(
    service: Any, cluster: Any, new_session: Any, new_verifier: Any
) -> None:
    verifier: Verifier = await new_verifier()

    async def revoke_one(subject: str) -> None:
        session = await new_session(subject)
        request = pb.RevokeRequest(
            session_id=session.tokens.session_id, wait_until_applied=Duration(seconds=10)
        )
        answer = await service.identity.Revoke(request, metadata=service.login)
        assert (answer.applied, answer.connected) == (1, 1)
        with pytest.raises(TokenError) as caught:
            verifier.verify(session.tokens.access_token)
        assert caught.value.reason is Reason.TOKEN_REVOKED

    subjects = [f"person-{number}" for number in range(6)]
    for subject in subjects:
        await revoke_one(subject)
    for bucket in service.server.store.keys.buckets:
        slot = slot_of(bucket.ledger)
        target = other_than(cluster, cluster.owner(slot))
        await asyncio.to_thread(cluster.move_by_key, slot, target)
    for subject in subjects:
        await revoke_one(subject)
    epoch = service.server._feed.position.epoch
    primary = cluster.primaries()[0]
    replica = cluster.replica_of(primary)
    replica.client.execute_command("CLUSTER", "FAILOVER")
    await asyncio.to_thread(become, lambda: replica.is_primary, "it has taken over")
    for subject in subjects:
        await revoke_one(subject)
    # A verifier that comes with a position of before is told everything.
    assert service.server._feed.position.epoch != epoch
    await asyncio.to_thread(cluster.become_whole)


async def test_while_a_primary_is_silent_the_service_is_ready_and_says_which(
    cluster: Any, make_settings: Any, start_service: Any, refused: Any, wait_until: Any
) -> None:
    service = await start_service(make_settings())
    silent = cluster.owner(slot_of(bucket_of(service, "alice").ledger))
    spared = subject_elsewhere(service, cluster, silent)
    await service.identity.IssueTokens(issue("alice"), metadata=service.login)
    # Longer than this test: nobody takes over, and no node that is slow beside it is taken for dead.
    cluster.notice_after(milliseconds=60_000)
    silent.send(signal.SIGSTOP)
    try:
        call = service.identity.IssueTokens(issue("alice"), metadata=service.login)
        assert (await refused(call)).reason == "STORE_UNAVAILABLE"
        await service.identity.IssueTokens(issue(spared), metadata=service.login)
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{service.addresses.http_url}/readyz")
        assert answer.status_code == 200
        problems = {item["name"]: item["message"] for item in answer.json()["problems"]}
        assert problems.keys() <= {"store_node_unreachable", "store_cluster_incomplete"}
        assert silent.address in problems["store_node_unreachable"]
    finally:
        silent.send(signal.SIGCONT)
        cluster.notice_after(milliseconds=NODE_TIMEOUT_MS)
        await asyncio.to_thread(cluster.become_whole)

    async def is_well() -> bool:
        return not await service.server.store.problems()

    await wait_until(is_well)


async def test_a_problem_names_the_node_it_was_found_on(service: Any, cluster: Any) -> None:
    node = cluster.primaries()[1]
    node.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        (problem,) = await service.server.store.problems()
    finally:
        node.client.config_set("maxmemory-policy", "noeviction")
    assert (problem.name, problem.blocks) == ("store_evicts", True)
    assert problem.message.startswith(f"{node.address}: ")


@pytest.fixture
def lone_node() -> Iterator[Node]:
    """A cluster of one, which does not know its own address, and wants a password."""
    node = Node(STORE | {"cluster-enabled": "yes", "cluster-port": "0"})
    node.client.config_set("requirepass", "s3cret")
    yield node
    node.end()


async def problems_of(settings: Any) -> list[str]:
    server = IdentityServer(settings)
    try:
        return [problem.name for problem in await server.store.problems()]
    finally:
        await server.store.close()


async def test_a_cluster_without_all_its_slots_is_not_ready_and_with_them_it_is(
    lone_node: Node, make_settings: Any, start_service: Any
) -> None:
    lone_node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_000)
    settings = make_settings(redis={"url": f"redis+cluster://:s3cret@{lone_node.address}"})
    assert await problems_of(settings) == ["store_cluster_incomplete"]
    lone_node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 16_001, 16_383)
    await asyncio.to_thread(
        become,
        lambda: b"cluster_state:ok" in lone_node.client.execute_command("CLUSTER", "INFO"),
        "it serves",
    )
    assert await problems_of(settings) == []
    await start_service(settings)
    as_one_server = make_settings(redis={"url": f"redis://:s3cret@{lone_node.address}"})
    assert "store_is_a_cluster" in await problems_of(as_one_server)


async def test_one_server_is_no_cluster(make_settings: Any, new_valkey: Any, caplog: Any) -> None:
    server = new_valkey(STORE)
    try:
        settings = make_settings(redis={"url": f"redis+cluster://127.0.0.1:{server.port}"})
        assert await problems_of(settings) == ["store_unreachable"]
    finally:
        server.stop()
    assert "no node of the cluster says where the slots are" in caplog.text
