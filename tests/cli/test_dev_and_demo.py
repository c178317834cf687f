"""``identity dev`` and ``identity demo`` as a stranger uses them: two processes and a folder."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from grpc_identity import Issuer, Verifier
from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1 import identity_service_pb2_grpc as pb_grpc
from grpc_identity.v1 import sessions_pb2
from identity.cli.session_story import ENDINGS

IDENTITY = str(Path(sys.executable).with_name("identity"))


def identity(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(
        [IDENTITY, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env=clean_environment() | environment,
        check=False,
    )


def basic(client_id: str, client_secret: str) -> tuple[tuple[str, str], ...]:
    pair = b64encode(f"{client_id}:{client_secret}".encode()).decode()
    return (("authorization", f"Basic {pair}"),)


def clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "IDENTITY_"))}
    return kept | {"NO_COLOR": "1", "COLUMNS": "120"}


@pytest.fixture
def start_dev(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``identity dev`` on free ports; ends what a test has left running."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [
            IDENTITY,
            "dev",
            "--data-dir",
            str(tmp_path),
            "--grpc-port",
            "0",
            "--http-port",
            "0",
            *arguments,
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_environment()
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=20)


async def known(tmp_path: Path, wait_until: Any) -> dict[str, str]:
    path = tmp_path / "dev.json"
    await wait_until(path.exists, seconds=40)
    content: dict[str, str] = json.loads(path.read_text())
    return content


async def test_dev_says_how_to_call_it_and_leaves_nothing_running(
    start_dev: Any, tmp_path: Path, wait_until: Any
) -> None:
    process = start_dev()
    content = await known(tmp_path, wait_until)
    assert stat.S_IMODE((tmp_path / "dev.json").stat().st_mode) == 0o600
    assert {
        "grpc_target", "jwks_url", "issuer", "client_id", "client_secret", "admin_client_id", "admin_client_secret",
        "redis_url",
    } <= set(content)  # fmt: skip
    assert stat.S_IMODE((tmp_path / "kek").stat().st_mode) == 0o600

    for arguments in (
        ("demo", "--data-dir", str(tmp_path)),
        ("clients", "list", "--data-dir", str(tmp_path), "--json"),
        ("sessions", "list", "alice", "--data-dir", str(tmp_path)),
        ("keys", "list", "--data-dir", str(tmp_path), "--json"),
        ("keys", "list", "--data-dir", str(tmp_path)),
        ("keys", "plan", "--data-dir", str(tmp_path)),
        ("keys", "rotate", "--data-dir", str(tmp_path)),
        ("keys", "rotate", "--secrets", "--data-dir", str(tmp_path)),
        ("verifiers", "--data-dir", str(tmp_path)),
        ("doctor", "--data-dir", str(tmp_path)),
    ):
        done = identity(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        assert content["client_secret"] not in done.stdout + done.stderr

    second = identity("dev", "--data-dir", str(tmp_path))
    assert second.returncode == 1
    assert "another `identity dev` uses" in second.stderr

    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output
    assert not (tmp_path / "dev.json").exists()
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log
    assert content["client_secret"] not in log


async def test_verifiers_are_listed_and_a_revocation_is_waited_for(
    start_dev: Any, tmp_path: Path, wait_until: Any
) -> None:
    start_dev()
    content = await known(tmp_path, wait_until)
    issuer = Issuer(
        content["issuer"],
        target=content["grpc_target"],
        audience="orders",
        client_id=content["verifier_client_id"],
        client_secret=content["verifier_client_secret"],
    )
    with Verifier(issuer, name="orders-1"):
        listed = identity("verifiers", "--data-dir", str(tmp_path), "--json")
        (verifier,) = json.loads(listed.stdout)
        assert (verifier["verifierId"], verifier["connected"]) == ("orders-1", True)
        options = ("--subject", "alice", "--access-tokens-only", "--no-roles", "--wait", "10")
        ended = identity("sessions", "revoke", *options, "--data-dir", str(tmp_path))
        assert ended.returncode == 0, ended.stderr
        assert "applied by 1 of 1 connected verifiers" in ended.stdout


async def test_a_session_is_explained_and_a_subject_erased(
    start_dev: Any, tmp_path: Path, wait_until: Any
) -> None:
    start_dev()
    content = await known(tmp_path, wait_until)
    metadata = basic(content["client_id"], content["client_secret"])
    where = ("--data-dir", str(tmp_path))
    with grpc.insecure_channel(content["grpc_target"]) as channel:
        stub = pb_grpc.IdentityServiceStub(channel)
        issue = pb.IssueTokensRequest(subject="zoe", audience=["orders"])
        kept, other = (stub.IssueTokens(issue, metadata=metadata).tokens for _ in range(2))
        spent = pb.RefreshRequest(refresh_token=kept.refresh_token, idempotency_key="a")
        for _ in range(2):
            stub.Refresh(spent, metadata=metadata)
        alive = identity("sessions", "explain", kept.session_id, *where)
        assert "generation 0 spent; the answer was repeated 1 times" in alive.stdout
        assert "it is alive" in alive.stdout
        assert identity("sessions", "revoke", "--all-but", kept.session_id, *where).returncode == 0
        ended = identity("sessions", "explain", other.session_id, *where)
        assert "ended: REVOKED_WITH_OTHERS" in ended.stdout
        spent.idempotency_key = "b"
        with pytest.raises(grpc.RpcError):
            stub.Refresh(spent, metadata=metadata)
        stolen = json.loads(identity("sessions", "explain", kept.session_id, *where, "--json").stdout)
        assert stolen["endReason"] == "SESSION_END_REASON_REUSE_DETECTED"
        asked = identity("sessions", "erase", "zoe", *where)
        assert asked.returncode != 0  # nobody is there to say yes
        erased = identity("sessions", "erase", "zoe", "--yes", *where)
        assert erased.stdout.startswith("erased: 2 sessions")
        gone = identity("sessions", "explain", kept.session_id, *where)
        assert (gone.returncode, "nothing is stored" in gone.stderr) == (1, True)


def test_every_ending_has_a_word_for_people() -> None:
    names = {name.removeprefix("SESSION_END_REASON_") for name in dict(sessions_pb2.SessionEndReason.items())}
    assert names == {*ENDINGS, "UNSPECIFIED"}


async def test_credentials_sessions_and_keys_survive_a_restart(
    start_dev: Any, tmp_path: Path, wait_until: Any
) -> None:
    from identity.cli.connection import basic_metadata

    tokens: list[Any] = []
    secrets = set()
    for _ in range(2):
        process = start_dev()
        content = await known(tmp_path, wait_until)
        secrets.add(content["client_secret"])
        metadata = basic_metadata(content["client_id"], content["client_secret"])
        async with grpc.aio.insecure_channel(content["grpc_target"]) as channel:
            stub = pb_grpc.IdentityServiceStub(channel)
            if not tokens:
                issued = await stub.IssueTokens(
                    pb.IssueTokensRequest(subject="alice", audience=["x-test"]), metadata=metadata
                )
                tokens.append(issued.tokens)
            refreshed = await stub.Refresh(
                pb.RefreshRequest(refresh_token=tokens[-1].refresh_token), metadata=metadata
            )
            tokens.append(refreshed.tokens)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 0, output
    assert len(secrets) == 1
    assert len({item.session_id for item in tokens}) == 1


async def test_after_a_kill_the_next_start_ends_the_orphaned_store_and_goes_on_with_its_data(
    start_dev: Any, tmp_path: Path, wait_until: Any
) -> None:
    process = start_dev()
    before = await known(tmp_path, wait_until)
    orphans = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=20)
    (tmp_path / "dev.json").unlink()
    assert any(orphan.is_running() for orphan in orphans)
    start_dev()
    after = await known(tmp_path, wait_until)
    assert after["client_secret"] == before["client_secret"]
    assert identity("demo", "--data-dir", str(tmp_path)).returncode == 0
    await wait_until(
        lambda: not any(orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE for orphan in orphans)
    )


async def test_dev_with_play_shows_the_main_job_and_then_what_runs_where(
    start_dev: Any, tmp_path: Path, wait_until: Any
) -> None:
    process = start_dev("--play")
    await known(tmp_path, wait_until)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    text = "".join(lines)
    for expected in (
        "REFRESH_TOKEN_REUSED",
        "FAMILY_REVOKED",
        "refresh.reuse_detected",
        "grpc-identity is ready",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serve",), "issuer: is required"),
        (("serve", "--set", "isuer=https://id.example"), "did you mean issuer?"),
        (("serve", "--set", "redis.ur=x", "--set", "issuer=https://a.b"), "did you mean redis.url?"),
        (("serve", "--set", "issuer=http://id.example"), "must be https"),
        (("serve", "--set", "issuer=https://id.example"), "keys.kek_file: is required"),
        (("serve", "--set", "issuer=https://id.example", "--set", "keys.file=a"), 'only with store = "file"'),
        (("demo", "--data-dir", "/nonexistent"), "start the service with `identity dev"),
        (("clients", "list", "--target", "127.0.0.1:1"), "set IDENTITY_CLIENT_ID"),
    ],
)
def test_what_goes_wrong_is_one_line_that_says_what_to_do(arguments: tuple[str, ...], message: str) -> None:
    done = identity(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_plain_text_beyond_loopback_has_to_be_allowed_aloud(tmp_path: Path) -> None:
    import base64

    kek = base64.b64encode(bytes(32)).decode()
    done = identity(
        "serve", "--set", "issuer=https://id.example", "--set", "grpc.listen=0.0.0.0:0",
        IDENTITY_KEYS__KEK=kek,
    )  # fmt: skip
    assert done.returncode == 1
    assert "refusing plain text on 0.0.0.0" in done.stderr
    assert kek not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "",
        "serve",
        "dev",
        "demo",
        "doctor",
        "clients",
        "clients create",
        "sessions",
        "sessions revoke",
        "sessions explain",
        "sessions erase",
        "keys",
        "keys list",
        "keys rotate",
        "keys revoke",
        "keys import",
        "verifiers",
        "config",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    done = identity(*command.split(), "--help")
    assert done.returncode == 0
    assert "Usage: identity" in done.stdout
