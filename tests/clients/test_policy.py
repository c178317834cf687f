"""What a client may do, and the secrets it proves itself with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.clients.client import Client, StoredSecret, parse_document
from identity.clients.policy import ClientPolicy, Grant, Patterns, validated
from identity.clients.secrets import ClientSecret, SecretHasher
from identity.errors import IdentityError
from identity.rate_limiter import RateLimiter

NAMES = st.text(alphabet="abc.-*?[]+$", max_size=12)


@pytest.mark.parametrize(
    ("pattern", "name", "allowed"),
    [
        ("orders", "orders", True),
        ("orders", "orders2", False),
        ("*-test", "a-test", True),
        ("*-test", "-test", True),
        ("*-test", "a-test2", False),
        ("a*c", "abbc", True),
        ("a.c", "abc", False),
        ("*", "", True),
        ("a**c", "abc", True),
        ("[a]*", "a", False),
    ],
)
def test_a_star_is_any_run_of_characters_and_all_else_is_literal(
    pattern: str, name: str, allowed: bool
) -> None:
    assert Patterns((pattern,)).allows(name) is allowed


@given(NAMES)
def test_nothing_is_allowed_by_default(name: str) -> None:
    assert not Patterns().allows(name)


@given(NAMES.filter(lambda name: "*" not in name), NAMES)
def test_a_literal_allows_itself_alone(literal: str, name: str) -> None:
    assert Patterns((literal,)).allows(name) is (literal == name)


@pytest.mark.parametrize(
    "policy",
    [
        ClientPolicy(subjects=Patterns(("",))),
        ClientPolicy(scopes=Patterns(("a b",))),
        ClientPolicy(audiences=Patterns(("x" * 129,))),
        ClientPolicy(roles=Patterns(tuple(f"r{number}" for number in range(65)))),
        ClientPolicy(access_token_ttl_seconds=901),
        ClientPolicy(mobile_session_ttl_seconds=31 * 24 * 3600),
        ClientPolicy(refresh_leeway_seconds=-1),
        ClientPolicy(calls_per_second=0),
    ],
)
def test_a_policy_out_of_bounds_is_refused(policy: ClientPolicy) -> None:
    with pytest.raises(IdentityError, match=r"policy\."):
        validated(policy)


def test_a_client_is_stored_and_read_back_whole_and_shows_no_digest() -> None:
    policy = ClientPolicy(
        grants=frozenset({Grant.ISSUE, Grant.REFRESH}),
        subjects=Patterns(("*",)),
        scopes=Patterns(("orders.*",)),
        access_token_ttl_seconds=300,
        may_forward_client_context=True,
    )
    client = Client("web", "Web", policy, (StoredSecret("a1", bytes(range(32)), 7),), 5, disabled=True)
    assert parse_document(client.document()) == client
    assert bytes(range(32)).hex() not in repr(client)


def test_a_secret_has_256_bits_and_a_form_that_no_person_would_choose() -> None:
    secret = ClientSecret.generate()
    assert ClientSecret.parse(secret.text) == secret
    assert secret.text not in repr(secret)
    assert len({ClientSecret.generate().text for _ in range(100)}) == 100
    for text in ("hunter2", "", secret.text[:-1], secret.text[:-1] + "x", "gics_" + "A" * 51):
        assert ClientSecret.parse(text) is None


def test_a_digest_depends_on_the_services_own_key() -> None:
    secret = ClientSecret.generate()
    one, other = SecretHasher(bytes(32)), SecretHasher(bytes(31) + b"\1")
    assert one.digest(secret) == one.digest(secret) != other.digest(secret)
    assert bytes(32).hex() not in repr(one)


def test_a_limiter_allows_a_burst_then_an_even_pace_and_forgets_the_oldest() -> None:
    now = 0.0
    limiter = RateLimiter(calls=3, per_seconds=60, monotonic=lambda: now, max_keys=2)
    assert [limiter.spend("a") for _ in range(3)] == [0, 0, 0]
    assert limiter.spend("a") == pytest.approx(20)
    now = 20.0
    assert limiter.spend("a") == 0
    assert limiter.spend("a") == pytest.approx(20)
    limiter.spend("b")
    limiter.spend("c")
    assert limiter.spend("a") == 0
