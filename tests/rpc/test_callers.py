"""Who may call: authentication, grants, budgets, the clients themselves, and what is still to come."""

from __future__ import annotations

import asyncio
import base64
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.errors import IdentityError
from identity.rpc.errors import STATUS_CODES
from identity.rpc.unimplemented import answer_unimplemented

ISSUE = pb.IssueTokensRequest(subject="alice", audience=["orders"])


def authorization(text: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", text),)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_everything_but_a_good_secret_is_refused_alike(service: Any, refused: Any) -> None:
    secret = service.secrets["login"]
    wrong = secret[:-9] + ("A" if secret[-9] != "A" else "B") + secret[-8:]
    attempts = [
        (),
        authorization("Bearer token"),
        authorization("Basic !!!"),
        authorization(f"Basic {encoded('no-colon')}"),
        authorization(f"Basic {encoded('login:' + wrong)}"),
        authorization(f"Basic {encoded('login:hunter2')}"),
        authorization(f"Basic {encoded('nobody:' + secret)}"),
        authorization("Basic " + "A" * 600),
        (*service.login, *service.login),
    ]
    for metadata in attempts:
        refusal = await refused(service.identity.IssueTokens(ISSUE, metadata=metadata))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CLIENT_UNAUTHENTICATED")
        assert "hunter2" not in refusal.message
        assert secret not in refusal.message


async def test_a_client_without_a_grant_is_told_which(service: Any, refused: Any) -> None:
    nothing = await service.new_client("nothing", clients_pb2.ClientPolicy())
    for call, grant in (
        (service.identity.IssueTokens(ISSUE, metadata=nothing), "ISSUE"),
        (service.identity.Refresh(pb.RefreshRequest(refresh_token="x"), metadata=nothing), "REFRESH"),
        (service.identity.Revoke(pb.RevokeRequest(subject="alice"), metadata=nothing), "REVOKE"),
        (service.identity.Introspect(pb.IntrospectRequest(token="x"), metadata=nothing), "INTROSPECT"),
        (
            service.identity.ListSessions(pb.ListSessionsRequest(subject="a"), metadata=nothing),
            "LIST_SESSIONS",
        ),
        (service.administration.ListClients(admin_pb.ListClientsRequest(), metadata=service.login), "ADMIN"),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "GRANT_MISSING")
        assert grant in refusal.message


@pytest.mark.parametrize(
    "method", [method.name for method in admin_pb.DESCRIPTOR.services_by_name["AdminService"].methods]
)
async def test_every_method_of_administration_is_refused_to_strangers_and_to_who_lacks_the_grant(
    service: Any, refused: Any, method: str
) -> None:
    call, request = getattr(service.administration, method), getattr(admin_pb, f"{method}Request")()
    assert (await refused(call(request))).reason == "CLIENT_UNAUTHENTICATED"
    assert (await refused(call(request, metadata=service.login))).reason == "GRANT_MISSING"


async def test_a_method_to_come_is_said_to_be_not_built_yet() -> None:
    class Guard:
        def guard(self, method: str, behaviour: Any) -> Any:
            return behaviour

    servicer: Any = SimpleNamespace()
    contract = admin_pb.DESCRIPTOR.services_by_name["AdminService"]
    built = {method.name for method in contract.methods} - {"ListKeys"}
    answer_unimplemented(servicer, Guard(), contract, built)  # type: ignore[arg-type]
    with pytest.raises(IdentityError) as caught:
        await servicer.ListKeys(None, None)
    assert STATUS_CODES[caught.value.reason] is grpc.StatusCode.UNIMPLEMENTED


async def test_a_secret_rotates_with_two_good_at_a_time(service: Any, refused: Any) -> None:
    secrets = [service.secrets["login"]]
    for _ in range(2):
        rotated = await service.administration.RotateClientSecret(
            admin_pb.RotateClientSecretRequest(client_id="login"), metadata=service.admin
        )
        secrets.append(rotated.client_secret)
    assert len(rotated.client.secrets) == 2
    oldest, previous, newest = (authorization(f"Basic {encoded('login:' + secret)}") for secret in secrets)
    for good in (previous, newest):
        await service.identity.IssueTokens(ISSUE, metadata=good)
    assert (
        await refused(service.identity.IssueTokens(ISSUE, metadata=oldest))
    ).reason == "CLIENT_UNAUTHENTICATED"
    await service.administration.RotateClientSecret(
        admin_pb.RotateClientSecretRequest(client_id="login", revoke_previous=True), metadata=service.admin
    )
    assert (
        await refused(service.identity.IssueTokens(ISSUE, metadata=newest))
    ).reason == "CLIENT_UNAUTHENTICATED"


async def test_clients_are_created_read_changed_and_listed(service: Any, refused: Any) -> None:
    await service.new_client("zeta", clients_pb2.ClientPolicy(grants=["GRANT_ISSUE"], subjects=["*"]))
    policy = clients_pb2.ClientPolicy(grants=["GRANT_ISSUE"], subjects=["*"], audiences=["orders"])
    policy.access_token_ttl.FromSeconds(300)
    updated = await service.administration.UpdateClient(
        admin_pb.UpdateClientRequest(client_id="zeta", display_name="Zeta", policy=policy),
        metadata=service.admin,
    )
    assert updated.client.policy.access_token_ttl.seconds == 300
    got = await service.administration.GetClient(
        admin_pb.GetClientRequest(client_id="zeta"), metadata=service.admin
    )
    assert got.client == updated.client
    listed: list[str] = []
    page_token = ""
    while True:
        page = await service.administration.ListClients(
            admin_pb.ListClientsRequest(page_size=1, page_token=page_token), metadata=service.admin
        )
        listed += [client.client_id for client in page.clients]
        page_token = page.next_page_token
        if not page_token:
            break
    assert listed == ["admin", "login", "zeta"]
    for call, reason in (
        (service.new_client("zeta", clients_pb2.ClientPolicy()), "CLIENT_EXISTS"),
        (service.new_client("Upper Case", clients_pb2.ClientPolicy()), "FIELD_INVALID"),
        (
            service.administration.GetClient(
                admin_pb.GetClientRequest(client_id="no"), metadata=service.admin
            ),
            "CLIENT_NOT_FOUND",
        ),
    ):
        assert (await refused(call)).reason == reason


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ("access_token_ttl", 901),
        ("web_session_ttl", 31 * 24 * 3600),
        ("refresh_leeway", 61),
        ("access_token_ttl", 1),
    ],
)
async def test_a_lifetime_beyond_the_bounds_is_refused(
    service: Any, refused: Any, field: str, seconds: int
) -> None:
    policy = clients_pb2.ClientPolicy()
    getattr(policy, field).FromSeconds(seconds)
    refusal = await refused(service.new_client("greedy", policy))
    assert refusal.reason == "FIELD_INVALID"
    assert f"policy.{field}" in refusal.violations


async def test_a_change_reaches_other_instances(service: Any, wait_until: Any) -> None:
    from identity.app import IdentityServer

    other = IdentityServer(service.settings)
    addresses = await other.start()
    async with grpc.aio.insecure_channel(addresses.grpc_target) as channel:
        method = channel.unary_unary(
            "/grpc_identity.v1.IdentityService/IssueTokens",
            request_serializer=pb.IssueTokensRequest.SerializeToString,
            response_deserializer=pb.IssueTokensResponse.FromString,
        )
        policy = clients_pb2.ClientPolicy(grants=["GRANT_ISSUE"], subjects=["*"], audiences=["orders"])
        metadata = await service.new_client("later", policy)

        async def is_known() -> bool:
            try:
                await method(ISSUE, metadata=metadata)
            except grpc.aio.AioRpcError:
                return False
            return True

        await wait_until(is_known)
    await other.stop(0)


async def test_a_client_beyond_its_rate_is_told_when_to_come_back(service: Any, refused: Any) -> None:
    policy = clients_pb2.ClientPolicy(
        grants=["GRANT_ISSUE"], subjects=["*"], audiences=["orders"], calls_per_second=5
    )
    slow = await service.new_client("slow", policy)
    calls = (service.identity.IssueTokens(ISSUE, metadata=slow) for _ in range(20))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert 5 <= sum(isinstance(answer, pb.IssueTokensResponse) for answer in answers) <= 8
    refusal = await refused(service.identity.IssueTokens(ISSUE, metadata=slow))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert 0 < refusal.retry_after_seconds <= 0.25


async def test_health_is_open_and_reflection_is_for_clients(service: Any, refused: Any) -> None:
    health = health_pb2_grpc.HealthStub(service.channel)
    for name in ("", "grpc_identity.v1.IdentityService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(service.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    stream = reflection.ServerReflectionInfo(iter([request]))
    assert (await refused(stream.read())).reason == "CLIENT_UNAUTHENTICATED"
    stream = reflection.ServerReflectionInfo(iter([request]), metadata=service.login)
    names = {item.name for item in (await stream.read()).list_services_response.service}
    assert "grpc_identity.v1.IdentityService" in names
