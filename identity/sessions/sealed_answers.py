"""What the retry of an IssueTokens call needs, sealed for the store: AES-256-GCM, bound to the idempotency key.

The keys follow from the secrets of refresh tokens and change with them: a secret that leaked opens nothing that is sealed
after its successor came into use. As with refresh tokens, what was sealed under the one before still opens; under one that
is accepted no more it does not.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
# No refresh token's MAC is over this: those begin with the version of their format.
_LABEL = b"sealed answers"


class AnswerSealing:
    """One byte says which secret, then come nonce and ciphertext."""

    def __init__(self, secrets_by_id: Mapping[int, bytes], active_id: int) -> None:
        self.use(secrets_by_id, active_id)

    def use(self, secrets_by_id: Mapping[int, bytes], active_id: int) -> None:
        """Changes to other secrets."""
        self._ciphers = {
            number: AESGCM(hmac.digest(secret, _LABEL, sha256)) for number, secret in secrets_by_id.items()
        }
        self._active_id = active_id

    def seal(self, value: bytes, name: bytes) -> bytes:
        """Sealed under the secret in use."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return bytes([self._active_id]) + nonce + self._ciphers[self._active_id].encrypt(nonce, value, name)

    def open(self, sealed: bytes, name: bytes) -> bytes | None:
        """What was sealed under this name; ``None`` where it was not, or its secret is accepted no more."""
        cipher = self._ciphers.get(sealed[0]) if sealed else None
        if cipher is None:
            return None
        try:
            return cipher.decrypt(sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :], name)
        except (InvalidTag, ValueError):
            return None
