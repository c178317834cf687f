"""A file that a command cannot use ends it with one line that names it, whatever is in it."""

from __future__ import annotations

import os
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from identity.cli.main import main

Run: TypeAlias = Callable[..., tuple[int, str]]
BINARY = bytes([0x7B, 0xED, 0x00, 0xFF])
CASES = {
    "missing": None,
    "folder": None,
    "binary": BINARY,
    "no-json": b"policy: none",
    "list": b"[1]",
    "deep": b"[" * 200_000,
}
NO_CONTENT = {"missing", "folder"}
NO_TEXT = {*NO_CONTENT, "binary"}
AT_SERVICE = ("--target", "127.0.0.1:1")


@pytest.fixture(params=CASES)
def bad(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file = tmp_path / str(request.param)
    content = CASES[request.param]
    if content is not None:
        file.write_bytes(content)
    elif request.param == "folder":
        file.mkdir()
    return file


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bad: Path) -> Run:
    for name in [name for name in os.environ if name.startswith("IDENTITY_")]:
        monkeypatch.delenv(name)

    def command(*arguments: str, **environment: str) -> tuple[int, str]:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["identity", *arguments])
        # Anything else that is raised would be printed as a traceback.
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return command


def refused(done: tuple[int, str], bad: Path) -> None:
    code, told = done
    assert code == 1, told
    assert told.startswith("identity: "), told
    assert str(bad) in told
    assert len(told.splitlines()) == 1


def test_a_bundle_of_keys(run: Run, bad: Path, tmp_path: Path) -> None:
    kek = tmp_path / "kek"
    kek.write_text(b64encode(bytes(32)).decode())
    kek.chmod(0o600)
    code, told = run(
        "keys", "import", str(bad),
        IDENTITY_ISSUER="https://id.example", IDENTITY_KEYS__KEK_FILE=str(kek), IDENTITY_KEYS__STORE="file",
        IDENTITY_KEYS__FILE=str(tmp_path / "keyring"),
    )  # fmt: skip
    if bad.name in NO_TEXT:
        refused((code, told), bad)
    else:
        assert (code, told.count("\n")) == (1, 1)
        assert "identity keys export" in told


def test_settings(run: Run, bad: Path) -> None:
    # "[1]" is a table in TOML.
    if bad.name != "list":
        refused(run("config", "show", "--config", str(bad)), bad)
    if bad.name in NO_TEXT:
        code, told = run("config", "show", "--set", f"redis.url_file={bad}")
        assert code == 1
        assert f"redis: cannot read url_file {bad}: " in told


def test_the_secret_of_a_client(run: Run, bad: Path) -> None:
    if bad.name in NO_TEXT:
        access = {"IDENTITY_CLIENT_ID": "admin", "IDENTITY_CLIENT_SECRET_FILE": str(bad)}
        refused(run("keys", "list", *AT_SERVICE, **access), bad)


def test_roots(run: Run, bad: Path) -> None:
    if bad.name in NO_CONTENT:
        access = {"IDENTITY_CLIENT_ID": "admin", "IDENTITY_CLIENT_SECRET": "x"}
        refused(run("keys", "list", *AT_SERVICE, "--ca-file", str(bad), **access), bad)


def test_a_policy(run: Run, bad: Path) -> None:
    if bad.exists():
        access = {"IDENTITY_CLIENT_ID": "admin", "IDENTITY_CLIENT_SECRET": "x"}
        refused(run("clients", "create", "x", "--policy", str(bad), *AT_SERVICE, **access), bad)


def test_what_dev_says_of_itself(run: Run, bad: Path, tmp_path: Path) -> None:
    if bad.exists():
        folder = tmp_path / "data"
        folder.mkdir()
        bad.rename(folder / "dev.json")
        refused(run("keys", "list", "--data-dir", str(folder)), folder / "dev.json")
    refused(run("keys", "list", "--data-dir", str(bad)), bad)


def test_key_encryption_keys(run: Run, bad: Path) -> None:
    wrapped = ("--set", "keys.kek_provider=transit:https://x.example/transit?token-file=/x&key=k")
    issuer = {"IDENTITY_ISSUER": "https://id.example"}
    code, told = run("kek", "new", "--existing", str(bad), *wrapped, **issuer)
    assert (code, told.startswith("identity: "), told.count("\n")) == (1, True, 1)
    code, told = run("kek", "fingerprint", "--set", f"keys.kek_file={bad}", **issuer)
    assert (code, told.startswith("identity: "), told.count("\n")) == (1, True, 1)


@pytest.mark.parametrize(
    "command",
    [
        ("query",),
        ("verify",),
        ("tail", "--once"),
        ("query", "--otlp-json"),
        ("verify", "--otlp-json"),
        ("verify", os.devnull, "--keys"),
        ("query", os.devnull, "--subject", "alice", "--pseudonym-key-file"),
    ],
    ids=" ".join,
)
def test_files_of_the_audit(run: Run, bad: Path, command: tuple[str, ...]) -> None:
    code, told = run("audit", *command, str(bad))
    if bad.name in NO_CONTENT:
        assert code in {1, 2}
        assert "cannot read" in told
