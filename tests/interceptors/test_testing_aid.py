"""What the package brings for the tests of others: the documented example as it is written, and what it costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from grpc_identity import Policy, UsageAudit, Verifier
from grpc_identity.testing import InMemoryUsage

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
COST = """
import sys
import grpc_identity.testing.pytest_plugin
print([name for name in ("grpc", "grpc_identity.testing.issuer", "grpc_identity.verifier") if name in sys.modules])
"""


def test_the_documented_tests_of_a_service_pass_as_they_are_written(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/testing.md").read_text(), re.DOTALL)
    (tmp_path / "test_orders.py").write_text(example)
    (tmp_path / "pytest.ini").write_text(CONFIGURATION)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert int(re.findall(r"(\d+) passed", ran.stdout)[0]) >= 15


def test_the_fixtures_are_found_without_being_asked_for() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "--fixtures", "-q", str(Path(__file__))],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in (
        "identity_issuer",
        "identity_verifier",
        "identity_metadata",
        "identity_audience",
        "identity_usage",
    ):
        assert name in ran.stdout


@pytest.mark.parametrize("audit", [UsageAudit.USE, UsageAudit.MUST])
async def test_uses_are_asserted_without_a_server(
    identity_verifier: Verifier,
    identity_usage: InMemoryUsage,
    identity_metadata: Any,
    serve: Any,
    audit: UsageAudit,
) -> None:
    async def echo(request: bytes, context: Any) -> bytes:
        return request

    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    policy = Policy().require("/t.S/Echo", audit=audit)
    target = await serve("aio", handlers, identity_verifier, policy, usage=identity_usage)
    async with grpc.aio.insecure_channel(target) as channel:
        await channel.unary_unary("/t.S/Echo")(b"", metadata=identity_metadata(subject="alice"))
    assert [(use.subject, use.status_code) for use in identity_usage.used] == [("alice", "OK")]
    assert len(identity_usage.begun) == (audit is UsageAudit.MUST)


def test_the_plugin_loads_nothing_until_a_fixture_is_used() -> None:
    ran = subprocess.run([sys.executable, "-c", COST], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
