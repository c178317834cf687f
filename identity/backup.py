"""Keeping a keyring elsewhere, and putting it back: without a running service, straight from and to its store.

A bundle is the keyring as its store has it. What is private in it is sealed under the key-encryption key, which is to be
kept apart from it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from identity.audit.event import Circumstances, EventType
from identity.audit.recorder import RefusalRecorder
from identity.config import Settings
from identity.errors import IdentityError
from identity.keys import document
from identity.keys.authenticity import authentic
from identity.keys.events import event_of
from identity.keys.joining import joined
from identity.keys.keyring import EMPTY, Keyring
from identity.keys.ports import KeyStore, KeyStoreError
from identity.parts import StoreParts, key_encryption_key, key_store

_log = logging.getLogger(__name__)


async def stored_keyring(settings: Settings) -> Keyring | None:
    """The keyring as it is stored. Raises ``KeyStoreError``."""
    async with _store_of(settings) as store:
        return await store.load()


async def export_keyring(settings: Settings) -> str:
    """The bundle, after a look whether the key-encryption key opens it. Raises ``KeyStoreError`` and ``SealError``."""
    keyring = await stored_keyring(settings)
    if keyring is None:
        raise KeyStoreError("there is no keyring yet; the service makes one when it first starts")
    authentic(keyring, key_encryption_key(settings))
    return document.to_text(keyring)


async def import_keyring(settings: Settings, bundle: str) -> Keyring:
    """Puts a bundle in the store. Raises ``KeyStoreError`` and ``SealError``.

    Where there is a keyring, both become one: of each key the record that has moved on further, of each secret the older.
    So nothing that was revoked comes back, and a keyring that services have begun anew meanwhile stays published.
    """
    kek = key_encryption_key(settings)
    try:
        wanted = authentic(document.from_text(bundle), kek)
    except document.DamagedKeyringError:
        raise KeyStoreError("the bundle is damaged, or was not written by: identity keys export") from None
    event = event_of(EventType.KEYRING_IMPORTED, Circumstances("", "import"), f"{len(wanted.keys)} keys")
    async with _store_of(settings) as store:
        stored = await store.load() or EMPTY
        together = replace(joined(wanted, authentic(stored, kek)), revision=stored.revision + 1)
        if not await store.compare_and_set(together, [event]):
            raise KeyStoreError("the keyring was changed at the same moment; import it again")
    return together


@asynccontextmanager
async def _store_of(settings: Settings) -> AsyncIterator[KeyStore]:
    parts = StoreParts(settings)
    # A keyring in a file cannot record what is done to it.
    recorder = RefusalRecorder(parts.outbox)
    try:
        yield key_store(settings, parts, recorder)
        try:
            await recorder.flush()
        except IdentityError as error:
            # What was done to a file is done, with the store or without.
            _log.warning("what was done to the keyring could not be recorded: %s", error.reason)
    finally:
        await parts.close()
