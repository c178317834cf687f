"""The view of what is revoked: what it refuses, what it forgets, and how large it gets."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_identity import Principal, Reason, TokenError, Verifier
from grpc_identity.claims import parse_claims
from grpc_identity.revocations import RevocationView, Revoked, place_of
from grpc_identity.testing import InMemoryIssuer
from identity.tokens.access_token import TokenId

LATER = 10_000.0


def principal(bucket: int = 3, sequence: int = 100, **claims: str) -> Principal:
    members = {
        "iss": "i", "sub": "alice", "aud": "a", "client_id": "web", "iat": 1, "exp": 100, "sid": "s-1",
        "jti": str(TokenId(bucket, sequence, bytes(10))),
    }  # fmt: skip
    import json

    return Principal.from_claims(parse_claims(json.dumps(members | claims).encode()))


def view_of(*revoked: Revoked, **options: int) -> RevocationView:
    view = RevocationView(**options)
    view.apply(revoked)
    return view


@pytest.mark.parametrize(
    "revoked",
    [
        Revoked(LATER, session_id="s-1"),
        Revoked(LATER, token_id=str(TokenId(3, 100, bytes(10)))),
        Revoked(LATER, kid="k-1"),
        Revoked(LATER, subject="alice", up_to={3: 100}),
        Revoked(LATER, client_id="web", up_to={1: 5, 3: 500}),
    ],
)
def test_each_kind_of_revocation_is_found(revoked: Revoked) -> None:
    assert view_of(revoked).why_revoked(principal(), "k-1") is not None
    assert view_of().why_revoked(principal(), "k-1") is None


@pytest.mark.parametrize(
    "revoked",
    [
        Revoked(LATER, session_id="s-2"),
        Revoked(LATER, kid="k-2"),
        Revoked(LATER, subject="alice", up_to={3: 99}),
        Revoked(LATER, subject="alice", up_to={4: 1000}),
        Revoked(LATER, subject="bob", up_to={3: 1000}),
        Revoked(LATER, client_id="web", up_to={1: 1000}),
    ],
)
def test_what_is_another_s_or_was_issued_after_lives(revoked: Revoked) -> None:
    assert view_of(revoked).why_revoked(principal(), "k-1") is None


def test_a_token_without_a_place_is_taken_for_one_issued_before() -> None:
    view = view_of(Revoked(LATER, subject="alice", up_to={3: 1}))
    assert view.why_revoked(principal(jti="0f1c3c2c-4f5e-4d2a-9a54-1bb7fdd1e6f0"), "k-1") is not None


def test_cut_offs_only_ever_move_ahead() -> None:
    view = view_of(
        Revoked(LATER, subject="alice", up_to={3: 100}), Revoked(LATER, subject="alice", up_to={3: 50, 4: 7})
    )
    assert view.why_revoked(principal(3, 100), "") is not None
    assert view.why_revoked(principal(4, 7), "") is not None


@given(st.integers(0, 2**16 - 1), st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_verifier_reads_the_place_that_the_server_writes(bucket: int, sequence: int, event: bytes) -> None:
    assert place_of(str(TokenId(bucket, sequence, event))) == (bucket, sequence)


@given(st.text(max_size=40))
def test_no_jti_makes_reading_its_place_fail(text: str) -> None:
    place = place_of(text)
    assert place is None or len(place) == 2


def test_entries_leave_when_the_last_token_they_concern_has_expired() -> None:
    view = view_of(
        Revoked(1000.0, session_id="s-1"), Revoked(2000.0, session_id="s-2"), Revoked(1000.0, subject="alice")
    )
    # Revoked anew, it has to stay for longer.
    view.apply([Revoked(2000.0, subject="alice")])
    view.forget(now_seconds=999.0)
    assert len(view) == 3
    view.forget(now_seconds=1100.0)
    assert len(view) == 2
    view.forget(now_seconds=2100.0)
    assert len(view) == 0


def test_a_view_that_is_full_is_not_current_until_it_is_told_everything_anew() -> None:
    view = view_of(max_entries=2)
    view.heard()
    assert view.age_seconds < 60
    view.apply([Revoked(1000.0, session_id=f"s-{number}") for number in range(3)])
    assert len(view) == 2
    assert view.age_seconds == inf
    view.forget(now_seconds=5000.0)
    assert view.age_seconds == inf
    view.start_over()
    view.heard()
    assert view.age_seconds < 60


@pytest.mark.parametrize("what", ["session_id", "token_id", "subject", "client_id", "kid"])
def test_a_remembered_token_is_refused_at_once_when_it_is_revoked(what: str) -> None:
    issuer = InMemoryIssuer(audience="test")
    verifier = Verifier(issuer.trusted())
    token = issuer.mint(session_id="s-1", subject="alice", client_id="web")
    other = issuer.mint(session_id="s-2", subject="bob", client_id="app")
    for _ in range(2):
        caller = verifier.verify(token)
    names = {
        "session_id": caller.session_id,
        "token_id": caller.token_id,
        "subject": caller.subject,
        "client_id": caller.client_id,
        "kid": issuer.kid,
    }
    issuer.revoke(**{what: names[what]})
    for _ in range(2):
        with pytest.raises(TokenError) as caught:
            verifier.verify(token)
        assert caught.value.reason is Reason.TOKEN_REVOKED
    if what != "kid":
        assert verifier.verify(other).subject == "bob"
    if what in {"subject", "client_id"}:
        assert verifier.verify(issuer.mint(subject="alice", client_id="web")).subject == "alice"
