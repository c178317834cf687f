"""A secret under a public key: JWE in its compact form (RFC 7516), RSA-OAEP-256 with A256GCM (RFC 7518, sections 4.3, 5.3).

For places whose keys wrap a few bytes and cannot bind them to anything. The content key goes through the place; what it
encrypts is bound to ``typ`` and to the id of the key that wrapped it, which are in the protected header. Whoever has the public
key can make one: it keeps a secret, and proves nothing about who made it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from grpc_identity.encoding import decode_base64url, encode_base64url, parse_json_object

CONTENT_KEY_BYTES = 32
MAX_BYTES = 4096
# It may become part of a URL's path.
_KID = re.compile(r"[A-Za-z0-9-]{1,64}")
_IV_BYTES = 12
_TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class Jwe:
    """The parts that were read; ``kid`` names the key that unwraps ``encrypted_key``."""

    kid: str
    encrypted_key: bytes
    header: bytes
    iv: bytes
    ciphertext: bytes
    tag: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: bytes, typ: str) -> Jwe:
        """Raises ``ValueError`` for anything that ``encrypted`` does not make."""
        if len(text) > MAX_BYTES:
            raise ValueError("too long")
        header, *rest = text.split(b".")
        encrypted_key, iv, ciphertext, tag = (decode_base64url(part) for part in rest)
        members = parse_json_object(decode_base64url(header))
        kid = members.get("kid")
        if not isinstance(kid, str) or not _KID.fullmatch(kid) or members != _members(typ, kid):
            raise ValueError("for another purpose, or by another algorithm")
        if len(iv) != _IV_BYTES or len(tag) != _TAG_BYTES:
            raise ValueError("not as A256GCM makes it")
        return cls(kid, encrypted_key, header, iv, ciphertext, tag)

    def decrypted(self, content_key: bytes) -> bytes:
        """The secret. Raises ``ValueError``."""
        if len(content_key) != CONTENT_KEY_BYTES:
            raise ValueError("not a key of A256GCM")
        try:
            return AESGCM(content_key).decrypt(self.iv, self.ciphertext + self.tag, self.header)
        except InvalidTag:
            raise ValueError("altered, or of another key") from None


def encrypted(secret: bytes, typ: str, kid: str, content_key: bytes, encrypted_key: bytes) -> bytes:
    """The compact form; ``content_key`` is for this one secret only."""
    header = encode_base64url(json.dumps(_members(typ, kid), separators=(",", ":")).encode()).encode()
    iv = os.urandom(_IV_BYTES)
    sealed = AESGCM(content_key).encrypt(iv, secret, header)
    parts = (encrypted_key, iv, sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:])
    return b".".join((header, *(encode_base64url(part).encode() for part in parts)))


def _members(typ: str, kid: str) -> dict[str, str]:
    return {"alg": "RSA-OAEP-256", "enc": "A256GCM", "typ": typ, "kid": kid}
