"""One keyring file among processes."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from identity.keys.file_store import FileKeyStore
from identity.keys.keyring import Keyring
from identity.keys.ports import KeyStoreError
from identity.keys.service import KeyService

# Each takes ten steps and prints the revisions it has written; who is late loads again.
WRITER = """
import asyncio
import sys
from pathlib import Path
from identity.keys.file_store import FileKeyStore
from identity.keys.keyring import EMPTY

async def write():
    store, written = FileKeyStore(Path(sys.argv[1])), []
    while len(written) < 10:
        keyring = (await store.load() or EMPTY).next()
        if await store.compare_and_set(keyring):
            written.append(keyring.revision)
    print(*written)

sys.stdin.readline()
asyncio.run(write())
"""


def test_processes_that_race_write_each_revision_once(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    # As this process finds its modules, so do they.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(4)
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    outputs = [writer.communicate(timeout=50)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4
    revisions = [int(number) for output in outputs for number in output.split()]
    assert sorted(revisions) == list(range(1, 41))
    assert asyncio.run(FileKeyStore(path).load()) == Keyring(revision=40)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_writer_that_comes_second_is_told(make: Callable[..., KeyService], keyring_file: Any) -> None:
    await make().start()
    store = FileKeyStore(keyring_file.path)
    keyring = await store.load()
    assert keyring is not None
    assert await store.compare_and_set(keyring.next())
    assert not await store.compare_and_set(keyring.next())
    assert not await store.compare_and_set(Keyring().next())


async def test_what_a_killed_writer_left_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    left = tmp_path / "keyring.json.new"
    left.write_text("{")
    left.chmod(0o644)
    assert await FileKeyStore(path).load() is None
    assert await FileKeyStore(path).compare_and_set(Keyring().next())
    assert await FileKeyStore(path).load() == Keyring(revision=1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not left.exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": 2}',
        b'{"format": 1, "revision": 1, "keys": [{}], "secrets": []}',
        b'{"format": 1, "revision": "1", "keys": [], "secrets": []}',
        b'{"format": 1, "revision": 0, "keys": [], "secrets": []}',
        b'{"format": 1, "revision": 1, "keys": [], "secrets": [7]}',
    ],
    ids=range(10),
)
async def test_a_damaged_keyring_is_an_error_and_never_replaced(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "keyring.json"
    path.write_bytes(raw)
    with pytest.raises(KeyStoreError, match="restore it from a backup"):
        await FileKeyStore(path).load()
    with pytest.raises(KeyStoreError):
        await FileKeyStore(path).compare_and_set(Keyring().next())
    assert path.read_bytes() == raw


async def test_a_time_without_its_zone_is_damage(make: Callable[..., KeyService], keyring_file: Any) -> None:
    await make().start()
    document = keyring_file.read()
    document["keys"][0]["retires_at"] = "2026-04-01T00:00:00"
    keyring_file.write(document)
    with pytest.raises(KeyStoreError, match="damaged"):
        await FileKeyStore(keyring_file.path).load()


async def test_a_keyring_of_before_keys_waited_for_uptake_is_read(
    make: Callable[..., KeyService], keyring_file: Any
) -> None:
    await make().start()
    document = keyring_file.read()
    for key in document["keys"]:
        del key["activates_by"], key["request"]
    keyring_file.write(document)
    await make().start()


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    store = FileKeyStore(tmp_path / "absent" / "keyring.json")
    assert await store.load() is None
    with pytest.raises(KeyStoreError, match="its folder must exist"):
        await store.compare_and_set(Keyring().next())
