"""Events as lines of a file: written, synced to the disk, and only then acknowledged.

Each delivery opens the file, locks it, and leaves nothing behind in memory. So relays on one machine may share a file, whoever moves it
away (logrotate) does no harm, and a crash at any moment leaves at most one line without its end, which the next delivery takes away:
it was never acknowledged, and comes again. Where only the line feed is missing, it is put there. A file that does not begin with an
event is somebody else's and left as it is. Files are for their owner only (0600). A file that is large or old enough is renamed to
``<name>.<time of its last write, UTC>.<ending>``, and neither written again nor removed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from identity.audit.chain import ChainedEvent
from identity.audit.line import line_of
from identity.audit.recorded_event import NotAnEventError, RecordedEvent
from identity.audit.sinks.encoding import encoded_or_refused
from identity.audit.sinks.file.locking import LOCK_SECONDS, LockedError, lock
from identity.audit.sinks.file.ocsf import ocsf_line_of
from identity.audit.sinks.file.reader import parse_any_line
from identity.audit.sinks.ports import Delivered, Delivery, Undelivered

NAME = "file"
MODE = 0o600
_BLOCK_BYTES = 64 * 1024
MAX_LINE_BYTES = 4 * 1024 * 1024
"""What is longer is no line of ours."""
# Members are sorted. Every line of OCSF has the first; an event has its id, and one of those that may stand before that.
_FIRST_MEMBERS = tuple(
    b'{"%s":' % name.encode()
    for name in (
        "activity_id",
        *sorted(item.name for item in fields(RecordedEvent) if item.name <= "event_id"),
    )
)

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
        except LockedError as error:
            holder = f"process {error.holder}" if error.holder else "another process"
            return Undelivered(
                f"{self._path} is locked by {holder} for {LOCK_SECONDS:.0f} s: continue or end that process, "
                "or set another audit.file_path"
            )
        except _NotAFileError:
            return Undelivered(f"{self._path} is no regular file: set another audit.file_path")
        except _NotOursError:
            return Undelivered(
                f"{self._path} is there, and does not begin with an audit event: it is left as it is. "
                "Move it away, or set another audit.file_path"
            )
        except OSError as error:
            if error.errno == errno.ELOOP and self._path.is_symlink():
                return Undelivered(
                    f"{self._path} is a symbolic link, and is not followed: set audit.file_path to the file itself"
                )
            return Undelivered(f"{self._path}: {error.strerror or type(error).__name__}")
        return Delivered(refused)

    @contextlib.contextmanager
    def _opened(self, newest_ms: int) -> Iterator[int]:
        """The file in use, locked, and with whole lines only."""
        while True:
            file = _open(self._path)
            try:
                _require_regular(file)
                lock(file)
                # It may have been put away while the lock was waited for.
                if not _is_at(file, self._path):
                    continue
                _require_ours(file)
                _keep_to_its_owner(file)
                _end_last_line(file)
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


class _NotAFileError(Exception):
    """A pipe or a device: what is written there is not kept."""


def _require_regular(file: int) -> None:
    """Raises ``_NotAFileError``."""
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise _NotAFileError


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


class _NotOursError(Exception):
    """What is in the file was not written here."""


def _require_ours(file: int) -> None:
    """Raises ``_NotOursError``. A file may end within its first line, if that begins as one of ours does."""
    if not os.fstat(file).st_size:
        return
    line, is_whole = _line_at(file, 0)
    if _is_event(line):
        return
    if (
        is_whole
        or _is_json(line)
        or not any(line.startswith(member) or member.startswith(line) for member in _FIRST_MEMBERS)
    ):
        raise _NotOursError


def _keep_to_its_owner(file: int) -> None:
    if stat.S_IMODE(os.fstat(file).st_mode) != MODE:
        os.fchmod(file, MODE)


def _end_last_line(file: int) -> None:
    """What follows the last line feed was being written when a process or the machine died, unless it is whole."""
    size = os.fstat(file).st_size
    if not size or os.pread(file, 1, size - 1) == b"\n":
        return
    start = _start_of_last_line(file, size)
    line, _ = _line_at(file, start)
    # A part of an object is none: this one lacks its line feed only, since an editor has taken it away, for instance.
    if _is_json(line):
        _append(file, b"\n")
    else:
        os.ftruncate(file, start)
        os.fsync(file)


def _start_of_last_line(file: int, size: int) -> int:
    end = size
    while end:
        start = max(end - _BLOCK_BYTES, 0)
        if (found := os.pread(file, end - start, start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0


def _line_at(file: int, start: int) -> tuple[bytes, bool]:
    """The line, and whether its end is there; of one that is too long, its beginning."""
    line = bytearray()
    while len(line) <= MAX_LINE_BYTES and (block := os.pread(file, _BLOCK_BYTES, start + len(line))):
        part, feed, _ = block.partition(b"\n")
        line += part
        if feed:
            return bytes(line), True
    return bytes(line), False


def _is_event(line: bytes) -> bool:
    try:
        parse_any_line(line)
    except NotAnEventError:
        return False
    return True


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _first_time_ms(file: int) -> int | None:
    line, _ = _line_at(file, 0)
    try:
        return parse_any_line(line).event.event.time_ms
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
