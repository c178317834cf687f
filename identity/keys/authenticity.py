"""Is what a keyring says ours? Asked whenever a keyring was read, before any of it is used or published.

Who can write where the keyring is kept, but lacks the key-encryption key, must not get a key of their own published,
because verifiers would accept what it signs. So for each key that is published:

- ``kid`` is the thumbprint of the public half (RFC 7638), and the public half is sound and has no private member;
- the seal opens under that ``kid``, which only a holder of the key-encryption key can have made;
- what is published is made anew from the checked key: a member that somebody has added goes no further.

States and times are not covered: an altered schedule can end a key early or late, never add one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from grpc_identity.errors import KeyRefusedError, KeyUnsuitableError
from grpc_identity.jwk import parse_jwk, to_jwk
from identity.keys.keyring import KeyRecord, Keyring
from identity.keys.sealing import KeyEncryptionKey, SealError


def authentic(keyring: Keyring, kek: KeyEncryptionKey) -> Keyring:
    """The keyring, with its public halves made anew. Raises ``SealError``."""
    if len({key.kid for key in keyring.keys}) != len(keyring.keys):
        raise SealError("the keyring was altered, restore it from a backup: it names a key twice")
    for secret in keyring.secrets:
        kek.open(secret.sealed, secret.name)
    for key in keyring.published:
        kek.open(key.sealed_private_key, seal_name(key.kid))
    keys = (
        replace(key, public_jwk=_public_half(key)) if key.state.is_published else key for key in keyring.keys
    )
    return replace(keyring, keys=tuple(keys))


def without_private_half(key: KeyRecord, kek: KeyEncryptionKey) -> KeyRecord:
    """The record of a key that will not sign again. The empty seal still proves whose it is."""
    return replace(key, sealed_private_key=kek.seal(b"", seal_name(key.kid)))


def seal_name(kid: str) -> str:
    """What the seal of a signing key is bound to."""
    return f"signing-key/{kid}"


def _public_half(key: KeyRecord) -> Mapping[str, str]:
    try:
        checked = parse_jwk(key.public_jwk)
    except (KeyRefusedError, KeyUnsuitableError) as error:
        raise SealError(f"the keyring was altered, restore it from a backup: {error}") from None
    if not (key.kid == checked.kid == checked.thumbprint and key.algorithm == checked.algorithm):
        raise SealError(f"the keyring was altered, restore it from a backup: {key.kid!r} names another key")
    return to_jwk(checked.public_key)
