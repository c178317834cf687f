"""Client secrets: generated here, 256 bits, kept as a keyed hash.

A secret that a person chose could be guessed and would need a slow hash on every call. A generated one cannot:
HMAC-SHA-256 under the service's own key is enough, and costs microseconds. So there is no way to set a
secret, and text that is not of the generated form is refused without a look at any client.
"""

from __future__ import annotations

import hmac
import secrets
import zlib
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from re import compile as compile_pattern
from typing import Self

PREFIX = "gics_"
_FORM = compile_pattern(rf"{PREFIX}[A-Za-z0-9_-]{{43}}[0-9a-f]{{8}}")


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A secret in the clear; shown to its owner once and never stored."""

    text: str = field(repr=False)

    @classmethod
    def generate(cls) -> Self:
        """256 random bits, a prefix and a checksum for secret scanners."""
        body = urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
        return cls(PREFIX + body + _checksum(body))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The secret, or ``None`` for text that was not generated here."""
        if not _FORM.fullmatch(text) or _checksum(text[len(PREFIX) : -8]) != text[-8:]:
            return None
        return cls(text)


@dataclass(frozen=True, slots=True)
class SecretHasher:
    """Hashes secrets under the service's own key."""

    pepper: bytes = field(repr=False)

    def digest(self, secret: ClientSecret) -> bytes:
        """32 bytes."""
        return hmac.digest(self.pepper, secret.text.encode(), "sha256")


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
