"""The vectors: whatever the RFCs and known attacks offer gets the refusal that is due, and no other answer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grpc_identity import Issuer, Verifier
from grpc_identity.errors import KeyRefusedError, TokenError
from grpc_identity.jwk import KeySet, parse_jwk
from grpc_identity.jws import verify_compact

FOLDER = Path(__file__).parents[1] / "vectors"
TOKENS, KEY_SETS, RFC = (
    json.loads(FOLDER.joinpath(name).read_text()) for name in ("tokens.json", "key_sets.json", "rfc.json")
)


def of(document: dict[str, Any]) -> Any:
    return pytest.mark.parametrize(
        "vector", document["vectors"], ids=[vector["id"] for vector in document["vectors"]]
    )


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer(TOKENS["issuer"], keys=TOKENS["jwks"], audience=TOKENS["audience"])


@of(TOKENS)
def test_a_token_gets_its_answer(vector: dict[str, Any], issuer: Issuer) -> None:
    verifier = Verifier(issuer, clock=lambda: TOKENS["now_seconds"])
    # Twice, because what is remembered must not answer otherwise.
    for _ in range(2):
        if vector["reason"] is None:
            assert verifier.verify(vector["input"]).issuer == TOKENS["issuer"]
        else:
            with pytest.raises(TokenError) as refused:
                verifier.verify(vector["input"])
            assert refused.value.reason == vector["reason"], refused.value
            assert vector["detail"] in refused.value.detail
            assert len(refused.value.detail) < 400
            assert not vector["input"] or vector["input"] not in str(refused.value)


@of(KEY_SETS)
def test_a_key_set_gets_its_answer(vector: dict[str, Any]) -> None:
    if vector["reason"] is None:
        assert len(KeySet.from_json(vector["input"])) >= 1
        return
    with pytest.raises(KeyRefusedError) as refused:
        KeySet.from_json(vector["input"])
    assert vector["detail"] in str(refused.value)
    assert ("no usable key" in str(refused.value)) == (vector["reason"] == "NO_USABLE_KEY")
    assert len(str(refused.value)) < 1000


@of(RFC)
def test_an_example_of_an_rfc_gets_its_answer(vector: dict[str, Any], issuer: Issuer) -> None:
    keys = KeySet.from_dict(vector["jwks"])
    if vector["reason"] is None:
        assert verify_compact(vector["input"], keys).payload.decode() == vector["payload"]
    else:
        with pytest.raises(TokenError) as refused:
            verify_compact(vector["input"], keys)
        assert refused.value.reason == vector["reason"]
        assert vector["detail"] in refused.value.detail
    # None of them is an access token, good signature or not.
    with pytest.raises(TokenError) as refused:
        Verifier(issuer).verify(vector["input"])
    assert refused.value.reason == "TOKEN_INVALID"


@pytest.mark.parametrize("vector", RFC["thumbprints"], ids=lambda vector: vector["id"])
def test_a_thumbprint_is_the_one_of_the_rfc(vector: dict[str, Any]) -> None:
    assert parse_jwk(vector["jwk"]).thumbprint == vector["thumbprint"]


@pytest.mark.parametrize("vector", RFC["key_sets"], ids=lambda vector: vector["id"])
def test_a_key_set_of_an_rfc_gives_its_public_signature_keys(vector: dict[str, Any]) -> None:
    if vector["kids"] is None:
        with pytest.raises(KeyRefusedError):
            KeySet.from_dict(vector["input"])
    else:
        assert [key.kid for key in KeySet.from_dict(vector["input"])] == vector["kids"]


@pytest.mark.parametrize("document", [TOKENS, KEY_SETS, RFC], ids=["tokens", "key_sets", "rfc"])
def test_the_vectors_are_mostly_negative_and_each_has_its_source(document: dict[str, Any]) -> None:
    vectors = document["vectors"]
    accepted = [vector for vector in vectors if vector["reason"] is None]
    assert 0 < len(accepted) * 4 < len(vectors)
    assert len({vector["id"] for vector in vectors}) == len(vectors)
    assert all(
        re.search(r"RFC \d{4}|CVE-\d{4}-\d+|CWE-\d+|FIPS|SEC 1", vector["source"]) for vector in vectors
    )


def test_the_generated_vectors_are_fresh(tmp_path: Path) -> None:
    subprocess.run([sys.executable, FOLDER / "make", tmp_path], check=True, timeout=60)
    for name in ("tokens.json", "key_sets.json"):
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text(), f"run: python {FOLDER / 'make'}"
