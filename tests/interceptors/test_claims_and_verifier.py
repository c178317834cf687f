"""What a token must say, whom it must be from, and what is remembered of it."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from grpc_identity import Issuer, TokenError, Verifier
from grpc_identity.private_claims import NO_PRIVATE_CLAIMS, PrivateClaims
from grpc_identity.testing import Flaw, InMemoryIssuer


class Now:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def issuer(now: Now) -> InMemoryIssuer:
    return InMemoryIssuer(audience="orders", clock=now)


def refusal(verifier: Verifier, token: str) -> str:
    with pytest.raises(TokenError) as refused:
        verifier.verify(token)
    assert token not in str(refused.value)
    assert token not in repr(refused.value)
    return refused.value.reason


@pytest.mark.parametrize("flaw", list(Flaw), ids=lambda flaw: flaw.name)
def test_a_token_with_one_flaw_is_refused_for_it(issuer: InMemoryIssuer, now: Now, flaw: Flaw) -> None:
    assert refusal(Verifier(issuer.trusted(), clock=now), issuer.mint_broken(flaw)) == flaw.reason


def test_a_principal_is_what_the_token_says_without_the_token(issuer: InMemoryIssuer, now: Now) -> None:
    token = issuer.mint(subject="alice", client_id="web", scopes=["a", "b"], roles=["admin"], session_id="s1")
    principal = Verifier(issuer.trusted(), clock=now).verify(token)
    assert (principal.subject, principal.client_id, principal.session_id) == ("alice", "web", "s1")
    assert (principal.scopes, principal.roles) == (frozenset("ab"), frozenset({"admin"}))
    assert token not in repr(principal)
    assert token.rsplit(".", 1)[1] not in repr(principal)
    with pytest.raises(AttributeError):
        principal.subject = "mallory"  # type: ignore[misc]


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": ""}, {"sub": 7}, {"sub": "\ud800"}, {"exp": "1900000000"}, {"exp": 1900000000.5}, {"exp": True},
        {"iat": None}, {"exp": None}, {"jti": None}, {"client_id": None}, {"aud": []}, {"aud": [1]}, {"aud": None},
        {"scope": ["a"]}, {"scope": "a  b"}, {"roles": "admin"}, {"roles": [1]}, {"nbf": "x"}, {"exp": 1},
        {"act": None, "cnf": {"x5t#S256": "x"}}, {"act": "web"}, {"sid": 1},
    ],
    ids=str,
)  # fmt: skip
def test_claims_of_a_wrong_form_are_refused(issuer: InMemoryIssuer, now: Now, claims: dict[str, Any]) -> None:
    assert refusal(Verifier(issuer.trusted(), clock=now), issuer.mint(claims=claims)) == "TOKEN_INVALID"


def test_times_hold_to_the_second_with_the_leeway(issuer: InMemoryIssuer, now: Now) -> None:
    verifier = Verifier(issuer.trusted(), leeway_seconds=30, clock=now)
    token = issuer.mint(ttl_seconds=600)
    now.seconds += 629
    assert verifier.verify(token).subject == "alice"
    now.seconds += 1
    assert refusal(verifier, token) == "TOKEN_EXPIRED"  # though it was remembered
    now.seconds -= 630 + 31
    assert refusal(Verifier(issuer.trusted(), clock=now), token) == "TOKEN_NOT_YET_VALID"
    with pytest.raises(ValueError, match="leeway"):
        Verifier(issuer.trusted(), leeway_seconds=31)


def test_the_issuer_and_the_audience_are_compared_exactly(issuer: InMemoryIssuer, now: Now) -> None:
    for iss in ("https://issuer.test/", "https://ISSUER.test", "https://issuer.test.evil.example"):
        assert (
            refusal(Verifier(issuer.trusted(), clock=now), issuer.mint(claims={"iss": iss}))
            == "ISSUER_MISMATCH"
        )
    assert (
        refusal(Verifier(issuer.trusted(), clock=now), issuer.mint(audience="order")) == "AUDIENCE_MISMATCH"
    )


def test_of_several_issuers_each_is_verified_with_its_own_keys_only(now: Now) -> None:
    ours = InMemoryIssuer("https://a.test", audience="orders", clock=now)
    theirs = InMemoryIssuer("https://b.test", audience="orders", clock=now)
    verifier = Verifier(ours.trusted(), theirs.trusted(), clock=now)
    assert verifier.verify(theirs.mint()).issuer == "https://b.test"
    forged = theirs.mint(claims={"iss": "https://a.test"})
    assert refusal(verifier, forged) == "KEY_UNKNOWN"


def test_what_is_remembered_is_bounded_and_still_right(issuer: InMemoryIssuer, now: Now) -> None:
    verifier = Verifier(issuer.trusted(), max_remembered=10, clock=now)
    tokens = [issuer.mint(subject=f"user-{number}") for number in range(50)]
    for _ in range(2):
        assert [verifier.verify(token).subject for token in tokens] == [
            f"user-{number}" for number in range(50)
        ]
    assert refusal(verifier, issuer.mint_broken(Flaw.BAD_SIGNATURE)) == "TOKEN_INVALID"


def test_a_token_of_the_service_is_read_by_an_issuer_with_its_document(
    issuer: InMemoryIssuer, now: Now
) -> None:
    document = json.loads(json.dumps(issuer.jwks()))
    trusted = Issuer(issuer.issuer, keys=document, audience=["stock", "orders"])
    assert Verifier(trusted, clock=now).verify(issuer.mint()).audience == frozenset({"orders"})


@pytest.mark.parametrize(
    "arguments",
    [
        {"audience": "orders"},
        {"audience": "", "jwks": "https://id.example/jwks"},
        {"audience": "orders", "jwks": "http://id.example/jwks"},
        {"audience": "orders", "jwks": "ftp://id.example/jwks"},
        {"audience": "orders", "jwks": "https://user:pass@id.example/jwks"},
        {"audience": "orders", "jwks": "https://id.example/jwks", "target": "id.example:443"},
        {"audience": "orders", "jwks": "https://id.example/jwks", "algorithms": ["HS256"]},
    ],
    ids=str,
)
def test_an_issuer_that_cannot_be_trusted_is_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Issuer("https://id.example", **arguments)


def test_claims_that_no_rfc_knows_are_there_and_cannot_be_changed(issuer: InMemoryIssuer, now: Now) -> None:
    further = {"tenant": "acme", "plans": ["a", "b"], "address": {"lines": ["x"]}, "age": 3}
    verifier = Verifier(issuer.trusted(), clock=now)
    principal = verifier.verify(issuer.mint(claims=further))
    assert dict(principal.claims) == {
        "tenant": "acme",
        "plans": ("a", "b"),
        "address": PrivateClaims({"lines": ("x",)}),
        "age": 3,
    }
    with pytest.raises(TypeError):
        principal.claims["tenant"] = "mallory"  # type: ignore[index]
    assert pickle.loads(pickle.dumps(principal)) == principal
    assert hash(principal) == hash(pickle.loads(pickle.dumps(principal)))
    plain = verifier.verify(issuer.mint(roles=["admin"], claims={"auth_time": 5, "acr": "2", "amr": ["pwd"]}))
    assert plain.claims is NO_PRIVATE_CLAIMS
