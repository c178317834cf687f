"""Verifiers that follow real servers, and clients that may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest_asyncio

from grpc_identity import Issuer, Verifier
from grpc_identity.v1 import clients_pb2, identity_service_pb2_grpc
from identity.app import Addresses, IdentityServer

VERIFY_POLICY = clients_pb2.ClientPolicy(grants=["GRANT_VERIFY", "GRANT_INTROSPECT"])


@pytest_asyncio.fixture
async def orders_client(service: Any) -> None:
    """The client as which verifiers authenticate."""
    await service.new_client("orders", VERIFY_POLICY)


@dataclass
class OtherServer:
    """Another server of the same store and keys, for the same clients."""

    server: IdentityServer
    addresses: Addresses
    channel: grpc.aio.Channel
    login: Any

    def __post_init__(self) -> None:
        self.identity = identity_service_pb2_grpc.IdentityServiceStub(self.channel)  # type: ignore[no-untyped-call]


@pytest_asyncio.fixture
async def second_service(service: Any, orders_client: None) -> AsyncIterator[OtherServer]:
    """A second server beside the service."""
    server = IdentityServer(service.settings)
    addresses = await server.start()
    channel = grpc.aio.insecure_channel(addresses.grpc_target)
    yield OtherServer(server, addresses, channel, service.login)
    await channel.close()
    await server.stop(0)


@pytest_asyncio.fixture
async def new_verifier(
    service: Any, orders_client: None
) -> AsyncIterator[Callable[..., Awaitable[Verifier]]]:
    """Starts verifiers that follow the service, or another server of the same store."""
    started: list[Verifier] = []

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
