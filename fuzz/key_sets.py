"""Fuzz target: a JWK set in, and ``KeySet.from_json`` answers with checked public keys or with ``KeyRefusedError``.

What is accepted must be sound by the count of the cryptography library, and must survive being published again.
"""

from __future__ import annotations

import json
import random
import sys

import atheris
from json_mutator import changed

with atheris.instrument_imports(include=["grpc_identity"]):
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    from grpc_identity.errors import KeyRefusedError
    from grpc_identity.jwk import KeySet, parse_jwk, to_jwk

NAMES = [
    "keys", "kty", "crv", "alg", "use", "key_ops", "kid", "x", "y", "n", "e", "d", "p", "q", "dp", "dq", "qi", "oth",
    "k", "x5c", "x5u",
]  # fmt: skip
VALUES = [
    "EC", "RSA", "OKP", "oct", "AKP", "P-256", "P-384", "Ed25519", "X25519", "sig", "enc", "verify", "sign", "ES256",
    "RS256", "EdDSA", "HS256", "PS256", "none", "AQAB", "AQ", "Aw", ["verify"], ["sign"], ["verify", "verify"],
    "A" * 43, "_" * 43, "A" * 342,
]  # fmt: skip
SECRET = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


def test_one_input(data: bytes) -> None:
    """One input of the fuzzer; every other one is decoded first, as callers with a text do."""
    document: bytes | str = data if len(data) % 2 else data.decode("utf-8", "surrogateescape")
    try:
        keys = KeySet.from_json(document)
    except KeyRefusedError as error:
        assert len(str(error)) < 64 * 400
        return
    assert 1 <= len(keys) <= 64
    assert not any(SECRET & set(jwk) for jwk in json.loads(document)["keys"])
    for key in keys:
        match key.public_key:
            case EllipticCurvePublicKey():
                assert key.public_key.curve.name == "secp256r1"
            case RSAPublicKey():
                assert 2048 <= key.public_key.key_size <= 8192
                assert key.public_key.public_numbers().e % 2 == 1
        again = parse_jwk(to_jwk(key.public_key, kid=key.kid))
        assert (again.thumbprint, again.algorithm) == (key.thumbprint, key.algorithm)
        assert key.kid is None or keys.get(key.kid) is key


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Changes a member of some object, or else some bytes."""
    chance = random.Random(seed)
    mutated = changed(data, chance, NAMES, VALUES) if chance.random() < 0.7 else None
    return bytes(atheris.Mutate(data, max_size)) if mutated is None else mutated[:max_size]


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input, custom_mutator=mutate)
    atheris.Fuzz()
