"""Verified tokens, remembered by their SHA-256 and not by their text, in bounded number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from grpc_identity.jwk import KeySet
from grpc_identity.principal import Principal
from grpc_identity.revocation_guard import RevocationGuard

__all__ = ["HeldKeys", "Remembered", "RememberedTokens"]


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

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._young: dict[bytes, Remembered] = {}
        self._old: dict[bytes, Remembered] = {}

    def get(self, digest: bytes) -> Remembered | None:
        """What is remembered of the token with this digest."""
        found = self._young.get(digest)
        if found is None:
            found = self._old.get(digest)
            if found is not None:
                self.put(digest, found)
        return found

    def put(self, digest: bytes, remembered: Remembered) -> None:
        """Remembers a token."""
        if self._half:
            if len(self._young) >= self._half:
                # Threads may do this at once; the worst of it is to forget a little more.
                self._old, self._young = self._young, {}
            self._young[digest] = remembered
