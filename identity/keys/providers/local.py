"""Private keys in the keyring itself, sealed there, and in this process's memory while they sign."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from grpc_identity.jwk import to_jwk
from identity.keys.ports import PROBE, NewKey, ProviderError
from identity.keys.signatures import sign

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
RSA_BITS = 3072


def generate_private_key(algorithm: str) -> PrivateKey:
    """A new key for ``ES256``, ``RS256`` or ``EdDSA``."""
    match algorithm:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "RS256":
            return rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case other:
            raise ValueError(f"{other!r} is not an algorithm of this service: use ES256, RS256 or EdDSA")


def to_der(key: PrivateKey) -> bytes:
    """PKCS #8, in the clear: to be sealed at once."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def from_der(raw: bytes) -> PrivateKey:
    """The key of ``to_der``."""
    key = load_der_private_key(raw, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise TypeError("not a key of this service")
    return key


def public_jwk(key: PrivateKey) -> dict[str, Any]:
    """The public half as RFC 7517 has it, with ``kid`` (RFC 7638), ``alg`` and ``use``."""
    return dict(to_jwk(key.public_key()))


@dataclass(frozen=True, slots=True)
class LocalSigner:
    """A ``Signer`` that never waits."""

    kid: str
    algorithm: str
    private_key: PrivateKey = field(repr=False)

    def check(self) -> None:
        """See ``Signer``: it is always there."""

    async def sign(self, signing_input: bytes) -> bytes:
        """See ``Signer``."""
        return sign(self.algorithm, self.private_key, signing_input)

    async def probe(self) -> bytes:
        """See ``Signer``."""
        return await self.sign(PROBE)


class LocalKeys:
    """A ``KeyProvider`` whose private part is the private key: PKCS #8, in DER."""

    async def generate(self, algorithm: str) -> NewKey:
        """See ``KeyProvider``. An RSA key takes a while to find."""
        key = await asyncio.to_thread(generate_private_key, algorithm)
        return NewKey(public_jwk(key), to_der(key))

    async def signer(self, kid: str, algorithm: str, private_part: bytes) -> LocalSigner:
        """See ``KeyProvider``."""
        try:
            return LocalSigner(kid, algorithm, from_der(private_part))
        except (TypeError, ValueError):
            raise ProviderError(f"the private half of {kid} is not a private key of this service") from None

    async def destroy(self, private_part: bytes) -> None:
        """See ``KeyProvider``: it is gone with the seal that held it."""

    async def close(self) -> None:
        """See ``KeyProvider``."""
