"""Verified tokens, remembered by their SHA-256 and not by their text, in bounded number."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from grpc_identity.jwk import KeySet
from grpc_identity.principal import Principal
from grpc_identity.revocation_guard import RevocationGuard

__all__ = ["HeldKeys", "Remembered", "RememberedTokens", "digest_of"]


def _sha256() -> Callable[[bytes], Any]:
    """CPython's own where it has one: ``hashlib`` takes OpenSSL's, which is the faster in a loop and costs a server twice
    as much, because between two calls its many pages of code have left the caches (docs/performance.md)."""
    for name in ("_sha2", "_sha256"):
        with contextlib.suppress(ImportError):
            return import_module(name).sha256  # type: ignore[no-any-return]
    return hashlib.sha256


_new_sha256 = _sha256()


def digest_of(token: str) -> bytes:
    """What a token is remembered by: its SHA-256."""
    digest: bytes = _new_sha256(token.encode("utf-8", "replace")).digest()
    return digest


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
