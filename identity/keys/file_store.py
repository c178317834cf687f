"""``KeyStore`` as one JSON file: for one machine, or several processes that share a folder.

The file has mode 0600 and is replaced whole, so that a reader or a crash sees the old one or the new one. A lock
beside it makes compare-and-set hold among processes.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from identity.keys.keyring import KeyRecord, Keyring, KeyState, SealedSecret, SecretPurpose
from identity.keys.ports import KeyStoreError

FORMAT = 1


class FileKeyStore:
    """A keyring in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def load(self) -> Keyring | None:
        """See ``KeyStore``."""
        return await asyncio.to_thread(self._load)

    async def compare_and_set(self, keyring: Keyring) -> bool:
        """See ``KeyStore``."""
        return await asyncio.to_thread(self._compare_and_set, keyring)

    def _load(self) -> Keyring | None:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeyStoreError(
                f"cannot read the keyring {self._path}: {error.strerror}; check keys.file"
            ) from error
        try:
            return _keyring(json.loads(raw))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise KeyStoreError(f"the keyring {self._path} is damaged; restore it from a backup") from error

    def _compare_and_set(self, keyring: Keyring) -> bool:
        try:
            with self._locked():
                stored = self._load()
                if (stored.revision if stored else 0) != keyring.revision - 1:
                    return False
                self._replace(json.dumps(_document(keyring), indent=1))
        except OSError as error:
            raise KeyStoreError(
                f"cannot write the keyring {self._path}: {error.strerror}; its folder must exist and be writable"
            ) from error
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _replace(self, text: str) -> None:
        new = self._path.with_name(f"{self._path.name}.new")
        # Left over where a writer was killed; the lock says that nobody is using it.
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _document(keyring: Keyring) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "revision": keyring.revision,
        "keys": [
            {
                "kid": key.kid,
                "algorithm": key.algorithm,
                "state": key.state.value,
                "created_at": key.created_at.isoformat(),
                "activates_at": key.activates_at.isoformat(),
                "retires_at": key.retires_at.isoformat(),
                "removes_at": key.removes_at.isoformat(),
                "public_jwk": dict(key.public_jwk),
                "provider": key.provider,
                "sealed_private_key": base64.b64encode(key.sealed_private_key).decode(),
            }
            for key in keyring.keys
        ],
        "secrets": [
            {
                "purpose": secret.purpose.value,
                "number": secret.number,
                "created_at": secret.created_at.isoformat(),
                "sealed": base64.b64encode(secret.sealed).decode(),
            }
            for secret in keyring.secrets
        ],
    }


def _keyring(document: dict[str, Any]) -> Keyring:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']} is not {FORMAT}")
    if type(document["revision"]) is not int or document["revision"] < 1:
        raise ValueError("the revision is not a positive number")
    return Keyring(
        revision=document["revision"],
        keys=tuple(
            KeyRecord(
                kid=item["kid"],
                algorithm=item["algorithm"],
                state=KeyState(item["state"]),
                created_at=_moment(item["created_at"]),
                activates_at=_moment(item["activates_at"]),
                retires_at=_moment(item["retires_at"]),
                removes_at=_moment(item["removes_at"]),
                public_jwk=item["public_jwk"],
                sealed_private_key=base64.b64decode(item["sealed_private_key"], validate=True),
                provider=item["provider"],
            )
            for item in document["keys"]
        ),
        secrets=tuple(
            SealedSecret(
                purpose=SecretPurpose(item["purpose"]),
                number=item["number"],
                created_at=_moment(item["created_at"]),
                sealed=base64.b64decode(item["sealed"], validate=True),
            )
            for item in document["secrets"]
        ),
    )


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    return moment.astimezone(UTC)
