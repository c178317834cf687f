"""Verified tokens, remembered by a digest and not by their text, in bounded number."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

from grpc_identity.jwk import KeySet
from grpc_identity.principal import Principal
from grpc_identity.revocation_guard import RevocationGuard

__all__ = ["HeldKeys", "Remembered", "RememberedTokens", "digest_of"]


def digest_of(token: str) -> bytes:
    """What a token is remembered by: its BLAKE2b, of 32 bytes (RFC 7693).

    Not SHA-256, which `hashlib` takes from OpenSSL: faster in a loop, but in a server half as dear again, because between
    two calls its many pages of code have left the caches (docs/performance.md).
    """
    return blake2b(token.encode("utf-8", "replace"), digest_size=32).digest()


class HeldKeys(Protocol):
    """Keys of one issuer in memory."""

    def current(self) -> KeySet | None:
        """The keys to use, the same object while they are the same; ``None`` if there are none fit to use."""


@dataclass(slots=True)
class Remembered:
    """A token that was verified, and what that depended on."""

    principal: Principal = field(repr=False)
    good_until: float
    keys: HeldKeys
    key_set: KeySet
    kid: str
    is_for_us: bool
    revocations: RevocationGuard | None
    revocations_seen: object


class RememberedTokens:
    """What was verified lately, at most ``limit`` entries.

    Two halves: when the young one is full it becomes the old one, and what was old is forgotten. So nothing is ever
    searched, and what is in use moves back into the young half.
    """

    __slots__ = ("_half", "_old", "young")

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self.young: dict[bytes, Remembered] = {}
        """To look into first, without a call."""
        self._old: dict[bytes, Remembered] = {}

    def get(self, digest: bytes) -> Remembered | None:
        """What is remembered of the token with this digest."""
        found = self.young.get(digest)
        if found is None:
            found = self._old.get(digest)
            if found is not None:
                self.put(digest, found)
        return found

    def put(self, digest: bytes, remembered: Remembered) -> None:
        """Remembers a token."""
        if self._half:
            if len(self.young) >= self._half:
                # Threads may do this at once; the worst of it is to forget a little more.
                self._old, self.young = self.young, {}
            self.young[digest] = remembered
