"""The spools of a host: a file a process, in a directory that its processes share.

The one lock is ``flock``, which ends with the process that holds it, however that ends: on each spool for as long as it is used,
and on the file ``lock`` while one is made or looked for. A spool that nobody holds is left over, and whoever finds it delivers
it. A fork inherits the lock with the descriptor; so the child closes what it has inherited (``abandon``).
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

from grpc_identity.usage.spool import Spool, SpoolDamagedError

__all__ = ["SpoolDirectory"]

SUFFIX = ".spool"
DAMAGED_SUFFIX = ".damaged"
MAX_ADOPTED = 64

_logger = logging.getLogger("grpc_identity.usage")


class SpoolDirectory:
    """Makes, finds and removes spools."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, *, size_bytes: int) -> Spool:
        """A new spool, held by this process. Raises ``OSError``."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path / f"{os.getpid()}-{secrets.token_hex(8)}{SUFFIX}"
        with self._locked():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return Spool.create(path, descriptor, size_bytes=size_bytes)
            except BaseException:
                os.close(descriptor)
                path.unlink()
                raise

    def adopt(self) -> list[Spool]:
        """Those that nobody holds, oldest first, at most 64 at a time; held by this process from now on."""
        adopted: list[Spool] = []
        with contextlib.suppress(OSError), self._locked():
            for path in sorted(self.path.glob(f"*{SUFFIX}"), key=_age):
                if len(adopted) < MAX_ADOPTED and (spool := _take(path)) is not None:
                    adopted.append(spool)
        return adopted

    def remove(self, spool: Spool) -> None:
        """Deletes one that is delivered; one that could not tell of its losses stays for the next who finds it."""
        with contextlib.suppress(OSError):
            if not spool.untold.records:
                spool.path.unlink()
        spool.close()

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


def _take(path: Path) -> Spool | None:
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
