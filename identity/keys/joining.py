"""Two keyrings that went separate ways become one: where a store has lost what was written to it.

A key only ever moves on, from pending to removed or revoked, so that of two records of one key the one that has moved
on further is the later. What a service knows and the store does not is put back; what was removed and forgotten
stays so. Nothing that was revoked signs again.
"""

from __future__ import annotations

from dataclasses import replace

from identity.keys.keyring import STATE_ORDER, Keyring, SealedSecret, SecretPurpose


def joined(stored: Keyring, known: Keyring) -> Keyring:
    """What is stored, with what is known beyond it; ``stored`` itself where that is nothing."""
    keys = []
    for key in stored.keys:
        other = known.get(key.kid)
        is_further = other is not None and STATE_ORDER[other.state] > STATE_ORDER[key.state]
        keys.append(other if other is not None and is_further else key)
    keys += [key for key in known.published if stored.get(key.kid) is None]
    secrets = tuple(secret for purpose in SecretPurpose for secret in _secrets(stored, known, purpose))
    if set(secrets) == set(stored.secrets):
        secrets = stored.secrets
    together = replace(stored, keys=tuple(keys), secrets=secrets)
    return stored if together.is_like(stored) else together


def _secrets(stored: Keyring, known: Keyring, purpose: SecretPurpose) -> list[SealedSecret]:
    by_number = {secret.number: secret for secret in stored.secrets_for(purpose)}
    newest = max((secret.created_at for secret in by_number.values()), default=None)
    for secret in known.secrets_for(purpose):
        other = by_number.get(secret.number)
        # Of two of one number the older was in use first.
        if secret.created_at < other.created_at if other else newest is None or secret.created_at > newest:
            by_number[secret.number] = secret
    return sorted(by_number.values(), key=lambda secret: secret.created_at)
