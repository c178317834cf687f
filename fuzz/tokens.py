"""Fuzz target: bytes in, and ``TokenVerifier`` answers with a principal it may name or with a ``TokenError``.

The first byte of an input chooses what the rest is:

- even: the text of a token. The fuzzer knows public keys only, so what is accepted must be one of the seeds, or a
  seed's content under a signature that differs in nothing but its spelling (S of ES256 negated);
- odd: a header, a line feed, and a payload, which are signed here. So the search gets past the signature, and what is
  accepted is compared with what the standard library reads in it.

An exception of another kind, an answer that takes seconds, and a token accepted wrongly are findings.
"""

from __future__ import annotations

import json
import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["grpc_identity"]):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from grpc_identity import Issuer, TokenError, Verifier
    from grpc_identity.errors import Reason

VECTORS = json.loads(Path(__file__).parents[1].joinpath("tests/vectors/tokens.json").read_text())
SIGNED = {vector["input"].rpartition(".")[0] for vector in VECTORS["vectors"] if vector["reason"] is None}
# RFC 8037, appendix A.1: the private part of the key with the kid `ed` in the vectors.
KEY = Ed25519PrivateKey.from_private_bytes(urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="))
POSSIBLE = set(Reason) - {
    Reason.VERIFIER_FAILED,
    Reason.TOKEN_MISSING,
    Reason.TOKEN_REVOKED,
    Reason.KEYS_UNAVAILABLE,
}

verifier = Verifier(
    Issuer(VECTORS["issuer"], keys=VECTORS["jwks"], audience=VECTORS["audience"]),
    max_remembered=100,
    clock=lambda: VECTORS["now_seconds"],
)


def test_one_input(data: bytes) -> None:
    """One input of the fuzzer."""
    if data[:1] and data[0] % 2:
        header, _, payload = data[1:].partition(b"\n")
        signing_input = _encode(header) + b"." + _encode(payload)
        token = (signing_input + b"." + _encode(KEY.sign(signing_input))).decode()
    else:
        payload = None
        token = data[1:].decode("utf-8", "surrogateescape")
    try:
        principal = verifier.verify(token)
    except TokenError as error:
        assert error.reason in POSSIBLE, error
        assert len(error.detail) < 1000
        assert len(token) < 200 or token not in str(error)
        return
    if payload is None:
        assert token.rpartition(".")[0] in SIGNED, "accepted what nobody has signed"
        return
    assert json.loads(header)["alg"] == "EdDSA"
    claims = json.loads(payload)
    assert (principal.subject, principal.issuer) == (claims["sub"], VECTORS["issuer"])
    assert VECTORS["audience"] in claims["aud"]
    assert claims["exp"] + 30 > VECTORS["now_seconds"]


def _encode(raw: bytes) -> bytes:
    return urlsafe_b64encode(raw).rstrip(b"=")


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
