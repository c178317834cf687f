"""Events as lines of a file: written, synced to the disk, and only then acknowledged.

Each delivery opens the file, locks it, and leaves nothing behind in memory. So relays on one machine may share a file, whoever moves it
away (logrotate) does no harm, and a crash at any moment leaves at most one line without its end, which the next delivery takes away:
it was never acknowledged, and comes again. Files are for their owner only (0600). A file that is large or old enough is renamed to
``<name>.<time of its last write, UTC>.<ending>``, and neither written again nor removed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from identity.audit.chain import ChainedEvent
from identity.audit.line import line_of
from identity.audit.recorded_event import NotAnEventError
from identity.audit.sinks.encoding import encoded_or_refused
from identity.audit.sinks.file.ocsf import ocsf_line_of
from identity.audit.sinks.file.reader import parse_any_line
from identity.audit.sinks.ports import Delivered, Delivery, Undelivered

NAME = "file"
MODE = 0o600
LOCK_SECONDS = 5.0
_LOCK_LOOK_SECONDS = 0.02
_BLOCK_BYTES = 64 * 1024

FileFormat = Literal["events", "ocsf"]
_FORMS: Mapping[FileFormat, Callable[[ChainedEvent, str], bytes]] = {
    "events": line_of,
    "ocsf": ocsf_line_of,
}


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file is closed for good: it has this size, or its events are of so long a time. 0: never."""

    max_bytes: int = 0
    max_age_seconds: int = 0


NEVER = Rotation()


class FileSink:
    """An ``AuditSink`` that writes to ``path``."""

    name = NAME

    def __init__(self, path: Path, *, form: FileFormat = "events", rotation: Rotation = NEVER) -> None:
        self._path = path
        self._line_of = _FORMS[form]
        self._rotation = rotation
        # One: what hangs on a disk holds up what comes after it, and nothing else.
        self._thread = ThreadPoolExecutor(1, "audit-file")

    async def deliver(self, events: Sequence[ChainedEvent]) -> Delivery:
        """See ``AuditSink``."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._written, events)

    async def close(self) -> None:
        """See ``AuditSink``."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _written(self, events: Sequence[ChainedEvent]) -> Delivery:
        lines, refused = encoded_or_refused(events, lambda item: self._line_of(item, NAME) + b"\n")
        if not lines:
            return Delivered(refused)
        content = b"".join(lines)
        newest_ms = max(each.event.time_ms for each in events)
        try:
            with self._opened(newest_ms) as file:
                _append(file, content)
        except TimeoutError:
            return Undelivered(f"{self._path} is locked by another process for {LOCK_SECONDS:.0f} s")
        except OSError as error:
            return Undelivered(f"{self._path}: {error.strerror or type(error).__name__}")
        return Delivered(refused)

    @contextlib.contextmanager
    def _opened(self, newest_ms: int) -> Iterator[int]:
        """The file in use, locked, and with whole lines only."""
        while True:
            file = _open(self._path)
            try:
                _lock(file)
                # It may have been put away while the lock was waited for.
                if not _is_at(file, self._path):
                    continue
                _take_torn_line_away(file)
                if self._is_full(file, newest_ms):
                    _put_away(file, self._path)
                    continue
                yield file
                return
            finally:
                os.close(file)

    def _is_full(self, file: int, newest_ms: int) -> bool:
        size = os.fstat(file).st_size
        if not size:
            return False
        if 0 < self._rotation.max_bytes <= size:
            return True
        first_ms = _first_time_ms(file) if self._rotation.max_age_seconds else None
        return first_ms is not None and newest_ms - first_ms >= self._rotation.max_age_seconds * 1000


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(path, flags, MODE)
    if not os.fstat(file).st_size:
        # The name has to survive a crash as well as the content.
        _sync_folder(path)
    return file


def _lock(file: int) -> None:
    """Raises ``TimeoutError``: whoever has it hangs."""
    give_up = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up:
                raise TimeoutError from None
            time.sleep(_LOCK_LOOK_SECONDS)
        else:
            return


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _append(file: int, content: bytes) -> None:
    """All of it and on the disk, or none of it as far as that can be had."""
    size = os.fstat(file).st_size
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file, size)
        raise


def _take_torn_line_away(file: int) -> None:
    """What follows the last line feed was being written when a process or the machine died."""
    size = os.fstat(file).st_size
    if not size or os.pread(file, 1, size - 1) == b"\n":
        return
    end = size
    while end:
        start = max(end - _BLOCK_BYTES, 0)
        if (found := os.pread(file, end - start, start).rfind(b"\n")) >= 0:
            end = start + found + 1
            break
        end = start
    os.ftruncate(file, end)
    os.fsync(file)


def _first_time_ms(file: int) -> int | None:
    line, feed, _ = os.pread(file, _BLOCK_BYTES, 0).partition(b"\n")
    try:
        return parse_any_line(line).event.event.time_ms if feed else None
    except NotAnEventError:
        return None


def _put_away(file: int, path: Path) -> None:
    written = datetime.fromtimestamp(os.fstat(file).st_mtime, UTC)
    for number in itertools.count():
        again = f".{number}" if number else ""
        target = path.with_name(f"{path.stem}.{written:%Y%m%dT%H%M%SZ}{again}{path.suffix}")
        # Nobody else makes names like this one while the lock is held.
        if not target.exists():
            path.rename(target)
            _sync_folder(path)
            return


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
