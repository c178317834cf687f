"""Rules: what they ask for, which one holds, and that none is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from grpc_identity import Policy, PolicyError, Principal, Verifier, claim, role, scope
from grpc_identity.policy import Requirement
from grpc_identity.testing import InMemoryIssuer


@pytest.fixture(scope="module")
def caller() -> Principal:
    issuer = InMemoryIssuer()
    token = issuer.mint(
        scopes=["read", "list"], roles=["clerk"], claims={"amr": ["pwd", "mfa"], "acr": "silver"}
    )
    return Verifier(issuer.trusted()).verify(token)


@pytest.mark.parametrize(
    ("requirement", "missing"),
    [
        (scope("read"), None),
        (scope("read", "list"), None),
        (scope("read", "write"), "SCOPE_MISSING"),
        (scope("rea"), "SCOPE_MISSING"),
        (scope("READ"), "SCOPE_MISSING"),
        (role("clerk"), None),
        (role("admin"), "ROLE_MISSING"),
        (claim("amr", has="mfa"), None),
        (claim("amr", has="mf"), "CLAIM_MISSING"),
        (claim("acr", has="gold"), "CLAIM_MISSING"),
        (claim("act", has="anybody"), "CLAIM_MISSING"),
        (scope("read") & role("clerk"), None),
        (scope("read") & role("admin"), "ROLE_MISSING"),
        (scope("write") & role("admin"), "SCOPE_MISSING"),
        (scope("write") | role("clerk"), None),
        (scope("read") | role("admin"), None),
        (scope("write") | role("admin"), "SCOPE_MISSING"),
        ((scope("write") | role("clerk")) & claim("amr", has="mfa"), None),
        ((scope("write") | role("admin")) & claim("amr", has="mfa"), "SCOPE_MISSING"),
    ],
    ids=repr,
)
def test_a_requirement_names_what_is_missing(
    caller: Principal, requirement: Requirement, missing: str | None
) -> None:
    assert requirement.check(caller) == missing


def test_the_rule_of_a_method_goes_before_that_of_its_service() -> None:
    policy = Policy().require("shop.v1.Orders", "orders").public("/shop.v1.Orders/List").compile()
    assert policy.rule("/shop.v1.Orders/List").is_public
    assert policy.rule("/shop.v1.Orders/Refund").requirement is not None


@pytest.mark.parametrize(
    "path",
    [
        "/shop.v1.OrdersX/List",
        "/shop.v1/Orders",
        "/shop.v1.Orders",
        "/shop.v1.Orders/",
        "//shop.v1.Orders/List",
        "/shop.v1.Orders/List/",
        "/shop.v1.Orders/List/More",
        "/SHOP.v1.Orders/List",
        "shop.v1.Orders/List",
        "/other/shop.v1.Orders/List",
        "",
        "/",
    ],
)
@pytest.mark.parametrize("rule", ["shop.v1.Orders", "/shop.v1.Orders/*"])
def test_a_public_service_is_that_service_and_nothing_like_it(rule: str, path: str) -> None:
    policy = Policy().public(rule).compile()
    assert policy.rule("/shop.v1.Orders/List").is_public
    assert not policy.rule(path).is_public


def test_health_and_reflection_are_not_public_unless_listed() -> None:
    nothing, health = Policy().compile(), Policy().public(Policy.HEALTH).compile()
    for method in Policy.HEALTH:
        assert not nothing.rule(method).is_public
        assert health.rule(method).is_public
    assert not any(health.rule(method).is_public for method in Policy.REFLECTION)


def test_a_rule_added_too_late_is_refused_in_place_of_being_lost() -> None:
    policy = Policy().require("/t.S/A", "x")
    policy.compile()
    with pytest.raises(PolicyError, match="in use"):
        policy.require("/t.S/B", "x")


@pytest.mark.parametrize(
    "build",
    [
        scope,
        lambda: scope(""),
        lambda: role("a b"),
        lambda: claim("email", has="x"),
        lambda: claim("amr", has=""),
        lambda: Policy().public("t.S").public("/t.S/*"),
        lambda: Policy().public("t.*"),
        lambda: Policy().public("*"),
        lambda: Policy().public("/t.S/"),
        lambda: Policy().public("//t.S/A"),
    ],
)
def test_what_cannot_be_meant_is_refused(build: Callable[[], object]) -> None:
    with pytest.raises(PolicyError):
        build()
