"""Recorders that report to a real service."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest_asyncio

from grpc_identity import UsageRecorder
from grpc_identity.v1 import clients_pb2

REPORTER = clients_pb2.ClientPolicy(grants=["GRANT_REPORT_USAGE"])


@pytest_asyncio.fixture
async def recorder_of(service: Any, tmp_path: Path) -> Any:
    """Recorders that report to the service as `orders`."""
    await service.new_client("orders", REPORTER)
    made: list[UsageRecorder] = []

    def make(**options: Any) -> UsageRecorder:
        known = {
            "client_id": "orders",
            "client_secret": service.secrets["orders"],
            "directory": tmp_path / "usage",
            "linger_seconds": 0.01,
        }
        recorder = UsageRecorder(options.pop("target", service.addresses.grpc_target), **(known | options))
        made.append(recorder)
        return recorder

    yield make
    for recorder in made:
        await asyncio.to_thread(recorder.close, flush_seconds=0.1)
