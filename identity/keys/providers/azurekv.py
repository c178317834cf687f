"""Keys in Azure Key Vault: made there, and used there.

``azurekv:https://acme.vault.azure.net``; with ``protection=hsm`` keys are made in hardware, as a premium vault or a managed HSM
has it. Each signing key is a key of its own, and its private part names it with the version that was made: whoever rotates it there
changes nothing here. Key Vault is given the SHA-256 of a token, and answers with the JOSE signature. It has no Ed25519. A key that ends
signs no more at once; the vault keeps it deleted, and can recover it, for as long as it is set to (7 to 90 days).
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

from azure.keyvault.keys import KeyCurveName, KeyOperation, KeyType, KeyVaultKey
from azure.keyvault.keys.aio import KeyClient
from azure.keyvault.keys.crypto import KeyWrapAlgorithm, SignatureAlgorithm
from azure.keyvault.keys.crypto.aio import CryptographyClient
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from grpc_identity.jwk import PublicKey
from identity.keys.ports import ProviderError
from identity.keys.providers import jwe
from identity.keys.providers.azure import COMMON_OPTIONS, OPTIONS, AzureVault
from identity.keys.providers.purpose import PURPOSE
from identity.keys.providers.remote import NewPair, RemoteKeys, RemoteLimits
from identity.keys.providers.uri import ProviderUri

RSA_BITS = 3072
SIGNING_OPTIONS = (*OPTIONS, "protection")
WRAPPING_OPTIONS = (*COMMON_OPTIONS, "key")
_SIGN = {"ES256": SignatureAlgorithm.es256, "RS256": SignatureAlgorithm.rs256}
_WRAP = KeyWrapAlgorithm.rsa_oaep_256


class AzureKeyVaultBackend:
    """The keys of one vault."""

    def __init__(self, uri: ProviderUri, limits: RemoteLimits) -> None:
        protection = uri.options.get("protection", "software")
        if protection not in {"software", "hsm"}:
            raise ProviderError("azurekv: protection is software or hsm")
        self._is_hsm = protection == "hsm"
        self._uri = uri
        self._vault = AzureVault(KeyClient, uri, limits)
        self._signing: dict[str, CryptographyClient] = {}

    @property
    def place(self) -> str:
        """See ``Backend``."""
        return self._vault.place

    async def generate(self, algorithm: str) -> NewPair:
        """See ``Backend``."""
        if algorithm not in _SIGN:
            raise ProviderError(
                f"{self.place} makes no keys for {algorithm}; keys.algorithm can be {' or '.join(_SIGN)} there"
            )
        made = await self._vault.call("make a key", lambda keys: self._made(keys, algorithm))
        reference = f"{made.name}/{made.properties.version}"
        try:
            key = self._public_key(made)
        except ProviderError:
            await self.destroy(reference.encode())
            raise
        return NewPair(key, reference.encode())

    async def sign(self, algorithm: str, private_part: bytes, signing_input: bytes) -> bytes:
        """See ``Backend``."""
        digest = hashlib.sha256(signing_input).digest()
        reference = private_part.decode()
        answer = await self._vault.call(
            "sign", lambda keys: self._signer(keys, reference).sign(_SIGN[algorithm], digest)
        )
        return answer.signature

    async def destroy(self, private_part: bytes) -> None:
        """See ``Backend``."""
        reference = private_part.decode()
        await self._vault.delete(f"/keys/{reference.partition('/')[0]}")
        self._signing.pop(reference, None)

    async def close(self) -> None:
        """See ``Backend``."""
        await self._vault.close()

    async def _made(self, keys: KeyClient, algorithm: str) -> KeyVaultKey:
        name = self._uri.new_name()
        how: dict[str, Any] = {
            "hardware_protected": self._is_hsm,
            "key_operations": [KeyOperation.sign],
            "tags": {"application": self._uri.prefix},
        }
        if algorithm == "ES256":
            return await keys.create_ec_key(name, curve=KeyCurveName.p_256, **how)
        return await keys.create_rsa_key(name, size=RSA_BITS, **how)

    def _signer(self, keys: KeyClient, reference: str) -> CryptographyClient:
        # Kept, because each asks for the public half before its first signature.
        if reference not in self._signing:
            name, _, version = reference.partition("/")
            self._signing[reference] = keys.get_cryptography_client(name, key_version=version)
        return self._signing[reference]

    def _public_key(self, made: KeyVaultKey) -> PublicKey:
        if made.properties.exportable:
            raise ProviderError(f"{self.place} made a key that can be taken out")
        key: Any = made.key
        try:
            match key.kty:
                case KeyType.ec | KeyType.ec_hsm if key.crv == KeyCurveName.p_256:
                    point = (int.from_bytes(key.x), int.from_bytes(key.y))
                    return EllipticCurvePublicNumbers(*point, SECP256R1()).public_key()
                case KeyType.rsa | KeyType.rsa_hsm:
                    return RSAPublicNumbers(int.from_bytes(key.e), int.from_bytes(key.n)).public_key()
        except (TypeError, ValueError):
            pass
        raise ProviderError(f"{self.place} made a key of another type than it was asked for")


class AzureWrappingKey:
    """An RSA key of the vault, by its name. What it wraps is a content key of a JWE, so that the purpose is bound."""

    def __init__(self, uri: ProviderUri, limits: RemoteLimits) -> None:
        self._key = uri.option("key")
        self._vault = AzureVault(KeyClient, uri, limits)

    @property
    def place(self) -> str:
        """See ``WrappingKey``."""
        return self._vault.place

    async def wrap(self, raw: bytes) -> bytes:
        """See ``WrappingKey``. By the newest version of the key, which is named in what is wrapped."""
        content_key = os.urandom(jwe.CONTENT_KEY_BYTES)
        answer = await self._vault.call(
            "wrap", lambda keys: keys.get_cryptography_client(self._key).wrap_key(_WRAP, content_key)
        )
        version = (answer.key_id or "").rpartition("/")[2]
        return jwe.encrypted(raw, PURPOSE, version, content_key, answer.encrypted_key)

    async def unwrap(self, wrapped: bytes) -> bytes:
        """See ``WrappingKey``."""
        try:
            parts = jwe.Jwe.parse(wrapped, PURPOSE)
            answer = await self._vault.call(
                "unwrap",
                lambda keys: keys.get_cryptography_client(self._key, key_version=parts.kid).unwrap_key(
                    _WRAP, parts.encrypted_key
                ),
            )
            return parts.decrypted(answer.key)
        except ValueError:
            raise ProviderError(
                f"{self.place}: what is wrapped was altered, or is no key-encryption key that was wrapped there"
            ) from None

    async def close(self) -> None:
        """See ``WrappingKey``."""
        await self._vault.close()


def wrapping_key(uri: str, limits: RemoteLimits) -> AzureWrappingKey:
    """The key that wraps the key-encryption key. Raises ``ProviderError``."""
    return AzureWrappingKey(ProviderUri.parse(uri, WRAPPING_OPTIONS), limits)


def provider(uri: str, limits: RemoteLimits) -> RemoteKeys:
    """The provider of a URI. Raises ``ProviderError``."""
    backend = AzureKeyVaultBackend(ProviderUri.parse(uri, SIGNING_OPTIONS), limits)
    return RemoteKeys(backend, limits, time.monotonic)
