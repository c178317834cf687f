"""Fuzz target: a header, a line feed and a payload in; they are signed here, so that the search gets past that.

What is accepted is compared with what the standard library reads in it; what is refused must be a ``TokenError``.
Beside turning bytes, the mutator changes the JSON: members are replaced by awkward values, doubled, renamed, removed.
"""

from __future__ import annotations

import json
import random
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

import atheris
from json_mutator import changed

with atheris.instrument_imports(include=["grpc_identity"]):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from grpc_identity import Issuer, TokenError, Verifier
    from grpc_identity.errors import Reason

VECTORS = json.loads(Path(__file__).parents[1].joinpath("tests/vectors/tokens.json").read_text())
# RFC 8037, appendix A.1: the private part of the key with the kid `ed` in the vectors.
KEY = Ed25519PrivateKey.from_private_bytes(urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="))
VALUES = [
    "orders", "https://id.example", "at+jwt", "EdDSA", "none", {"sub": "a"}, {"sub": "a", "act": {"sub": "b"}},
    {"jkt": "x"}, 1_799_999_999, 1_800_000_000, 1_800_000_271, 1_800_000_330, 1_800_000_331,
]  # fmt: skip
NAMES = [
    "alg", "kid", "typ", "crit", "b64", "zip", "enc", "cty", "jwk", "jku", "x5u", "x5c", "x5t", "iss", "sub", "aud",
    "exp", "iat", "nbf", "jti", "client_id", "scope", "roles", "sid", "act", "cnf", "amr", "acr", "auth_time", "x",
]  # fmt: skip

verifier = Verifier(
    Issuer(VECTORS["issuer"], keys=VECTORS["jwks"], audience=VECTORS["audience"]),
    max_remembered=100,
    clock=lambda: VECTORS["now_seconds"],
)


def test_one_input(data: bytes) -> None:
    """One input of the fuzzer."""
    header, _, payload = data.partition(b"\n")
    signing_input = _encode(header) + b"." + _encode(payload)
    token = (signing_input + b"." + _encode(KEY.sign(signing_input))).decode()
    try:
        principal = verifier.verify(token)
    except TokenError as error:
        assert error.reason is not Reason.VERIFIER_FAILED
        assert len(error.detail) < 1000
        assert token not in str(error)
        return
    said, claims = json.loads(header), json.loads(payload)
    assert said["alg"] == "EdDSA"
    assert said["typ"].lower().removeprefix("application/") == "at+jwt"
    assert not {"crit", "b64", "jwk", "jku", "x5u", "x5c", "cty", "enc", "zip"} & set(said)
    assert (principal.subject, principal.issuer) == (claims["sub"], VECTORS["issuer"])
    assert principal.client_id == claims["client_id"]
    assert VECTORS["audience"] in ([claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"])
    assert claims["exp"] + 30 > VECTORS["now_seconds"] >= max(claims["iat"], claims.get("nbf", 0)) - 30
    assert principal.scopes == frozenset(claims.get("scope", "").split())
    assert principal.roles == frozenset(claims.get("roles", ()))
    assert "cnf" not in claims


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Changes a member of the header or the payload, or else some bytes."""
    chance = random.Random(seed)
    parts = data.split(b"\n", 1)
    if len(parts) == 2 and chance.random() < 0.7:
        which = chance.random() < 0.75
        mutated = changed(parts[which], chance, NAMES, VALUES)
        if mutated is not None:
            parts[which] = mutated
            return b"\n".join(parts)[:max_size]
    return bytes(atheris.Mutate(data, max_size))


def _encode(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input, custom_mutator=mutate)
    atheris.Fuzz()
