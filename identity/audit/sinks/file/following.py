"""Lines of the file sink as they come: across files that are put away, and what is truncated in place.

A look sees what was written since the last one. Between two of them the file may have been put away, more than once; those in between
are known by their names (``audit.<time of its last write>[.<number>].jsonl``), which rise. Or it may have been cut: by the
sink, which takes a line away that a crash has torn, or by somebody, and then it is read from its beginning.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

MARK_BYTES = 256
"""So much of what was read last is compared, to see whether it is still there."""


class FollowedFile:
    """From its beginning on. ``told`` is told of what may have been missed. Raises ``OSError``."""

    def __init__(self, path: Path, told: Callable[[str], None]) -> None:
        self._path = path
        self._told = told
        self._file: BinaryIO = path.open("rb")
        self._read = 0
        self._mark = b""

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()

    def new_lines(self) -> Iterator[bytes]:
        """The whole lines since the last time. Raises ``OSError``."""
        while True:
            yield from self._lines()
            try:
                current = self._path.open("rb")
            except FileNotFoundError:
                return
            if os.path.samestat(os.fstat(current.fileno()), os.fstat(self._file.fileno())):
                current.close()
                return
            # Once more: it may have been written to since, and is not any more.
            yield from self._lines()
            for path in self._put_away_before(current):
                try:
                    between = path.open("rb")
                except FileNotFoundError:
                    self._told(f"{path} is gone before it was read; its events are not shown")
                    continue
                self._go_on_with(between)
                yield from self._lines()
            self._go_on_with(current)

    def _go_on_with(self, file: BinaryIO) -> None:
        self._file.close()
        self._file, self._read, self._mark = file, 0, b""

    def _lines(self) -> Iterator[bytes]:
        self._file.seek(self._read - len(self._mark))
        if self._file.read(len(self._mark)) != self._mark:
            self._told(f"{self._path} was truncated; what it has now is shown from its beginning")
            self._read, self._mark = 0, b""
            self._file.seek(0)
        while (line := self._file.readline()).endswith(b"\n"):
            self._read += len(line)
            self._mark = line[-MARK_BYTES:]
            yield line.rstrip(b"\n")

    def _put_away_before(self, current: BinaryIO) -> Sequence[Path]:
        """Files that were put away after the one that was followed, and before this one."""
        name = re.compile(
            rf"{re.escape(self._path.stem)}\.(\d{{8}}T\d{{6}}Z)(?:\.(\d{{1,9}}))?{re.escape(self._path.suffix)}"
        )
        mine = os.fstat(self._file.fileno())
        places: dict[tuple[str, int], Path] = {}
        after = (f"{datetime.fromtimestamp(mine.st_mtime, UTC):%Y%m%dT%H%M%SZ}", -1)
        before: tuple[str, int] | None = None
        for path in self._path.parent.iterdir():
            if (found := name.fullmatch(path.name)) is None:
                continue
            place = (found[1], int(found[2] or 0))
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if os.path.samestat(status, mine):
                after = place
            elif os.path.samestat(status, os.fstat(current.fileno())):
                before = place
            else:
                places[place] = path
        return [
            places[place] for place in sorted(places) if place > after and (before is None or place < before)
        ]
