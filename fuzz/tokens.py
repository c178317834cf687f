"""Fuzz target: any text in, and ``TokenVerifier`` answers with a principal it may name or with a ``TokenError``.

The fuzzer has public keys only. So what is accepted must be one of the seeds, or differ from one in nothing but the
spelling of its signature (S of ES256 negated). An exception of another kind, an answer that takes seconds, and a
token accepted that nobody has signed are findings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["grpc_identity"]):
    from grpc_identity import Issuer, TokenError, Verifier
    from grpc_identity.errors import Reason

VECTORS = json.loads(Path(__file__).parents[1].joinpath("tests/vectors/tokens.json").read_text())
SIGNED = {vector["input"].rpartition(".")[0] for vector in VECTORS["vectors"] if vector["reason"] is None}
IMPOSSIBLE = {
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
    token = data.decode("utf-8", "surrogateescape")
    try:
        verifier.verify(token)
    except TokenError as error:
        assert error.reason not in IMPOSSIBLE, error
        assert len(error.detail) < 1000
        assert len(token) < 200 or token not in str(error)
    else:
        assert token.rpartition(".")[0] in SIGNED, "accepted what nobody has signed"


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
