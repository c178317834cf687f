"""JOSE signatures (RFC 7518, section 3) with keys that are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jwt.algorithms import get_default_algorithms

from grpc_identity.jwk import PublicKey

_ALGORITHMS: Mapping[str, Any] = get_default_algorithms()


def sign(algorithm: str, private_key: Any, signing_input: bytes) -> bytes:
    """The signature; for ES256 the 64 bytes of R and S."""
    signature: bytes = _ALGORITHMS[algorithm].sign(signing_input, private_key)
    return signature


def verifies(algorithm: str, public_key: PublicKey, signing_input: bytes, signature: bytes) -> bool:
    """Whether the signature is of this key."""
    done: bool = _ALGORITHMS[algorithm].verify(signing_input, public_key, signature)
    return done
