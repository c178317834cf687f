"""A Phoenix that all tests share, and a service whose audit goes there."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from phoenix.server import PROJECT, Phoenix, started


@pytest.fixture(scope="session")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    """One that runs already, or one of its own; skips where nobody has said which program to start."""
    if url := os.environ.get("PHOENIX_URL"):
        yield Phoenix(url, os.environ.get("PHOENIX_GRPC_URL", "http://127.0.0.1:4317"))
        return
    program = os.environ.get("PHOENIX_PROGRAM")
    if not program:
        pytest.skip("needs Phoenix, which `make phoenix` installs and names")
    with started(program, tmp_path_factory.mktemp("phoenix")) as server:
        yield server


@pytest.fixture
def audited_service(
    phoenix: Phoenix,
    make_settings: Any,
    start_service: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., Awaitable[Any]]:
    """Starts a service whose relay sends spans to Phoenix, by this protocol, and lines to a file beside that."""

    async def start(protocol: str, project: str = PROJECT) -> Any:
        for name in [name for name in os.environ if name.startswith("OTEL_")]:
            monkeypatch.delenv(name)
        endpoint = phoenix.grpc_url if protocol == "grpc" else phoenix.url
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        # Phoenix files spans by project; the caller's and the audit's have to be in the same one.
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"openinference.project.name={project}")
        audit = {
            "relay": True,
            "relay_poll_ms": 10,
            "sinks": "otlp,file",
            "otlp_logs": False,
            "file_path": tmp_path / "audit.jsonl",
        }
        return await start_service(make_settings(audit=audit))

    return start
