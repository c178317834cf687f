"""An answer is taken over exactly, or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from claims_source.source import active
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from grpc_identity.claims import AccessTokenClaims, parse_claims
from grpc_identity.v1 import claims_source_pb2 as source_pb2
from identity.claims_source.answers import BadAnswerError, read_answer
from identity.claims_source.ports import Active, Disabled
from identity.tokens.access_token import RESERVED_CLAIMS, SessionClaims

ALLOWED = ("tenant", "plan", "a/b")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=True)
    | st.integers(-(2**60), 2**60)
    | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from([*ALLOWED, "other", *sorted(RESERVED_CLAIMS)[:3]]) | st.text(max_size=10)
LASTING = SessionClaims("alice", "web", "S" * 32, auth_time_seconds=5, acr="2", amr=("pwd",))


def in_token(answer: Active) -> AccessTokenClaims:
    roles = answer.roles or ()
    claims = SessionClaims("alice", "web", "S" * 32, roles, private=answer.private).serialised()
    payload = f'{{"iss":"i","aud":"o","exp":2,"iat":1,"jti":"j",{claims}}}'
    return parse_claims(payload.encode())


@given(st.lists(st.text(max_size=8), max_size=20), st.dictionaries(NAMES, VALUES, max_size=5))
def test_whatever_is_said_is_in_the_token_as_it_was_said_or_refused(
    roles: list[str], claims: dict[str, Any]
) -> None:
    message = active(*roles)
    message.claims.update(claims)
    try:
        answer = read_answer(source_pb2.GetClaimsResponse.FromString(message.SerializeToString()), ALLOWED)
    except BadAnswerError:
        return
    assert isinstance(answer, Active)
    token = in_token(answer)
    assert (token.subject, token.client_id, token.token_id) == ("alice", "web", "j")
    assert token.roles == set(roles)
    kept = {name: value for name, value in claims.items() if name in ALLOWED}
    assert {
        name: list(value) if isinstance(value, tuple) else value for name, value in token.private.items()
    } == kept


@pytest.mark.parametrize(
    ("said", "written"),
    [
        (3.0, "3"),
        (-0.0, "0"),
        (2.5, "2.5"),
        (2.0**53, "9007199254740992"),
        (1e300, "1e+300"),
        (True, "true"),
        ('é\n"\\', '"é\\n\\"\\\\"'),
        (["b", "a"], '["b","a"]'),
        ([], "[]"),
    ],
    ids=str,
)
def test_a_value_is_written_in_one_way(said: Any, written: str) -> None:
    answer = read_answer(active(tenant=said), ALLOWED)
    assert isinstance(answer, Active)
    assert answer.private == f',"tenant":{written}'
    assert json.loads(written) == said


def test_roles_and_claims_come_in_one_order_however_they_are_said() -> None:
    answers = [
        read_answer(message, ALLOWED)
        for message in (active("b", "a", "b", plan=1, tenant="x"), active("a", "b", tenant="x", plan=1))
    ]
    assert answers[0] == answers[1] == Active(("a", "b"), ',"plan":1,"tenant":"x"')


def test_of_a_disabled_subject_nothing_else_is_read() -> None:
    answer = active("x" * 1000, sub="mallory")
    answer.state = source_pb2.SUBJECT_STATE_DISABLED
    assert read_answer(answer, ALLOWED) == Disabled()


def test_no_roles_and_nothing_about_roles_are_two_answers() -> None:
    silent = source_pb2.GetClaimsResponse(state=source_pb2.SUBJECT_STATE_ACTIVE, claims=struct_pb2.Struct())
    assert read_answer(silent, ALLOWED) == Active(None, "")
    assert read_answer(active(), ALLOWED) == Active((), "")


@pytest.mark.parametrize("name", sorted(RESERVED_CLAIMS))
def test_a_claim_that_means_something_already_spoils_the_answer(name: str) -> None:
    with pytest.raises(BadAnswerError, match=name):
        read_answer(active(**{name: "x"}), [*ALLOWED, name])
