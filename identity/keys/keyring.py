"""The keyring as a value: signing keys with their schedule, and the sealed secrets of the service.

Private material is here in sealed form only (``identity.keys.sealing``). Every change makes a new keyring with
the next revision, so that writers who race can be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

LOCAL = "local"
"""The provider whose private keys lie in the keyring itself."""


class KeyState(StrEnum):
    """Where a key is in its life; the same names as in the proto."""

    PENDING = "pending"
    ACTIVE = "active"
    RETIRED = "retired"
    REMOVED = "removed"
    REVOKED = "revoked"

    @property
    def is_published(self) -> bool:
        """Whether verifiers must know such a key."""
        return self not in {KeyState.REMOVED, KeyState.REVOKED}


class SecretPurpose(StrEnum):
    """What a sealed secret is for."""

    REFRESH_TOKEN = "refresh-token"  # noqa: S105 - a purpose, not a secret
    CLIENT_SECRET_PEPPER = "client-secret-pepper"  # noqa: S105


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One signing key. ``activates_at`` to ``retires_at`` it signs; it is published until ``removes_at``.

    It begins to sign between ``activates_at`` and ``activates_by``: as soon as every live verifier holds it, or at the
    latter moment whether they do or not. ``request`` is a digest of what asked for it out of turn.

    The seal is bound to ``kid``, and ``kid`` is the thumbprint of ``public_jwk``: who opens it knows that the public
    half is ours. It holds what ``provider`` finds the private half by. Where that is the half itself, it holds nothing from
    retirement on; after removal it is gone.
    """

    kid: str
    algorithm: str
    state: KeyState
    created_at: datetime
    activates_at: datetime
    activates_by: datetime
    retires_at: datetime
    removes_at: datetime
    public_jwk: Mapping[str, Any]
    sealed_private_key: bytes = field(repr=False)
    provider: str = LOCAL
    request: str = ""


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """32 random bytes, sealed. ``number`` (0 to 255) tells generations of one purpose apart."""

    purpose: SecretPurpose
    number: int
    created_at: datetime
    sealed: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """What the seal is bound to."""
        return f"{self.purpose}/{self.number}"


@dataclass(frozen=True, slots=True)
class Keyring:
    """Everything that is kept, newest key last."""

    revision: int = 0
    keys: tuple[KeyRecord, ...] = ()
    secrets: tuple[SealedSecret, ...] = ()

    @property
    def active(self) -> KeyRecord | None:
        """The key that signs; the newest if there should be several."""
        return next((key for key in reversed(self.keys) if key.state is KeyState.ACTIVE), None)

    @property
    def published(self) -> tuple[KeyRecord, ...]:
        """The keys that verifiers must know: pending, active and retired."""
        return tuple(key for key in self.keys if key.state.is_published)

    def get(self, kid: str) -> KeyRecord | None:
        """The key of this id."""
        return next((key for key in self.keys if key.kid == kid), None)

    def is_like(self, other: Keyring) -> bool:
        """Whether both hold the same, whatever their revisions."""
        return (self.keys, self.secrets) == (other.keys, other.secrets)

    def secrets_for(self, purpose: SecretPurpose) -> tuple[SealedSecret, ...]:
        """The accepted secrets of a purpose, the one in use last."""
        return tuple(secret for secret in self.secrets if secret.purpose is purpose)

    def next(
        self, *, keys: tuple[KeyRecord, ...] | None = None, secrets: tuple[SealedSecret, ...] | None = None
    ) -> Keyring:
        """The following revision, changed in these parts."""
        return replace(
            self,
            revision=self.revision + 1,
            keys=self.keys if keys is None else keys,
            secrets=self.secrets if secrets is None else secrets,
        )


EMPTY = Keyring()
STATE_ORDER: Mapping[KeyState, int] = MappingProxyType({state: place for place, state in enumerate(KeyState)})
