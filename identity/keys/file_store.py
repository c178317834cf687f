"""``KeyStore`` as one JSON file: for one machine, or several processes that share a folder.

The file has mode 0600 and is replaced whole, so that a reader or a crash sees the old one or the new one. A lock
beside it makes compare-and-set hold among processes.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from identity.audit.event import Event
from identity.audit.ports import EventRecorder
from identity.keys import document
from identity.keys.keyring import Keyring
from identity.keys.ports import KeyStoreError


class FileKeyStore:
    """A keyring in a file. What is done to it is handed to ``recorder``, since a file cannot record it."""

    may_lose_writes = False

    def __init__(self, path: Path, recorder: EventRecorder | None = None) -> None:
        self._path = path
        self._recorder = recorder
        self._seen = (0, 0, 0)
        self._seen_revision = 0

    async def load(self) -> Keyring | None:
        """See ``KeyStore``."""
        return await asyncio.to_thread(self._load)

    async def revision(self) -> int:
        """See ``KeyStore``. A file that looks as it did is not read again."""
        try:
            seen = _looks(self._path.stat())
        except OSError:
            seen = (0, 0, 0)
        if seen != self._seen:
            keyring = await self.load()
            self._seen, self._seen_revision = seen, keyring.revision if keyring else 0
        return self._seen_revision

    async def compare_and_set(self, keyring: Keyring, events: Sequence[Event] = ()) -> bool:
        """See ``KeyStore``."""
        done = await asyncio.to_thread(self._compare_and_set, keyring)
        if done and self._recorder is not None:
            for event in events:
                self._recorder.record(event)
        return done

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
            return document.from_text(raw)
        except document.DamagedKeyringError as error:
            raise KeyStoreError(f"the keyring {self._path} is damaged; restore it from a backup") from error

    def _compare_and_set(self, keyring: Keyring) -> bool:
        try:
            with self._locked():
                stored = self._load()
                if (stored.revision if stored else 0) != keyring.revision - 1:
                    return False
                self._replace(document.to_text(keyring))
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


def _looks(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns, status.st_ino, status.st_size
