"""``KeyProvider`` over a place that keeps secrets and does not sign: the key is fetched once, and signs in this process.

What lies there is the private key as encrypted PEM (PKCS #8, RFC 5958). Its passphrase, 32 random bytes, is in the
private part, which the keyring has under the key-encryption key: neither the place alone nor the keyring alone gives the
key. A signature costs what a local one costs; the place is needed when a process starts and when the key changes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from identity.keys.ports import NewKey, ProviderError
from identity.keys.providers.local import LocalSigner, generate_private_key, public_jwk
from identity.keys.providers.remote import RemoteLimits, called_once

_T = TypeVar("_T")


class SecretPlace(Protocol):
    """Keeps texts by name. Every method may raise ``UnreachableError`` and ``ProviderError``."""

    @property
    def place(self) -> str:
        """What it is called in errors, without credentials."""
        ...

    async def put(self, text: str) -> str:
        """Keeps it under a new name, which it returns."""
        ...

    async def get(self, name: str) -> str:
        """What is kept there."""
        ...

    async def delete(self, name: str) -> None:
        """Success where it is gone."""
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...


class SecretManagerKeys:
    """The provider."""

    def __init__(self, place: SecretPlace, limits: RemoteLimits) -> None:
        self._place = place
        self._limits = limits

    async def generate(self, algorithm: str) -> NewKey:
        """See ``KeyProvider``."""
        key = await asyncio.to_thread(generate_private_key, algorithm)
        passphrase = secrets.token_urlsafe(32)
        pem = key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode())
        )
        name = await self._called(lambda: self._place.put(pem.decode()))
        return NewKey(public_jwk(key), json.dumps({"secret": name, "passphrase": passphrase}).encode())

    async def signer(self, kid: str, algorithm: str, private_part: bytes) -> LocalSigner:
        """See ``KeyProvider``."""
        reference = json.loads(private_part)
        pem = await self._called(lambda: self._place.get(reference["secret"]))
        try:
            key = load_pem_private_key(pem.encode(), reference["passphrase"].encode())
        except (TypeError, ValueError):
            raise ProviderError(
                f"what {self._place.place} has for {kid} is not the key that was put there"
            ) from None
        if (
            not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey)
            or public_jwk(key)["kid"] != kid
        ):
            raise ProviderError(f"what {self._place.place} has for {kid} is another key")
        return LocalSigner(kid, algorithm, key)

    async def destroy(self, private_part: bytes) -> None:
        """See ``KeyProvider``."""
        await self._called(lambda: self._place.delete(json.loads(private_part)["secret"]))

    async def close(self) -> None:
        """See ``KeyProvider``."""
        await self._place.close()

    async def _called(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        return await called_once(self._place.place, self._limits, operation)


class KeptKek:
    """A key-encryption key that lies in such a place as base64: a ``WrappingKey`` that wraps nothing."""

    def __init__(self, place: SecretPlace, name: str) -> None:
        self._place = place
        self._name = name

    @property
    def place(self) -> str:
        """See ``WrappingKey``."""
        return self._place.place

    async def wrap(self, raw: bytes) -> bytes:
        """See ``WrappingKey``."""
        del raw
        raise ProviderError(
            f"{self.place} keeps secrets and wraps none; put the key there yourself, in base64"
        )

    async def unwrap(self, wrapped: bytes) -> bytes:
        """See ``WrappingKey``."""
        if wrapped:
            raise ProviderError(
                f"{self.place} has the key-encryption key; keys.kek and keys.kek_file stay empty"
            )
        try:
            return base64.b64decode((await self._place.get(self._name)).strip(), validate=True)
        except ValueError:
            raise ProviderError(f"what {self.place} has is not base64") from None

    async def close(self) -> None:
        """See ``WrappingKey``."""
        await self._place.close()
