"""Property tests: good tokens, mutated, are refused with a reason, whatever was done to them.

Two sorts. Without the key: no other text may be accepted, except a second spelling of the very signature. With the
key: what is accepted must say just what an independent reader reads in it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from grpc_identity import Reason, TokenError, Verifier
from grpc_identity.encoding import decode_base64url, encode_base64url
from grpc_identity.errors import KeyRefusedError
from grpc_identity.jwk import Algorithm, KeySet
from grpc_identity.testing import InMemoryIssuer

NOW = 1_800_000_000
ISSUERS = [
    InMemoryIssuer(
        f"https://{algorithm.lower()}.test", audience="orders", algorithm=algorithm, clock=lambda: NOW
    )
    for algorithm in Algorithm
]
VERIFIER = Verifier(*(issuer.trusted() for issuer in ISSUERS), clock=lambda: NOW)
CLAIMS = {"act": {"sub": "billing"}, "amr": ["mfa"], "acr": "2", "auth_time": NOW - 5, "nbf": NOW}
TOKENS = [
    issuer.mint(subject="alice", scopes=["a", "b"], roles=["admin"], claims=CLAIMS) for issuer in ISSUERS
]
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
FROM_STRANGERS = {
    Reason.TOKEN_INVALID, Reason.KEY_UNKNOWN, Reason.ISSUER_MISMATCH, Reason.AUDIENCE_MISMATCH,
    Reason.TOKEN_EXPIRED,
    Reason.TOKEN_NOT_YET_VALID,
}  # fmt: skip

a_token = st.sampled_from(TOKENS)
an_issuer = st.sampled_from(ISSUERS)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from(
        ["orders", "https://es256.test", "at+jwt", NOW, NOW + 600, 2**63, 10**400, "a b", "\ud800"]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def answer(token: str) -> Reason | None:
    """The reason of the refusal, ``None`` for an accepted token; any other exception fails the test."""
    try:
        VERIFIER.verify(token)
    except TokenError as error:
        refused = error
    else:
        return None
    assert refused.reason in FROM_STRANGERS
    assert len(refused.detail) < 1000
    assert len(token) < 100 or token not in str(refused)
    return refused.reason


def other_spelling(token: str) -> str | None:
    """The same ES256 signature with S negated: good as well, and over the same bytes."""
    head, payload, signature = token.split(".")
    raw = decode_base64url(signature.encode())
    if len(raw) != 64 or decode_base64url(head.encode()).find(b"ES256") < 0:
        return None
    s = P256_ORDER - int.from_bytes(raw[32:])
    return f"{head}.{payload}.{encode_base64url(raw[:32] + s.to_bytes(32))}"


@pytest.mark.parametrize("token", TOKENS, ids=list(Algorithm))
def test_the_tokens_that_are_mutated_are_good(token: str) -> None:
    assert answer(token) is None


@given(a_token, st.data())
def test_a_changed_character_is_refused(token: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from(ALPHABET + "=+/. \n\0") | st.characters())
    assume(character != token[at])
    assert answer(token[:at] + character + token[at + 1 :]) is not None


@given(a_token, st.integers(min_value=0), st.integers(0, 7))
def test_a_flipped_bit_of_a_decoded_part_is_refused(token: str, position: int, bit: int) -> None:
    parts = token.split(".")
    which = position % 3
    raw = bytearray(decode_base64url(parts[which].encode()))
    raw[position // 3 % len(raw)] ^= 1 << bit
    parts[which] = encode_base64url(bytes(raw))
    assert answer(".".join(parts)) is not None


@given(a_token, st.data())
def test_a_token_cut_or_stretched_is_refused(token: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(token)))
    upto = data.draw(st.integers(at, len(token)))
    inserted = data.draw(
        st.text(max_size=20) | st.text(ALPHABET + ".", max_size=200) | st.sampled_from(TOKENS)
    )
    mutated = token[:at] + inserted + token[upto:]
    assume(mutated not in TOKENS)
    assert answer(mutated) is not None


@given(st.lists(a_token, min_size=1, max_size=6), st.lists(st.integers(0, 2), min_size=0, max_size=6))
def test_parts_of_several_tokens_put_together_are_refused(tokens: list[str], order: list[int]) -> None:
    parts = [token.split(".")[which] for token, which in zip(tokens * 6, order, strict=False)]
    mutated = ".".join(parts)
    assume(mutated not in TOKENS)
    assert answer(mutated) is not None


@given(
    st.text(max_size=200)
    | st.text(ALPHABET + ".", max_size=2000)
    | st.binary().map(lambda raw: raw.decode("latin-1"))
)
@example("")
@example("..")
def test_any_other_text_is_refused(text: str) -> None:
    assert answer(text) is not None


@given(a_token, st.binary(max_size=300))
def test_any_other_signature_is_refused(token: str, signature: bytes) -> None:
    mutated = f"{token.rpartition('.')[0]}.{encode_base64url(signature)}"
    assume(mutated not in TOKENS)
    assert answer(mutated) is not None


def test_the_second_spelling_of_an_ecdsa_signature_says_the_same() -> None:
    spellings = [other for token in TOKENS if (other := other_spelling(token))]
    assert len(spellings) == 1
    assert VERIFIER.verify(spellings[0]) == VERIFIER.verify(TOKENS[0])


@given(
    an_issuer,
    st.binary(max_size=400) | st.text(max_size=400).map(lambda text: text.encode("utf-8", "replace")),
)
def test_a_signed_payload_of_any_bytes_is_refused(issuer: InMemoryIssuer, payload: bytes) -> None:
    assert answer(issuer.sign(payload)) is Reason.TOKEN_INVALID


@given(an_issuer, st.data())
def test_signed_claims_of_any_form_are_refused_or_read_as_they_are(
    issuer: InMemoryIssuer, data: st.DataObject
) -> None:
    claims = json.loads(decode_base64url(TOKENS[ISSUERS.index(issuer)].split(".")[1].encode()))
    for name in data.draw(st.lists(st.sampled_from([*claims, "cnf", "x"]), min_size=1, max_size=3)):
        claims[name] = data.draw(json_values, label=name)
    token = issuer.sign(json.dumps(claims).encode())
    if answer(token) is None:
        principal = VERIFIER.verify(token)
        assert (principal.subject, principal.issuer) == (claims["sub"], issuer.issuer)
        assert principal.client_id == claims["client_id"]
        assert "orders" in principal.audience
        assert principal.audience == frozenset(
            [claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"]
        )
        assert principal.scopes == frozenset(claims["scope"].split(" ")) - {""}
        assert principal.roles == frozenset(claims["roles"])
        assert principal.expires_at.timestamp() == claims["exp"]
        assert type(claims["exp"]) is type(claims["iat"]) is int
        assert "cnf" not in claims


@given(an_issuer, st.text('{}[]",:\\ u0069nal1eE-+.', max_size=60))
def test_signed_text_that_looks_like_json_never_fails_otherwise(issuer: InMemoryIssuer, text: str) -> None:
    claims = decode_base64url(TOKENS[ISSUERS.index(issuer)].split(".")[1].encode())
    assert answer(issuer.sign(claims[:-1] + b',"x":1' + text.encode() + b"}")) in {None, Reason.TOKEN_INVALID}


@given(
    an_issuer,
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "cty", "jwk", "jku", "x5c", "x5t", "x"])
        | st.text(max_size=5),
        json_values,
        max_size=4,
    ),
)
def test_signed_headers_of_any_form_are_refused_or_harmless(
    issuer: InMemoryIssuer, header: dict[str, Any]
) -> None:
    # `sign` leaves out what is None, and what stands in its place are the members of a good header.
    token = issuer.sign(decode_base64url(TOKENS[ISSUERS.index(issuer)].split(".")[1].encode()), header=header)
    if answer(token) is None:
        read = json.loads(decode_base64url(token.split(".")[0].encode()))
        assert read["alg"] == issuer.algorithm
        assert read["typ"].lower().removeprefix("application/") == "at+jwt"
        assert not {"crit", "b64", "zip", "enc", "cty", "jwk", "jku", "x5u", "x5c"} & set(read)


@given(an_issuer, st.lists(st.tuples(st.text(max_size=8), json_values), max_size=6), st.data())
def test_a_name_that_is_there_twice_is_refused_at_any_depth(
    issuer: InMemoryIssuer, pairs: list[tuple[str, Any]], data: st.DataObject
) -> None:
    name = data.draw(st.text(max_size=8))
    members = [*pairs, (name, 1), (name, 1)]
    inner = "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in members) + "}"
    for _ in range(data.draw(st.integers(0, 5))):
        inner = data.draw(st.sampled_from(["[%s]", '{"x":%s}', "[0,%s]"])).replace("%s", inner)
    claims = decode_base64url(TOKENS[ISSUERS.index(issuer)].split(".")[1].encode())
    token = issuer.sign(claims[:-1] + b',"x":' + inner.encode() + b"}")
    assert answer(token) is Reason.TOKEN_INVALID


@given(st.data())
def test_a_mutated_key_set_is_refused_or_sound(data: st.DataObject) -> None:
    document = json.loads(json.dumps({"keys": [key for issuer in ISSUERS for key in issuer.jwks()["keys"]]}))
    key = data.draw(st.sampled_from(document["keys"]))
    for name in data.draw(
        st.lists(st.sampled_from([*key, "d", "k", "key_ops", "use", "crv"]), min_size=1, max_size=3)
    ):
        key[name] = data.draw(json_values | st.text(ALPHABET, max_size=50))
    try:
        keys = KeySet.from_json(json.dumps(document))
    except KeyRefusedError:
        pass
    else:
        assert not {"d", "k"} & set(key)
        assert len(keys) + len(keys.ignored) == 3


@given(st.binary(max_size=400) | st.text(max_size=200))
def test_any_other_document_is_no_key_set(document: bytes | str) -> None:
    with pytest.raises(KeyRefusedError):
        KeySet.from_json(document)
