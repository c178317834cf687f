"""The other way to use a provider: it opens the key-encryption key once, at the start, and signing stays local.

``keys.kek_provider`` names the key there that wraps; ``keys.kek`` or ``keys.kek_file`` holds what it has wrapped, in base64.
A place that keeps secrets and wraps nothing has the key-encryption key itself, in base64. Each unwrapping module of
``identity.keys.providers`` has a function ``wrapping_key``. Blocks: this is done before anything is served.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from identity.keys.ports import ProviderError
from identity.keys.providers.by_uri import module_of
from identity.keys.providers.remote import RemoteLimits, called_once


class WrappingKey(Protocol):
    """Both methods may raise ``UnreachableError`` and ``ProviderError``."""

    @property
    def place(self) -> str:
        """What it is called in errors."""
        ...

    async def wrap(self, raw: bytes) -> bytes:
        """Encrypts."""
        ...

    async def unwrap(self, wrapped: bytes) -> bytes:
        """Decrypts; a place that only keeps secrets gives its own and is given nothing."""
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...


def unwrapped_kek(uri: str, text: str, limits: RemoteLimits) -> bytes:
    """The key-encryption key in the clear. Raises ``ProviderError``."""
    try:
        wrapped = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ProviderError(
            "the wrapped key-encryption key is not base64; make one with: identity kek new"
        ) from None
    return _done(uri, limits, lambda key: key.unwrap(wrapped))


def wrapped_kek(uri: str, raw: bytes, limits: RemoteLimits) -> str:
    """What ``unwrapped_kek`` opens. Raises ``ProviderError``."""
    return base64.b64encode(_done(uri, limits, lambda key: key.wrap(raw))).decode()


def _done(uri: str, limits: RemoteLimits, operation: Callable[[WrappingKey], Awaitable[bytes]]) -> bytes:
    module = module_of(uri)
    if not hasattr(module, "wrapping_key"):
        raise ProviderError(f"{uri.partition(':')[0]}: does not unwrap a key-encryption key")

    async def run() -> bytes:
        key: WrappingKey = module.wrapping_key(uri, limits)
        try:
            return await called_once(key.place, limits, lambda: operation(key))
        finally:
            await key.close()

    # A loop of its own: the caller may be in one, and waits.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, run()).result()
