"""The life of the secret that authenticates refresh tokens. Pure: the moment is an argument.

- Two generations are accepted. A token that was made with the one before stays good, and is replaced by one made with
  the newer when it is next refreshed.
- A new secret is used once every process has had ``SECRET_SPREAD`` to learn of it; until then nobody makes a token
  that another would take for a forgery.
- It may be replaced once no session can be left whose token was made with its predecessor: after the longest absolute
  lifetime. Sooner only if the operator says so, which ends the sessions that have not refreshed since. By itself it is
  replaced when it is as old as the schedule has it, which is more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from identity.keys.keyring import Keyring, SealedSecret, SecretPurpose
from identity.tokens.lifetimes import MAX_SESSION_SECONDS

MAX_GENERATIONS = 2
SECRET_SPREAD = timedelta(seconds=60)
LONGEST_SESSION = timedelta(seconds=MAX_SESSION_SECONDS)
NUMBERS = 256


def accepted(keyring: Keyring, purpose: SecretPurpose) -> Sequence[SealedSecret]:
    """The secrets of a purpose that are accepted, oldest first."""
    return keyring.secrets_for(purpose)[-MAX_GENERATIONS:]


def in_use(secrets: Sequence[SealedSecret], now: datetime) -> SealedSecret:
    """The one that new tokens are made with."""
    spread = [secret for secret in secrets if now >= secret.created_at + SECRET_SPREAD]
    return spread[-1] if spread else secrets[0]


def next_number(secrets: Sequence[SealedSecret]) -> int:
    """The number of the next generation."""
    return (secrets[-1].number + 1) % NUMBERS


def replaceable_from(secrets: Sequence[SealedSecret]) -> datetime:
    """When a further secret ends no session: the oldest of those accepted is dropped for it."""
    if len(secrets) < MAX_GENERATIONS:
        return secrets[-1].created_at
    return secrets[-1].created_at + SECRET_SPREAD + LONGEST_SESSION


def rotation_due(keyring: Keyring, now: datetime, secret_for: timedelta) -> bool:
    """Whether the secret of refresh tokens is to get a successor."""
    kept = keyring.secrets_for(SecretPurpose.REFRESH_TOKEN)
    return bool(kept) and now >= kept[-1].created_at + secret_for


def rotated(keyring: Keyring, new: SealedSecret) -> Keyring:
    """The keyring with a further secret, and without those that are accepted no more."""
    kept = (*keyring.secrets_for(new.purpose), new)[-MAX_GENERATIONS:]
    others = tuple(secret for secret in keyring.secrets if secret.purpose is not new.purpose)
    return keyring.next(secrets=(*others, *kept))
