"""Where keys live and how they sign, as the rest of the service sees it.

Adapters: ``identity.keys.file_store`` and ``identity.keys.signers.local``; hardware and cloud key stores come
behind the same two protocols.
"""

from __future__ import annotations

from typing import Protocol

from identity.keys.keyring import Keyring


class NoActiveKeyError(Exception):
    """No key signs at the moment; nothing can be issued until one does."""


class KeyStoreError(Exception):
    """The keyring cannot be read or written; the message says why and what to do."""


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

    async def sign(self, signing_input: bytes) -> bytes:
        """The JOSE signature (RFC 7518, section 3; for ES256 the 64 bytes of R and S)."""
        ...


class KeyStore(Protocol):
    """Keeps one keyring document."""

    def load(self) -> Keyring | None:
        """The keyring, or ``None`` where none was ever written. Raises ``KeyStoreError``."""
        ...

    def compare_and_set(self, keyring: Keyring) -> bool:
        """Writes ``keyring`` if the stored one is its predecessor (revision - 1, or none for revision 1).

        ``False``: somebody else was first; load again. Raises ``KeyStoreError``.
        """
        ...
