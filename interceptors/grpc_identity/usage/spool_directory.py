"""The spools of a host: a file a process, in a directory that its processes share.

The one lock is ``flock``, which ends with the process that holds it, however that ends: on each spool for as long as it is used,
and on the file ``lock`` while one is made or looked for. A spool that nobody holds is left over, and whoever finds it delivers
it. A fork inherits the lock with the descriptor; so the child closes what it has inherited (``abandon``).

A file says which client reports it: what another service has left in the same directory is not reported in this one's name.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grpc_identity.usage.spool import Spool, SpoolDamagedError, client_of

__all__ = ["SpoolDirectory"]

SUFFIX = ".spool"
DAMAGED_SUFFIX = ".damaged"
MAX_ADOPTED = 64

_logger = logging.getLogger("grpc_identity.usage")


class SpoolDirectory:
    """Makes, finds and removes the spools of one client. Those that name none are everybody's."""

    def __init__(self, path: Path, client_id: str = "") -> None:
        self.path = path
        self._client_id = client_id
        self._said: set[str] = set()

    def create(self, *, size_bytes: int) -> Spool:
        """A new spool, held by this process. Raises ``OSError``."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path / f"{os.getpid()}-{secrets.token_hex(8)}{SUFFIX}"
        with self._locked():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return Spool.create(path, descriptor, size_bytes=size_bytes, client_id=self._client_id)
            except BaseException:
                os.close(descriptor)
                path.unlink()
                raise

    def adopt(self) -> list[Spool]:
        """Those that nobody holds, oldest first, at most 64 at a time; held by this process from now on."""
        taken: list[tuple[Path, int]] = []
        with contextlib.suppress(OSError), self._locked():
            for path in sorted(self.path.glob(f"*{SUFFIX}"), key=_age):
                if len(taken) < MAX_ADOPTED and (descriptor := self._take(path)) is not None:
                    taken.append((path, descriptor))
        # To read them takes a while, and who makes a spool waits for the lock.
        return [spool for path, descriptor in taken if (spool := _opened(path, descriptor)) is not None]

    def remove(self, spool: Spool) -> None:
        """Deletes one that is delivered; one that could not tell of its losses stays for the next who finds it."""
        with contextlib.suppress(OSError):
            if not spool.untold.records:
                spool.path.unlink()
        spool.close()

    def _take(self, path: Path) -> int | None:
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            client_id = client_of(descriptor)
        except OSError:
            os.close(descriptor)
            return None
        if client_id and client_id != self._client_id:
            os.close(descriptor)
            if client_id not in self._said:
                self._said.add(client_id)
                _logger.warning(
                    "uses of tokens wait for the client %r and are left to it: %s", client_id, path
                )
            return None
        return descriptor

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _opened(path: Path, descriptor: int) -> Spool | None:
    try:
        return Spool(path, descriptor)
    except OSError:
        os.close(descriptor)
    except SpoolDamagedError as error:
        # Kept for people: whatever is in it, no record is thrown away here.
        _logger.error("uses of tokens cannot be read: %s", error)  # noqa: TRY400
        with contextlib.suppress(OSError):
            path.rename(path.with_suffix(DAMAGED_SUFFIX))
        os.close(descriptor)
    return None
