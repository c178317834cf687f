"""Keys in Google Cloud KMS: made there, and used there.

``gcpkms:projects/P/locations/L/keyRings/R``; with ``protection=hsm`` keys are made in hardware. Each signing key is a key of its own,
and its private part the name of the version that was made. KMS is given the SHA-256 of a token for ES256 and RS256, and the token itself
for EdDSA. ECDSA signatures come in DER and are unpacked. A key that ends signs no more at once; KMS destroys it when the time that the
key ring's keys have for that is over (30 days, unless set otherwise).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import time

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.cloud.kms_v1 import KeyManagementServiceAsyncClient
from google.cloud.kms_v1.services.key_management_service.transports import (
    KeyManagementServiceGrpcAsyncIOTransport,
)

from identity.keys.ports import ProviderError
from identity.keys.providers.gcp import OPTIONS, GcpClient, GcpNotNowError, GcpNotThereError
from identity.keys.providers.purpose import PURPOSE
from identity.keys.providers.remote import NewPair, RemoteKeys, RemoteLimits, raw_es256
from identity.keys.providers.uri import ProviderUri

LOOK_AGAIN_SECONDS = 0.1
_RING = re.compile(r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+")
_KEY = re.compile(_RING.pattern + r"/cryptoKeys/[^/]+")
_ALGORITHMS = {
    "ES256": "EC_SIGN_P256_SHA256",
    "RS256": "RSA_SIGN_PKCS1_3072_SHA256",
    "EdDSA": "EC_SIGN_ED25519",
}


class GcpKmsBackend:
    """One key ring."""

    def __init__(self, uri: ProviderUri, limits: RemoteLimits) -> None:
        if not _RING.fullmatch(uri.target):
            raise ProviderError("gcpkms: needs a key ring, as in gcpkms:projects/P/locations/L/keyRings/R")
        self._uri = uri
        self._protection = uri.options.get("protection", "software").upper()
        if self._protection not in {"SOFTWARE", "HSM"}:
            raise ProviderError("gcpkms: protection is software or hsm")
        self._client = _client(uri, limits)

    @property
    def place(self) -> str:
        """See ``Backend``."""
        return self._client.place

    async def generate(self, algorithm: str) -> NewPair:
        """See ``Backend``."""
        made = await self._client.call(
            "create_crypto_key",
            parent=self._uri.target,
            crypto_key_id=self._uri.new_name(),
            crypto_key={
                "purpose": "ASYMMETRIC_SIGN",
                "version_template": {
                    "algorithm": _ALGORITHMS[algorithm],
                    "protection_level": self._protection,
                },
            },
        )
        version = f"{made.name}/cryptoKeyVersions/1"
        while True:
            try:
                answer = await self._client.call("get_public_key", name=version)
                break
            except GcpNotNowError:
                # It is still being generated; whoever calls keeps the time.
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
        key = load_pem_public_key(answer.pem.encode())
        if not isinstance(key, EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey):
            raise ProviderError(f"{self.place} made a key of another type than it was asked for")
        return NewPair(key, version.encode())

    async def sign(self, algorithm: str, private_part: bytes, signing_input: bytes) -> bytes:
        """See ``Backend``."""
        given: dict[str, object] = (
            {"data": signing_input}
            if algorithm == "EdDSA"
            else {"digest": {"sha256": hashlib.sha256(signing_input).digest()}}
        )
        answer = await self._client.call("asymmetric_sign", name=private_part.decode(), **given)
        signature: bytes = answer.signature
        return raw_es256(signature) if algorithm == "ES256" else signature

    async def destroy(self, private_part: bytes) -> None:
        """See ``Backend``."""
        with contextlib.suppress(GcpNotThereError, GcpNotNowError):
            await self._client.call("destroy_crypto_key_version", name=private_part.decode())

    async def close(self) -> None:
        """See ``Backend``."""
        await self._client.close()


class GcpWrappingKey:
    """A symmetric key, by its whole name."""

    def __init__(self, uri: ProviderUri, limits: RemoteLimits) -> None:
        if not _KEY.fullmatch(uri.target):
            raise ProviderError(
                "gcpkms: needs a key, as in gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K"
            )
        self._key = uri.target
        self._client = _client(uri, limits)

    @property
    def place(self) -> str:
        """See ``WrappingKey``."""
        return self._client.place

    async def wrap(self, raw: bytes) -> bytes:
        """See ``WrappingKey``."""
        answer = await self._client.call(
            "encrypt", name=self._key, plaintext=raw, additional_authenticated_data=PURPOSE.encode()
        )
        wrapped: bytes = answer.ciphertext
        return wrapped

    async def unwrap(self, wrapped: bytes) -> bytes:
        """See ``WrappingKey``."""
        answer = await self._client.call(
            "decrypt", name=self._key, ciphertext=wrapped, additional_authenticated_data=PURPOSE.encode()
        )
        raw: bytes = answer.plaintext
        return raw

    async def close(self) -> None:
        """See ``WrappingKey``."""
        await self._client.close()


def wrapping_key(uri: str, limits: RemoteLimits) -> GcpWrappingKey:
    """The key that wraps the key-encryption key. Raises ``ProviderError``."""
    return GcpWrappingKey(ProviderUri.parse(uri, ("endpoint",)), limits)


def provider(uri: str, limits: RemoteLimits) -> RemoteKeys:
    """The provider of a URI. Raises ``ProviderError``."""
    backend = GcpKmsBackend(ProviderUri.parse(uri, (*OPTIONS, "protection")), limits)
    return RemoteKeys(backend, limits, time.monotonic)


def _client(uri: ProviderUri, limits: RemoteLimits) -> GcpClient:
    return GcpClient(
        f"Google Cloud KMS ({uri.target})",
        lambda transport: KeyManagementServiceAsyncClient(transport=transport),
        KeyManagementServiceGrpcAsyncIOTransport,
        uri,
        limits,
    )
