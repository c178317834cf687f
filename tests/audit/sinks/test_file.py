"""What the file sink has acknowledged is on the disk, whatever happens to it while it writes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from audit.sinks.samples import any_event, chain
from hypothesis import given

from identity.audit.chain import GENESIS, ChainedEvent, chained, link_after
from identity.audit.line import line_of
from identity.audit.recorded_event import RecordedEvent
from identity.audit.sinks.file.reader import UnreadableLineError, parse_any_line, read_events, read_lines
from identity.audit.sinks.file.sink import FileSink, Rotation
from identity.audit.sinks.ports import Delivered, Undelivered

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def write(path: Path, *batches: Sequence[ChainedEvent], **options: Any) -> object:
    """Delivers by one sink; what it says of the last batch."""

    async def deliver() -> object:
        sink = FileSink(path, **options)
        answers = [await sink.deliver(batch) for batch in batches]
        await sink.close()
        return answers[-1]

    return asyncio.run(deliver())


@given(any_event)
def test_any_event_comes_back_from_its_line(original: RecordedEvent) -> None:
    (item,) = chained(GENESIS, [original])
    line = line_of(item, "file")
    assert b"\n" not in line
    read = parse_any_line(line)
    assert (read.event, read.sink) == (item, "file")


def test_a_line_is_the_event_with_its_place_in_the_chain(path: Path) -> None:
    (item,) = chain(1)
    assert write(path, [item]) == Delivered()
    members = json.loads(path.read_text())
    assert members.pop("sink") == "file"
    assert members.pop("chain") == {"link": item.link.hex(), "previous": "00" * 32}
    assert json.dumps(members, sort_keys=True, separators=(",", ":")).encode() == item.canonical


@pytest.mark.parametrize("form", ["events", "ocsf"])
def test_what_is_read_back_is_a_whole_chain(path: Path, form: str) -> None:
    events = chain(100)
    assert write(path, events[:60], form=form) == Delivered()
    assert write(path, events[60:], form=form) == Delivered()
    read = list(read_events(path))
    assert read == events
    assert all(link_after(each.previous, each.digest) == each.link for each in read)


def test_only_its_owner_can_read_it(path: Path) -> None:
    write(path, chain(1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_file_is_put_away_and_no_event_is_lost(path: Path) -> None:
    events = chain(100)
    batches = [events[start : start + 5] for start in range(0, 100, 5)]
    assert write(path, *batches, rotation=Rotation(max_bytes=5_000)) == Delivered()
    files = sorted(path.parent.iterdir())
    assert len(files) > 5
    assert path in files
    read = [each for file in files for each in read_events(file)]
    assert sorted(read, key=lambda each: each.event.sequence) == events
    assert all(file.suffix == ".jsonl" for file in files)


@pytest.mark.parametrize("form", ["events", "ocsf"])
def test_a_file_of_another_day_is_put_away(path: Path, form: str) -> None:
    (first,) = chain(1, time_ms=1_790_000_000_000)
    (soon,) = chain(1, time_ms=1_790_000_000_000 + 86_399_000)
    (later,) = chain(1, time_ms=1_790_000_000_000 + 86_400_000)
    rotation = Rotation(max_age_seconds=86_400)
    for event in (first, soon, later):
        write(path, [event], form=form, rotation=rotation)
    assert list(read_events(path)) == [later]
    (old,) = (file for file in path.parent.iterdir() if file != path)
    assert list(read_events(old)) == [first, soon]


def test_a_file_that_others_have_moved_away_is_begun_anew(path: Path) -> None:
    first, second = chain(2)
    write(path, [first])
    moved = path.rename(path.with_suffix(".1"))
    write(path, [second])
    assert (list(read_events(moved)), list(read_events(path))) == ([first], [second])


@pytest.mark.parametrize("torn", [b'{"audience":"ord', b"x" * 200_000, b"\0" * 4096])
def test_a_torn_line_is_left_out_and_taken_away_by_the_next_delivery(path: Path, torn: bytes) -> None:
    first, second = chain(2)
    write(path, [first])
    with path.open("ab") as file:
        file.write(torn)
    assert list(read_events(path)) == [first]
    assert write(path, [second]) == Delivered()
    assert list(read_events(path)) == [first, second]


def test_a_file_that_is_nothing_but_a_torn_line_becomes_empty(path: Path) -> None:
    path.write_bytes(b'{"audience"')
    events = chain(1)
    assert write(path, events) == Delivered()
    assert list(read_events(path)) == events


@pytest.mark.parametrize("form", ["events", "ocsf"])
def test_a_first_delivery_that_was_torn_anywhere_comes_again(path: Path, form: Any) -> None:
    (event,) = chain(1)
    write(path, [event], form=form)
    whole = path.read_bytes()
    for end in range(1, len(whole)):
        path.write_bytes(whole[:end])
        assert write(path, [event], form=form) == Delivered()
        assert list(read_events(path)) == [event] * (2 if end == len(whole) - 1 else 1)


@pytest.mark.parametrize("form", ["events", "ocsf"])
def test_an_event_that_only_lacks_its_line_feed_is_kept(path: Path, form: Any) -> None:
    """An editor strips it, and the event was acknowledged."""
    first, second, third = chain(3)
    write(path, [first, second], form=form)
    path.write_bytes(path.read_bytes()[:-1])
    assert write(path, [third], form=form) == Delivered()
    assert list(read_events(path)) == [first, second, third]


FOREIGN = [
    b"root:x:0:0:root:/root:/bin/bash\n" * 200,
    b"a note without an end",
    b"notes\n" + b"and one without an end",
    b"x" * 5_000_000,
    b"\n",
    b"\0" * 4096,
    b'{"event_id":"of something else"}',
    b'{"event_id":"of something else"}\n',
    b'{"client_id":1}\n{"client_id":2}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", FOREIGN, ids=range(len(FOREIGN)))
def test_a_file_of_somebody_else_is_named_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)
    delivery = write(path, chain(1), rotation=Rotation(max_bytes=1, max_age_seconds=1))
    assert isinstance(delivery, Undelivered)
    assert str(path) in delivery.problem
    assert "does not begin with an audit event" in delivery.problem
    assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_others_may_read_is_taken_from_them(path: Path) -> None:
    first, second = chain(2)
    write(path, [first])
    path.chmod(0o644)
    assert write(path, [second]) == Delivered()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"")
    path.chmod(0o666)
    assert write(path, [second]) == Delivered()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "line",
    [b"", b"null", b"[]", b"{}", b"\xff", b'{"class_uid":3002}', b"[" * 100_000, b'{"chain":1,"sink":"a"}'],
)
def test_a_line_that_is_no_event_is_named(path: Path, line: bytes) -> None:
    first, second = chain(2)
    path.write_bytes(line_of(first, "file") + b"\n" + line + b"\n" + line_of(second, "file") + b"\n")
    with pytest.raises(UnreadableLineError, match="line 2"):
        list(read_events(path))
    assert [each.content is not None for each in read_lines(path)] == [True, False, True]


def test_a_full_disk_takes_nothing_and_leaves_no_half_of_it(path: Path) -> None:
    """The bound of the process on the size of files stands for the disk's: the kernel writes up to it and no further."""
    program = """
import asyncio, resource, signal, sys
from pathlib import Path
sys.path.insert(0, "tests")
from audit.sinks.samples import chain
from identity.audit.sinks.file.sink import FileSink
from identity.audit.sinks.ports import Delivered, Undelivered

async def main(path):
    sink, events = FileSink(path), chain(1000)
    assert await sink.deliver(events[:10]) == Delivered()
    size = path.stat().st_size
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10_000, resource.RLIM_INFINITY))
    delivery = await sink.deliver(events[10:])
    assert isinstance(delivery, Undelivered), delivery
    assert path.stat().st_size == size
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert await sink.deliver(events[10:]) == Delivered()
    await sink.close()
    print(delivery.problem)

asyncio.run(main(Path(sys.argv[1])))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout
    assert list(read_events(path)) == chain(1000)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    delivery = write(tmp_path / "none/audit.jsonl", chain(1))
    assert isinstance(delivery, Undelivered)
    assert "No such file or directory" in delivery.problem


def test_a_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    delivery = write(path, chain(1))
    assert isinstance(delivery, Undelivered)
    assert f"{path} is a symbolic link" in delivery.problem
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_no_file_is_named_and_left_as_it_is(path: Path) -> None:
    os.mkfifo(path, 0o644)
    delivery = write(path, chain(1))
    assert isinstance(delivery, Undelivered)
    assert f"{path} is no regular file" in delivery.problem
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


async def test_two_relays_write_to_one_file_in_turn(path: Path) -> None:
    events = chain(400)
    sinks = [FileSink(path, rotation=Rotation(max_bytes=20_000)) for _ in range(2)]

    async def deliver(number: int) -> None:
        for start in range(number * 10, 400, 20):
            assert await sinks[number].deliver(events[start : start + 10]) == Delivered()

    await asyncio.gather(deliver(0), deliver(1))
    for sink in sinks:
        await sink.close()
    read = [each for file in path.parent.iterdir() for each in read_events(file)]
    assert sorted(read, key=lambda each: each.event.sequence) == events


HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "ab")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def test_the_process_is_named_that_does_not_let_go_of_a_file(path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("identity.audit.sinks.file.locking.LOCK_SECONDS", 0.1)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline()
            holder.send_signal(signal.SIGSTOP)
            delivery = write(path, chain(1))
        finally:
            holder.kill()
    assert isinstance(delivery, Undelivered)
    assert f"is locked by process {holder.pid} " in delivery.problem
    assert "continue or end that process" in delivery.problem
    assert write(path, chain(1)) == Delivered()


def test_a_lock_is_told_where_the_system_does_not_say_whose_it_is(path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("identity.audit.sinks.file.locking.LOCK_SECONDS", 0.1)
    monkeypatch.setattr("identity.audit.sinks.file.locking._LOCKS", path.with_name("none"))
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        delivery = write(path, chain(1))
    assert isinstance(delivery, Undelivered)
    assert "is locked by another process" in delivery.problem
    assert write(path, chain(1)) == Delivered()


WRITER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, "tests")
from audit.sinks.samples import chain
from identity.audit.sinks.file.sink import FileSink, Rotation

async def main(path):
    sink, events = FileSink(path, rotation=Rotation(max_bytes=300_000)), chain(20_000)
    begun = int(sys.argv[2])
    for start in range(begun, len(events), 37):
        await sink.deliver(events[start : start + 37])
        print(min(start + 37, len(events)), flush=True)

asyncio.run(main(Path(sys.argv[1])))
"""


def test_killed_at_any_moment_it_has_what_it_acknowledged(path: Path) -> None:
    """Each child goes on where the acknowledgements of the one before ended, and is killed after another number of them."""
    acknowledged = 0
    for rounds in (3, 1, 7, 12, 5, 20, 2, 9):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(acknowledged)], stdout=subprocess.PIPE, cwd=ROOT
        ) as child:
            assert child.stdout is not None
            for _ in range(rounds):
                acknowledged = int(child.stdout.readline())
            child.kill()
            for line in child.stdout:
                acknowledged = int(line)
    read = [each for file in path.parent.iterdir() for each in read_events(file)]
    by_sequence = {each.event.sequence: each for each in read}
    assert [by_sequence[number] for number in range(1, acknowledged + 1)] == chain(acknowledged)
    assert acknowledged >= 37 * 59
