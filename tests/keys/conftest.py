"""A clock that a test moves, and services that share one keyring file."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from identity.audit.event import Event
from identity.keys.custody import Custody
from identity.keys.file_store import FileKeyStore
from identity.keys.keyring import LOCAL
from identity.keys.providers.local import LocalKeys
from identity.keys.schedule import Schedule
from identity.keys.sealing import KeyEncryptionKey
from identity.keys.service import KeyService


class ManualClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def kek() -> KeyEncryptionKey:
    return KeyEncryptionKey(bytes(range(32)))


class Recorded:
    """An ``EventRecorder`` that keeps what it got."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, event: Event) -> None:
        self.events.append(event)

    @property
    def told(self) -> list[tuple[str, str]]:
        """Type and detail."""
        return [(event.type.value, event.circumstances.detail) for event in self.events]


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


class KeyringFile:
    """What somebody who can write there does to the keyring, at one go."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.path.read_bytes())
        return document

    def write(self, document: dict[str, Any]) -> None:
        self.write_raw(json.dumps(document).encode())

    def read_raw(self) -> bytes:
        return self.path.read_bytes()

    def write_raw(self, raw: bytes) -> None:
        aside = self.path.with_suffix(".aside")
        aside.write_bytes(raw)
        aside.replace(self.path)

    def remove(self) -> None:
        self.path.unlink()

    def exists(self) -> bool:
        return self.path.exists()


@pytest.fixture
def keyring_file(tmp_path: Path) -> KeyringFile:
    return KeyringFile(tmp_path / "keyring.json")


@pytest.fixture
def make(
    keyring_file: KeyringFile, kek: KeyEncryptionKey, clock: ManualClock, recorded: Recorded
) -> Callable[..., KeyService]:
    """Services that share one keyring file."""

    def build(algorithm: str = "ES256", kek: KeyEncryptionKey = kek) -> KeyService:
        custody = Custody(kek, {LOCAL: LocalKeys()}, clock, algorithm)
        return KeyService(FileKeyStore(keyring_file.path, recorded), custody, Schedule(), clock)

    return build


@pytest.fixture
def write_kek() -> Callable[[Path], Path]:
    """Writes a new key-encryption key to a file."""

    def write(path: Path) -> Path:
        path.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def run_identity(service: Any) -> Callable[..., Awaitable[tuple[int, str]]]:
    """Runs a command against the service, or another one, as its administrator."""

    async def run(*arguments: str, at: Any = service, **environment: str) -> tuple[int, str]:
        access = {
            "IDENTITY_TARGET": at.addresses.grpc_target,
            "IDENTITY_CLIENT_ID": "admin",
            "IDENTITY_CLIENT_SECRET": at.secrets["admin"],
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "identity",
            *arguments,
            env=os.environ | access | environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    return run
