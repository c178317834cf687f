"""Private material at rest: AES-256-GCM under a key-encryption key, bound to what it is.

The associated data names the thing (``signing-key/<kid>``, ``refresh-token/1``): a sealed value moved to
another place in the document does not open.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEK_BYTES = 32
_NONCE_BYTES = 12
_FINGERPRINT_OF = b"grpc-identity fingerprint of a key-encryption key"
_FINGERPRINT_CHARS = 16
_HOW_TO_MAKE = "head -c 32 /dev/urandom | base64"


class SealError(Exception):
    """Something sealed does not open, or the key-encryption key is unusable; says what to do."""


@dataclass(frozen=True, slots=True)
class KeyEncryptionKey:
    """32 bytes that open everything; never shown. While it replaces another, that one still opens, and seals no more."""

    raw: bytes = field(repr=False)
    previous: KeyEncryptionKey | None = None

    def __post_init__(self) -> None:
        if len(self.raw) != KEK_BYTES:
            raise SealError(
                f"the key-encryption key has {len(self.raw)} bytes instead of {KEK_BYTES}; "
                f"make one with: {_HOW_TO_MAKE}"
            )

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """From its text form, as settings and files have it."""
        try:
            return cls(base64.b64decode(text.strip(), validate=True))
        except ValueError:
            raise SealError(f"the key-encryption key is not base64; make one with: {_HOW_TO_MAKE}") from None

    @property
    def fingerprint(self) -> str:
        """What people tell it from another by; it says nothing about the key."""
        return hmac.new(self.raw, _FINGERPRINT_OF, hashlib.sha256).hexdigest()[:_FINGERPRINT_CHARS]

    @property
    def replaced(self) -> KeyEncryptionKey | None:
        """The one that this one replaces: one that is the same replaces nothing."""
        if self.previous is None or hmac.compare_digest(self.previous.raw, self.raw):
            return None
        return self.previous

    def seal(self, value: bytes, name: str) -> bytes:
        """Nonce and ciphertext."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self.raw).encrypt(nonce, value, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes:
        """What was sealed under this name. Raises ``SealError``."""
        for kek in (self, self.previous):
            if kek is not None and (value := _opened(kek.raw, sealed, name)) is not None:
                return value
        raise SealError(
            f"{name} does not open: the key-encryption key is another one than it was sealed with, or the "
            "keyring was altered; restore both from the same backup"
        )

    def resealed(self, sealed: bytes, name: str) -> bytes:
        """Sealed under this key; the same object where it is. Raises ``SealError``."""
        if _opened(self.raw, sealed, name) is not None:
            return sealed
        return self.seal(self.open(sealed, name), name)


def _opened(raw: bytes, sealed: bytes, name: str) -> bytes | None:
    try:
        return AESGCM(raw).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
    except (InvalidTag, ValueError):
        return None


def load_kek_file(path: Path) -> KeyEncryptionKey:
    """Reads a key-encryption key. Raises ``SealError`` for a file that others may read."""
    try:
        mode = path.stat().st_mode
        text = path.read_bytes().decode("ascii")
    except UnicodeDecodeError:
        raise SealError(
            f"the key-encryption key {path} is not base64; make it with: {_HOW_TO_MAKE}"
        ) from None
    except OSError as error:
        raise SealError(
            f"cannot read the key-encryption key {path}: {error.strerror}; check keys.kek_file"
        ) from None
    if mode & 0o077:
        raise SealError(f"others may read the key-encryption key {path}; mend it with: chmod 600 {path}")
    return KeyEncryptionKey.from_base64(text)


def create_kek_file(path: Path) -> None:
    """Makes a key-encryption key with mode 0600, unless there is one; for development."""
    if path.exists():
        return
    # Written aside and linked: whoever starts at the same time, or after a crash, finds a whole key or none.
    new = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(base64.b64encode(secrets.token_bytes(KEK_BYTES)).decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(new)
    finally:
        new.unlink()
