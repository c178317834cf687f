"""The format of refresh tokens: opaque to everyone but this service (RFC 6749, section 1.5; RFC 9700, 4.14).

A token is ``gidr_``, 88 characters of base64url and 6 more for a CRC-32 of them:

=======  ======================================================================
bytes    meaning
=======  ======================================================================
1        version of this format
1        which server secret authenticates it
4        generation, big-endian
24       family id
20       family secret: random, the same in every generation, stored only as a hash
16       HMAC-SHA-256 over all of the above, truncated, under the server secret
=======  ======================================================================

Rules it keeps:

- A forged or damaged token is refused by its MAC alone, before the store is asked.
- The successor of a generation follows from the family, the generation and the two secrets. There is never
  more than one, and asking twice gives the same.
- A dump of the store has only the hash of the family secret and no server secret; the server secret alone
  lacks the family secret. Neither is enough to make a token.
- The prefix and the checksum let secret scanners find leaks without knowing any secret.
"""

from __future__ import annotations

import hmac
import secrets
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from re import compile as compile_pattern

from identity.tokens.family_id import FAMILY_ID_BYTES, FamilyId

PREFIX = "gidr_"
FAMILY_SECRET_BYTES = 20
FAMILY_SECRET_HASH_BYTES = 16
MAX_GENERATION = 2**32 - 1

_VERSION = 1
_MAC_BYTES = 16
_HEADER_BYTES = 1 + 1 + 4
_SECRET_AT = _HEADER_BYTES + FAMILY_ID_BYTES
_MAC_AT = _SECRET_AT + FAMILY_SECRET_BYTES
_BODY_CHARS = (_MAC_AT + _MAC_BYTES) * 4 // 3
_CHECKSUM_CHARS = 6
_TOKEN = compile_pattern(rf"{PREFIX}[A-Za-z0-9_-]{{{_BODY_CHARS + _CHECKSUM_CHARS}}}")


class RefreshTokenInvalidError(Exception):
    """Not a token of this service: malformed, damaged or forged. Says no more."""


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """An authentic refresh token. Neither its text nor its secret shows in its ``repr``."""

    family: FamilyId
    generation: int
    family_secret: bytes = field(repr=False)

    @property
    def family_secret_hash(self) -> bytes:
        """What the store keeps to recognise the family's tokens: 16 bytes of SHA-256."""
        return family_secret_hash(self.family_secret)

    def successor(self) -> RefreshToken:
        """The token of the next generation."""
        return RefreshToken(self.family, self.generation + 1, self.family_secret)


def new_family_secret() -> bytes:
    """160 random bits."""
    return secrets.token_bytes(FAMILY_SECRET_BYTES)


def family_secret_hash(family_secret: bytes) -> bytes:
    """16 bytes of SHA-256; the secret is random and long, so a slow hash would add nothing."""
    return sha256(family_secret).digest()[:FAMILY_SECRET_HASH_BYTES]


def looks_like_refresh_token(text: str) -> bool:
    """Whether ``text`` has the form of a refresh token; says nothing about its being authentic."""
    return text.startswith(PREFIX)


class RefreshTokenCodec:
    """Writes and reads refresh tokens.

    ``secrets_by_id`` are the server secrets that are accepted, by their number (0 to 255);
    ``active_id`` is the one new tokens are made with.
    """

    __slots__ = ("_active_id", "_secrets")

    def __init__(self, secrets_by_id: Mapping[int, bytes], active_id: int) -> None:
        self.use(secrets_by_id, active_id)

    def use(self, secrets_by_id: Mapping[int, bytes], active_id: int) -> None:
        """Changes to other secrets. What is no longer among them is accepted no more."""
        if active_id not in secrets_by_id:
            raise ValueError(f"no refresh-token secret with the id {active_id}")
        if any(len(secret) < 32 for secret in secrets_by_id.values()):
            raise ValueError("a refresh-token secret has fewer than 32 bytes")
        self._secrets = dict(secrets_by_id)
        self._active_id = active_id

    def encode(self, token: RefreshToken) -> str:
        """The text of a token: 99 characters."""
        signed = (
            bytes((_VERSION, self._active_id))
            + token.generation.to_bytes(4)
            + token.family.raw
            + token.family_secret
        )
        mac = hmac.digest(self._secrets[self._active_id], signed, "sha256")[:_MAC_BYTES]
        body = urlsafe_b64encode(signed + mac).decode()
        return PREFIX + body + _checksum(body)

    def decode(self, text: str) -> RefreshToken:
        """The token of a text.

        Raises ``RefreshTokenInvalidError`` for anything this service did not write.
        """
        if not _TOKEN.fullmatch(text):
            raise RefreshTokenInvalidError
        body = text[len(PREFIX) : -_CHECKSUM_CHARS]
        if _checksum(body) != text[-_CHECKSUM_CHARS:]:
            raise RefreshTokenInvalidError
        raw = urlsafe_b64decode(body)
        secret = self._secrets.get(raw[1])
        if raw[0] != _VERSION or secret is None:
            raise RefreshTokenInvalidError
        mac = hmac.digest(secret, raw[:_MAC_AT], "sha256")[:_MAC_BYTES]
        if not hmac.compare_digest(mac, raw[_MAC_AT:]):
            raise RefreshTokenInvalidError
        return RefreshToken(
            family=FamilyId(raw[_HEADER_BYTES:_SECRET_AT]),
            generation=int.from_bytes(raw[2:_HEADER_BYTES]),
            family_secret=raw[_SECRET_AT:_MAC_AT],
        )


def _checksum(body: str) -> str:
    return urlsafe_b64encode(zlib.crc32(body.encode()).to_bytes(4))[:_CHECKSUM_CHARS].decode()
