"""Where keys live, who makes them and how they sign, as the rest of the service sees it.

Adapters: ``identity.keys.file_store`` and ``identity.store.redis.keyring`` keep the keyring; each module of
``identity.keys.providers`` is a place where private keys can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from identity.audit.event import Event
from identity.keys.keyring import Keyring

PROBE = b"grpc-identity probe"
"""Signed to see whether a key can be used. Never the signing input of a token: those have a dot between their parts (RFC
7515, section 5.1)."""


class NoActiveKeyError(Exception):
    """No key signs at the moment; nothing can be issued until one does."""


class SignerUnavailableError(Exception):
    """The key that signs cannot be reached at the moment; the same call later may succeed. Never names a secret."""

    def __init__(self, message: str = "", *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class SignerBusyError(SignerUnavailableError):
    """It is there, and has as much to do as may wait for it."""


class ProviderError(Exception):
    """A provider cannot make, find or destroy a key; the message says why and what to do, and holds no secret."""


class KeyStoreError(Exception):
    """The keyring cannot be read or written; the message says why and what to do."""


class KeyStoreAwayError(KeyStoreError):
    """The store of the keyring does not answer. Nothing is wrong with the keyring, and what is known stays in use."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was made. ``private_part`` is what its provider finds the private half by: the half itself, or
    where it is. It is kept sealed, whatever it is, so that nobody without the key-encryption key can put another."""

    public_jwk: Mapping[str, Any]
    """With ``kid`` (RFC 7638), ``alg`` and ``use``, as ``grpc_identity.jwk.to_jwk`` makes it."""
    private_part: bytes = field(repr=False)


class Signer(Protocol):
    """A private key that can be used and not read."""

    @property
    def kid(self) -> str:
        """The key's id: its RFC 7638 thumbprint."""
        ...

    @property
    def algorithm(self) -> str:
        """``ES256``, ``RS256`` or ``EdDSA``."""
        ...

    def check(self) -> None:
        """Asked before anything is recorded that a signature is needed for; never waits.

        Raises ``SignerUnavailableError`` when none could be had now.
        """
        ...

    async def sign(self, signing_input: bytes) -> bytes:
        """The JOSE signature (RFC 7518, section 3; for ES256 the 64 bytes of R and S).

        Raises ``SignerUnavailableError``; another key never takes its place.
        """
        ...

    async def probe(self) -> bytes:
        """The signature of ``PROBE``, to see whether the key can be used.

        Raises ``SignerUnavailableError``, which says nothing of other keys of the same place: none is refused for it.
        """
        ...


class KeyProvider(Protocol):
    """Makes private keys and signs with them, wherever they are."""

    async def generate(self, algorithm: str) -> NewKey:
        """A new key for ``ES256``, ``RS256`` or ``EdDSA``. Raises ``ProviderError``."""
        ...

    async def signer(self, kid: str, algorithm: str, private_part: bytes) -> Signer:
        """The key that ``generate`` made, ready to sign. Raises ``ProviderError`` where it cannot be found."""
        ...

    async def destroy(self, private_part: bytes) -> None:
        """Ends a key that was removed; success where it is gone already. Raises ``ProviderError``."""
        ...

    async def close(self) -> None:
        """Lets go of connections and sessions."""
        ...


class KeyStore(Protocol):
    """Keeps one keyring document.

    ``may_lose_writes``: whether what was written may be gone later, as after a failover of a replicated store. Services
    then put back what they know; where that cannot be, a keyring that went back is a fault.
    """

    @property
    def may_lose_writes(self) -> bool:
        """See above."""
        ...

    async def revision(self) -> int:
        """The revision of what is stored, 0 where there is nothing; cheap. Raises ``KeyStoreError``."""
        ...

    async def load(self) -> Keyring | None:
        """The keyring, or ``None`` where none was ever written. Raises ``KeyStoreError``."""
        ...

    async def compare_and_set(self, keyring: Keyring, events: Sequence[Event] = ()) -> bool:
        """Writes ``keyring`` if the stored one is its predecessor (revision - 1, or none for revision 1), and has the
        events recorded that say what was done.

        ``False``: somebody else was first; load again. Raises ``KeyStoreError``.
        """
        ...


class Uptake(Protocol):
    """Knows which keys verifiers hold and servers can use."""

    async def lacking(self, kid: str) -> Sequence[str]:
        """The live verifiers of all servers that do not hold this key, and the servers that do not answer or are not ready for it.

        Raises ``IdentityError`` when that cannot be found out.
        """
        ...
