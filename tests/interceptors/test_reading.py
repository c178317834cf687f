"""Reading parts of tokens: one spelling each, and nothing that was read before changes what comes later."""

from __future__ import annotations

import itertools
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_identity import Principal, jws
from grpc_identity.claims import MAX_LIST_ITEMS, parse_claims
from grpc_identity.encoding import decode_base64url, encode_base64url, parse_json_object
from grpc_identity.errors import Reason, TokenError
from grpc_identity.jwk import Algorithm, KeySet
from grpc_identity.jws import MAX_KNOWN_HEADERS, parse_compact, verify_compact
from grpc_identity.testing import InMemoryIssuer

ACCESS_TOKEN_CLAIMS = {
    "iss": "https://issuer.test", "sub": "alice", "aud": ["orders"], "client_id": "web", "jti": "1", "iat": 1, "exp": 2,
}  # fmt: skip


def decoded(text: bytes) -> bytes | None:
    try:
        return decode_base64url(text)
    except ValueError:
        return None


def decoded_by_definition(text: bytes) -> bytes | None:
    """What the encoder of the standard library writes as this text, if there is such a thing."""
    try:
        raw = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except ValueError:
        return None
    return raw if urlsafe_b64encode(raw).rstrip(b"=") == text else None


@pytest.mark.parametrize("start", [b"", b"A", b"_w", b"AAAA", b"AAA"], ids=repr)
def test_every_two_bytes_at_the_end_of_base64url_are_read_as_they_are_written(start: bytes) -> None:
    for pair in itertools.product(range(256), repeat=2):
        text = start + bytes(pair)
        assert decoded(text) == decoded_by_definition(text), text


@given(st.binary(max_size=40) | st.text("AQgw-_+/=. \n", max_size=20).map(str.encode))
def test_base64url_has_one_spelling(text: bytes) -> None:
    assert decoded(text) == decoded_by_definition(text)
    assert decoded(encode_base64url(text).encode()) == text


@pytest.mark.parametrize("text", [b' {"a": 1}', b'\t{"a": 1}\r\n ', b'{"a": 1}'])
def test_whitespace_around_json_is_json(text: bytes) -> None:
    assert parse_json_object(text) == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1}x', b'{"a": 1}{}', b'{"a": 1},', b'x{"a": 1}', b"\xef\xbb\xbf{}", b"\x0b{}", b"{}\x00", b"{}\xc2\xa0",
        b'{"a": {"b": 1, "b": 1}}', b'{"a": [{"b": 1, "b": 1}]}', b'{"a": NaN}', b"", b" ", b"{", b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_not_one_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_json_object(text)


def test_a_header_that_was_read_before_is_still_compared_with_what_is_expected() -> None:
    issuer = InMemoryIssuer()
    keys = KeySet.from_dict(issuer.jwks())
    token = issuer.mint()
    assert verify_compact(token, keys, typ="at+jwt")
    with pytest.raises(TokenError, match="typ"):
        verify_compact(token, keys, typ="jwt")
    with pytest.raises(TokenError, match="alg"):
        verify_compact(token, keys, typ="at+jwt", algorithms={Algorithm.RS256})
    assert verify_compact(token, keys)


def test_a_header_that_was_refused_is_refused_again() -> None:
    issuer = InMemoryIssuer()
    for header in ({"crit": ["exp"]}, {"alg": "none"}, {"alg": "HS256"}, {"kid": ""}):
        token = issuer.sign(b"{}", header=header)
        for _ in range(2):
            with pytest.raises(TokenError) as refused:
                parse_compact(token)
            assert refused.value.reason is Reason.TOKEN_INVALID


def test_a_known_header_lends_nothing_to_another_payload_or_key() -> None:
    issuer, other = InMemoryIssuer(), InMemoryIssuer()
    token = issuer.mint()
    verify_compact(token, KeySet.from_dict(issuer.jwks()))
    header, payload, signature = token.split(".")
    changed = encode_base64url(b'{"sub":"mallory"}')
    with pytest.raises(TokenError, match="does not verify"):
        verify_compact(f"{header}.{changed}.{signature}", KeySet.from_dict(issuer.jwks()))
    with pytest.raises(TokenError, match="no key with the kid"):
        verify_compact(f"{header}.{payload}.{signature}", KeySet.from_dict(other.jwks()))


def test_few_headers_are_remembered_however_many_come() -> None:
    issuer = InMemoryIssuer()
    for number in range(3 * MAX_KNOWN_HEADERS):
        parse_compact(issuer.sign(b"{}", header={"kid": str(number)}))
    assert jws._read_header.cache_info().currsize == MAX_KNOWN_HEADERS


def test_the_parts_of_a_token_are_not_in_its_repr() -> None:
    token = InMemoryIssuer().mint(subject="alice")
    shown = repr(parse_compact(token))
    assert "alice" not in shown
    assert all(part not in shown for part in token.split("."))


@pytest.mark.parametrize(
    "value", [[["orders"]], [{}], [1], [True], [None], [""], "", 1, None, [], ["a"] * 200]
)
def test_an_audience_that_is_no_list_of_strings_is_refused_however_often_it_comes(value: object) -> None:
    for _ in range(2):
        with pytest.raises(TokenError) as refused:
            parse_claims(json.dumps(ACCESS_TOKEN_CLAIMS | {"aud": value}).encode())
        assert refused.value.reason is Reason.TOKEN_INVALID


@pytest.mark.parametrize("value", ["a  b", " a", "a ", " ", "a " * MAX_LIST_ITEMS + "a", 1, None, ["a"]])
def test_a_scope_that_is_no_list_of_names_is_refused_however_often_it_comes(value: object) -> None:
    for _ in range(2):
        with pytest.raises(TokenError) as refused:
            parse_claims(json.dumps(ACCESS_TOKEN_CLAIMS | {"scope": value}).encode())
        assert refused.value.reason is Reason.TOKEN_INVALID


def test_callers_of_one_kind_share_what_is_the_same_of_them() -> None:
    payloads = [
        json.dumps(ACCESS_TOKEN_CLAIMS | {"jti": jti, "scope": "a b", "roles": ["admin", "clerk"]}).encode()
        for jti in "12"
    ]
    one, other = (Principal.from_claims(parse_claims(payload)) for payload in payloads)
    assert one != other
    assert one.audience is other.audience
    assert one.scopes is other.scopes
    assert one.roles is other.roles
    assert one.expires_at is other.expires_at
