"""Rules declared in the protos: read from descriptors, won over by code, checked against what exists."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from grpc_identity import Policy, PolicyError, Principal, Reason, UsageAudit, Verifier, scope
from grpc_identity.aio import AuthInterceptor
from grpc_identity.policy import Rule
from grpc_identity.testing import InMemoryIssuer
from grpc_identity.v1 import auth_pb2, identity_service_pb2

ROOT = Path(__file__).resolve().parents[2]


def shop(
    service_auth: auth_pb2.AuthRule | None = None, **methods: auth_pb2.AuthRule | None
) -> FileDescriptor:
    """The file that these options make, in a pool of its own, as protoc would have made it."""
    file = descriptor_pb2.FileDescriptorProto(
        name="shop.proto", package="shop.v1", syntax="proto3", dependency=["grpc_identity/v1/auth.proto"]
    )
    file.message_type.add(name="Empty")
    service = file.service.add(name="Orders")
    if service_auth is not None:
        service.options.Extensions[auth_pb2.service_auth].CopyFrom(service_auth)
    for name, rule in methods.items():
        method = service.method.add(name=name, input_type=".shop.v1.Empty", output_type=".shop.v1.Empty")
        if rule is not None:
            method.options.Extensions[auth_pb2.auth].CopyFrom(rule)
    pool = descriptor_pool.DescriptorPool()
    for dependency in (descriptor_pb2.DESCRIPTOR, auth_pb2.DESCRIPTOR):
        pool.AddSerializedFile(dependency.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindFileByName("shop.proto")


def auth(**fields: Any) -> auth_pb2.AuthRule:
    return auth_pb2.AuthRule(**fields)


def rule_of(policy: Policy, method: str) -> Rule:
    return policy.compile().rule(f"/shop.v1.Orders/{method}")


def lacks(rule: Rule, *, scopes: tuple[str, ...] = (), roles: tuple[str, ...] = ()) -> Reason | None:
    issuer = InMemoryIssuer(audience="test")
    principal: Principal = Verifier(issuer.trusted()).verify(issuer.mint(scopes=scopes, roles=roles))
    return rule.requirement.check(principal) if rule.requirement is not None else None


def test_a_method_has_the_rule_it_declares() -> None:
    file = shop(
        List=auth(public=True),
        Refund=auth(scopes=["orders.read", "orders.write"], roles=["clerk", "admin"]),
        Export=auth(audience=["exports"], audit="USAGE_AUDIT_MUST"),
        Get=None,
    )
    policy = Policy.from_protos(file)
    assert rule_of(policy, "List").is_public
    refund = rule_of(policy, "Refund")
    assert lacks(refund, scopes=("orders.read",), roles=("admin",)) is Reason.SCOPE_MISSING
    assert lacks(refund, scopes=("orders.read", "orders.write")) is Reason.ROLE_MISSING
    assert lacks(refund, scopes=("orders.read", "orders.write"), roles=("clerk",)) is None
    export = rule_of(policy, "Export")
    assert (export.audience, export.audit) == ({"exports"}, UsageAudit.MUST)
    assert rule_of(policy, "Get") == Rule()


def test_a_service_declares_for_its_methods_that_say_nothing() -> None:
    file = shop(auth(scopes=["orders"]), List=auth(public=True), Get=None)
    policy = Policy.from_protos(file.services_by_name["Orders"])
    assert rule_of(policy, "List").is_public
    assert lacks(rule_of(policy, "Get")) is Reason.SCOPE_MISSING


def test_code_wins_over_the_proto() -> None:
    file = shop(List=auth(public=True), Get=auth(scopes=["orders.read"]))
    policy = (
        Policy.from_protos(file).require("/shop.v1.Orders/List", "orders.list").public("/shop.v1.Orders/Get")
    )
    assert lacks(rule_of(policy, "List")) is Reason.SCOPE_MISSING
    assert rule_of(policy, "Get").is_public
    whole = Policy.from_protos(file).require("shop.v1.Orders", "orders.all")
    assert lacks(rule_of(whole, "List"), scopes=("orders.read",)) is Reason.SCOPE_MISSING
    with pytest.raises(PolicyError, match="two rules"):
        Policy.from_protos(file).public("/shop.v1.Orders/Get").public("/shop.v1.Orders/Get")


@pytest.mark.parametrize(
    "rule",
    [
        auth(public=True, scopes=["a"]),
        auth(public=True, roles=["a"]),
        auth(public=True, audience=["a"]),
        auth(scopes=["two words"]),
        auth(scopes=[""]),
        auth(roles=[""]),
        auth(audience=[""]),
        auth(audit=99),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(rule: auth_pb2.AuthRule) -> None:
    with pytest.raises(PolicyError):
        Policy.from_protos(shop(Get=rule))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("/shop.v1.Orders/Refnd", "is /shop.v1.Orders/Refund meant"),
        ("shop.v1.Order", "is /shop.v1.Orders meant"),
        ("/other.v9.Thing/Do", "give its descriptor"),
    ],
)
def test_a_rule_for_what_does_not_exist_fails_the_start(name: str, hint: str) -> None:
    policy = Policy.from_protos(shop(Refund=None)).public(Policy.HEALTH).require(name, scope("x"))
    with pytest.raises(PolicyError, match="does not exist") as caught:
        policy.check()
    assert hint in str(caught.value)


def test_a_policy_of_things_that_exist_passes_the_check() -> None:
    identity = identity_service_pb2.DESCRIPTOR
    policy = Policy.from_protos(shop(Refund=None)).public(Policy.HEALTH, Policy.REFLECTION)
    policy.require("shop.v1.Orders", "orders").require("/grpc_identity.v1.IdentityService/Refresh", "x")
    assert policy.check(identity) is policy
    # Other services of other protos are not declared anywhere and need no rule.
    assert reflection_pb2.DESCRIPTOR.services_by_name


def test_what_is_no_descriptor_is_refused() -> None:
    with pytest.raises(PolicyError, match="no descriptor"):
        Policy.from_protos(auth_pb2)  # type: ignore[arg-type]


async def test_a_method_s_audience_stands_in_place_of_the_service_s() -> None:
    async def get(request: bytes, context: Any) -> bytes:
        return b"ok"

    issuer = InMemoryIssuer(audience=["orders"])
    policy = Policy.from_protos(shop(Export=auth(audience=["exports"]), Get=None)).check()
    server = grpc.aio.server(
        interceptors=[AuthInterceptor(Verifier(issuer.trusted()), policy)], options=[("grpc.so_reuseport", 0)]
    )
    handlers = {name: grpc.unary_unary_rpc_method_handler(get) for name in ("Export", "Get")}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("shop.v1.Orders", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    for_exports, for_orders = issuer.mint(audience="exports"), issuer.mint(audience="orders")
    both = issuer.mint(audience=["exports", "orders"])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def outcome(method: str, token: str) -> str:
            metadata = (("authorization", f"Bearer {token}"),)
            try:
                await channel.unary_unary(f"/shop.v1.Orders/{method}")(b"", metadata=metadata)
            except grpc.aio.AioRpcError as error:
                status = rpc_status.from_call(error)  # type: ignore[arg-type]
                info = error_details_pb2.ErrorInfo()
                status.details[0].Unpack(info)
                return info.reason
            return "ok"

        # Twice: what is remembered of a token must not make it good for another method.
        for _ in range(2):
            assert await outcome("Export", for_exports) == "ok"
            assert await outcome("Get", for_exports) == "AUDIENCE_MISMATCH"
            assert await outcome("Get", for_orders) == "ok"
            assert await outcome("Export", for_orders) == "AUDIENCE_MISMATCH"
            assert await outcome("Export", both) == "ok"
            assert await outcome("Get", both) == "ok"
    await server.stop(None)


def test_a_method_that_must_be_recorded_is_not_served_unrecorded() -> None:
    policy = Policy.from_protos(shop(Export=auth(audit="USAGE_AUDIT_MUST")))
    with pytest.raises(PolicyError, match="recorded"):
        AuthInterceptor(Verifier(InMemoryIssuer(audience="test").trusted()), policy)


USERS_PROTO = """
syntax = "proto3";
package users.v1;
import "grpc_identity/v1/auth.proto";
message Empty {}
service Users {
  option (grpc_identity.v1.service_auth) = { scopes: "users" };
  rpc Get(Empty) returns (Empty);
  rpc Ping(Empty) returns (Empty) { option (grpc_identity.v1.auth) = { public: true }; }
}
"""
PROGRAM = """
import users_pb2
from grpc_identity import Policy
policy = Policy.from_protos(users_pb2.DESCRIPTOR).check().compile()
print(policy.rule("/users.v1.Users/Ping").is_public, policy.rule("/users.v1.Users/Get").requirement)
"""


def test_a_user_s_own_proto_compiles_against_the_installed_package(tmp_path: Path) -> None:
    import grpc_identity

    (tmp_path / "users.proto").write_text(USERS_PROTO)
    compiler = ROOT / ".venv-protos/bin/python"
    installed = Path(grpc_identity.__file__).parents[1]
    subprocess.run(
        [
            compiler, "-m", "grpc_tools.protoc", f"-I{tmp_path}", f"-I{installed}",
            f"--python_out={tmp_path}", str(tmp_path / "users.proto"),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert ran.stdout.strip() == "True scope users"
