"""One writer of a file at a time: a lock that ends with the process that has it, and who that is."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

LOCK_SECONDS = 5.0
_LOOK_SECONDS = 0.02
_LOCKS = Path("/proc/locks")


class LockedError(Exception):
    """Whoever has the lock hangs. ``holder``: its process, where the system tells."""

    def __init__(self, holder: int | None) -> None:
        super().__init__()
        self.holder = holder


def lock(file: int) -> None:
    """Raises ``LockedError``."""
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                raise LockedError(_holder(file)) from None
            time.sleep(_LOOK_SECONDS)
        else:
            return


def _holder(file: int) -> int | None:
    """After proc_locks(5). A process in a container does not see those outside; file systems may number themselves otherwise there."""
    found = os.fstat(file)
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        match line.split():
            # Of those that wait, the second member is an arrow.
            case [_, "FLOCK", _, _, process, at, *_] if at == place and process.isdecimal() and int(process):
                return int(process)
    return None
