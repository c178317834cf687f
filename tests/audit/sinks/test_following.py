"""Who watches a file sees each event once, whatever becomes of the file between two looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from audit.sinks.samples import chain

from identity.audit.chain import ChainedEvent
from identity.audit.line import line_of
from identity.audit.sinks.file.following import FollowedFile
from identity.audit.sinks.file.sink import FileSink, Rotation

EVENTS = chain(20)
LINES = [line_of(each, "file") for each in EVENTS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(LINES[0] + b"\n")
    return path


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def look(path: Path, said: list[str]) -> Iterator[Callable[[], list[bytes]]]:
    followed = FollowedFile(path, said.append)
    yield lambda: list(followed.new_lines())
    followed.close()


def deliver(path: Path, *events: ChainedEvent) -> None:
    """One by one, with a file for every second or third of them."""

    async def each() -> None:
        sink = FileSink(path, rotation=Rotation(max_bytes=2 * len(LINES[0])))
        for event in events:
            await sink.deliver([event])
        await sink.close()

    asyncio.run(each())


def test_files_that_were_put_away_between_two_looks_are_shown(
    path: Path, look: Callable[[], list[bytes]], said: list[str]
) -> None:
    assert look() == LINES[:1]
    deliver(path, *EVENTS[1:15])
    assert len(list(path.parent.iterdir())) > 4
    assert look() == LINES[1:15]
    deliver(path, *EVENTS[15:])
    assert look() == LINES[15:]
    assert (look(), said) == ([], [])


def test_what_was_written_just_before_a_file_was_put_away_is_shown(
    path: Path, look: Callable[[], list[bytes]]
) -> None:
    assert look() == LINES[:1]
    with path.open("ab") as opened:
        opened.write(LINES[1] + b"\n")
    path.rename(path.with_name("elsewhere"))
    assert look() == LINES[1:2]
    path.write_bytes(LINES[2] + b"\n")
    assert look() == LINES[2:3]


@pytest.mark.parametrize("left", [0, 1])
def test_a_file_that_was_truncated_in_place_is_shown_from_its_beginning(
    path: Path, look: Callable[[], list[bytes]], said: list[str], left: int
) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in LINES[:3]))
    assert look() == LINES[:3]
    with path.open("r+b") as opened:
        opened.truncate(0)
        opened.write(b"".join(line + b"\n" for line in LINES[3 : 5 + 5 * left]))
    assert look() == LINES[3 : 5 + 5 * left]
    assert len(said) == 1
    assert "truncated" in said[0]


def test_a_torn_line_that_the_sink_takes_away_is_no_truncation(
    path: Path, look: Callable[[], list[bytes]], said: list[str]
) -> None:
    with path.open("ab") as opened:
        opened.write(LINES[1][:40])
    assert look() == LINES[:1]
    deliver(path, EVENTS[1])
    assert look() == LINES[1:2]
    assert said == []
