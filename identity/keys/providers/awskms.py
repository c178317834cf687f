"""Keys in AWS KMS: made there, and used there.

``awskms:eu-central-1``: the region. The private part of a key is its id. For ES256 and RS256 KMS is given the SHA-256 of
a token; Ed25519 has no such mode, KMS sees the token itself. ECDSA signatures come in DER and are unpacked. A key that ends
signs no more at once, and is deleted after the shortest time that KMS allows, seven days.
"""

from __future__ import annotations

import hashlib
import time

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from identity.keys.ports import ProviderError
from identity.keys.providers.aws import OPTIONS, WRAPPING_OPTIONS, AwsClient, AwsError
from identity.keys.providers.purpose import PURPOSE
from identity.keys.providers.remote import NewPair, RemoteKeys, RemoteLimits, raw_es256
from identity.keys.providers.uri import ProviderUri

DAYS_UNTIL_DELETED = 7
_SPECS = {"ES256": "ECC_NIST_P256", "RS256": "RSA_3072", "EdDSA": "ECC_NIST_EDWARDS25519"}
_SIGN = {"ES256": "ECDSA_SHA_256", "RS256": "RSASSA_PKCS1_V1_5_SHA_256", "EdDSA": "ED25519_SHA_512"}
_CONTEXT = {"purpose": PURPOSE}
_IS_GONE = frozenset({"NotFoundException", "KMSInvalidStateException"})


class AwsKmsBackend:
    """KMS in one region."""

    def __init__(self, uri: ProviderUri, limits: RemoteLimits) -> None:
        self._prefix = uri.prefix
        self._client = AwsClient("kms", uri, limits)

    @property
    def place(self) -> str:
        """See ``Backend``."""
        return self._client.place

    async def generate(self, algorithm: str) -> NewPair:
        """See ``Backend``."""
        made = await self._client.call(
            "create_key",
            KeySpec=_SPECS[algorithm],
            KeyUsage="SIGN_VERIFY",
            Description=f"{self._prefix}: signs access tokens with {algorithm}",
            Tags=[{"TagKey": "application", "TagValue": self._prefix}],
        )
        key_id: str = made["KeyMetadata"]["KeyId"]
        answer = await self._client.call("get_public_key", KeyId=key_id)
        key = load_der_public_key(answer["PublicKey"])
        if not isinstance(key, EllipticCurvePublicKey | RSAPublicKey | Ed25519PublicKey):
            raise ProviderError(f"{self.place} made a key of another type than it was asked for")
        return NewPair(key, key_id.encode())

    async def sign(self, algorithm: str, private_part: bytes, signing_input: bytes) -> bytes:
        """See ``Backend``."""
        is_hashed = algorithm != "EdDSA"
        answer = await self._client.call(
            "sign",
            KeyId=private_part.decode(),
            Message=hashlib.sha256(signing_input).digest() if is_hashed else signing_input,
            MessageType="DIGEST" if is_hashed else "RAW",
            SigningAlgorithm=_SIGN[algorithm],
        )
        signature: bytes = answer["Signature"]
        return raw_es256(signature) if algorithm == "ES256" else signature

    async def destroy(self, private_part: bytes) -> None:
        """See ``Backend``."""
        try:
            await self._client.call(
                "schedule_key_deletion", KeyId=private_part.decode(), PendingWindowInDays=DAYS_UNTIL_DELETED
            )
        except AwsError as error:
            if error.code not in _IS_GONE:
                raise

    async def close(self) -> None:
        """See ``Backend``."""
        self._client.close()


class AwsWrappingKey:
    """A symmetric key of KMS, by id, ARN or alias."""

    def __init__(self, uri: ProviderUri, limits: RemoteLimits) -> None:
        self._key = uri.option("key")
        self._client = AwsClient("kms", uri, limits)

    @property
    def place(self) -> str:
        """See ``WrappingKey``."""
        return self._client.place

    async def wrap(self, raw: bytes) -> bytes:
        """See ``WrappingKey``."""
        answer = await self._client.call(
            "encrypt", KeyId=self._key, Plaintext=raw, EncryptionContext=_CONTEXT
        )
        wrapped: bytes = answer["CiphertextBlob"]
        return wrapped

    async def unwrap(self, wrapped: bytes) -> bytes:
        """See ``WrappingKey``."""
        answer = await self._client.call(
            "decrypt", KeyId=self._key, CiphertextBlob=wrapped, EncryptionContext=_CONTEXT
        )
        raw: bytes = answer["Plaintext"]
        return raw

    async def close(self) -> None:
        """See ``WrappingKey``."""
        self._client.close()


def wrapping_key(uri: str, limits: RemoteLimits) -> AwsWrappingKey:
    """The key that wraps the key-encryption key. Raises ``ProviderError``."""
    return AwsWrappingKey(ProviderUri.parse(uri, WRAPPING_OPTIONS), limits)


def provider(uri: str, limits: RemoteLimits) -> RemoteKeys:
    """The provider of a URI. Raises ``ProviderError``."""
    return RemoteKeys(AwsKmsBackend(ProviderUri.parse(uri, OPTIONS), limits), limits, time.monotonic)
