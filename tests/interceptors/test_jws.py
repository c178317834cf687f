"""Compact JWS against vectors, and the checks that keys pass when they are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from grpc_identity.encoding import encode_base64url
from grpc_identity.errors import KeyRefusedError, TokenError
from grpc_identity.jwk import Algorithm, KeySet, to_jwk
from grpc_identity.jws import verify_compact
from grpc_identity.testing import InMemoryIssuer

VECTORS = json.loads(Path(__file__).parents[1].joinpath("vectors/jws/es256.json").read_text())
EC_KEY = to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key())
RSA_KEY = to_jwk(rsa.generate_private_key(65537, 2048).public_key())
OKP_KEY = to_jwk(ed25519.Ed25519PrivateKey.generate().public_key())


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, Any]) -> None:
    keys = KeySet.from_dict(VECTORS["jwks"])
    if vector["refused"] is None:
        assert (
            verify_compact(vector["token"], keys, typ=VECTORS["typ"]).payload.decode() == VECTORS["payload"]
        )
        return
    with pytest.raises(TokenError) as refused:
        verify_compact(vector["token"], keys, typ=VECTORS["typ"])
    assert refused.value.reason == vector["refused"]
    assert not vector["token"] or vector["token"] not in str(refused.value)


@given(st.text(max_size=300))
def test_no_other_text_verifies(text: str) -> None:
    with pytest.raises(TokenError):
        verify_compact(text, KeySet.from_dict(VECTORS["jwks"]))


def test_what_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(TokenError, match="longer than"):
        verify_compact("a" * 1_000_000, KeySet.from_dict(VECTORS["jwks"]))


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_tokens_agree_with_an_independent_library(algorithm: Algorithm) -> None:
    issuer = InMemoryIssuer(audience="orders", algorithm=algorithm)
    token = issuer.mint(subject="alice")
    claims = jwt.decode(
        token, jwt.PyJWK(issuer.jwks()["keys"][0]).key, algorithms=[algorithm.value], audience="orders"
    )
    verified = verify_compact(token, KeySet.from_dict(issuer.jwks()))
    assert json.loads(verified.payload) == claims


def test_a_key_verifies_only_with_the_algorithm_it_is_for() -> None:
    issuer = InMemoryIssuer(algorithm="RS256")
    with pytest.raises(TokenError):
        verify_compact(issuer.mint(), KeySet.from_dict(issuer.jwks()), algorithms={Algorithm.ES256})


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("no key", []),
        ("a private member", [EC_KEY | {"d": "AA"}]),
        ("a private RSA member", [RSA_KEY | {"p": "AA"}]),
        ("a symmetric key", [{"kty": "oct", "k": "AAAA", "kid": "1"}]),
        ("one kid twice", [EC_KEY, RSA_KEY | {"kid": EC_KEY["kid"]}]),
        ("a point that is not on the curve", [EC_KEY | {"x": EC_KEY["y"], "y": EC_KEY["x"]}]),
        ("a short coordinate", [EC_KEY | {"x": encode_base64url(b"\1")}]),
        ("padding in a number", [EC_KEY | {"x": EC_KEY["x"] + "="}]),
        ("a leading zero in the modulus", [RSA_KEY | {"n": "AA" + RSA_KEY["n"]}]),
        ("the exponent 1", [RSA_KEY | {"e": encode_base64url(b"\1")}]),
        ("an even exponent", [RSA_KEY | {"e": encode_base64url((65538).to_bytes(3))}]),
        ("a short modulus", [RSA_KEY | {"n": encode_base64url((2**1023 + 1).to_bytes(128))}]),
        ("an algorithm of another key type", [EC_KEY | {"alg": "RS256"}]),
        ("a key that signs", [EC_KEY | {"key_ops": ["sign"]}]),
        ("too many keys", [EC_KEY | {"kid": str(number)} for number in range(65)]),
        ("a short Ed25519 key", [OKP_KEY | {"x": encode_base64url(b"\1" * 31)}]),
        ("no key type", [{"kid": "1"}]),
        ("no object", ["key"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unsuitable_keys_are_refused(name: str, keys: list[Any]) -> None:
    del name
    with pytest.raises(KeyRefusedError):
        KeySet.from_dict({"keys": keys})


def test_a_sound_key_for_another_purpose_is_left_out_and_named() -> None:
    keys = KeySet.from_dict({"keys": [EC_KEY, RSA_KEY | {"use": "enc"}]})
    assert len(keys) == 1
    assert len(keys.ignored) == 1


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys":[],"keys":[]}', b'{"keys":1}', b"\xff"])
def test_what_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(KeyRefusedError):
        KeySet.from_json(document)
