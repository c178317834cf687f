"""Verifiers that follow real servers, and clients that may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio

from grpc_identity import Issuer, Verifier
from grpc_identity.v1 import clients_pb2

VERIFY_POLICY = clients_pb2.ClientPolicy(grants=["GRANT_VERIFY", "GRANT_INTROSPECT"])


@pytest_asyncio.fixture
async def new_verifier(service: Any) -> AsyncIterator[Callable[..., Awaitable[Verifier]]]:
    """Starts verifiers that follow the service, or another server of the same store."""
    started: list[Verifier] = []
    await service.new_client("orders", VERIFY_POLICY)

    async def start(*, at: Any = None, **options: Any) -> Verifier:
        verifier = Verifier(
            Issuer(
                "https://id.example",
                target=(at or service).addresses.grpc_target,
                audience="orders",
                client_id="orders",
                client_secret=service.secrets["orders"],
            ),
            **options,
        )
        await asyncio.to_thread(verifier.start)
        started.append(verifier)
        return verifier

    yield start
    for verifier in started:
        await asyncio.to_thread(verifier.close)
