"""How much of a spool is sent at once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from interceptors.usage import samples

from grpc_identity.channels import ChannelFactory
from grpc_identity.circuit_breaker import CircuitBreaker
from grpc_identity.clock import monotonic_clock, wall_clock
from grpc_identity.token_grants import ClientSecret
from grpc_identity.usage.delivery import MAX_BATCH_RECORDS, UsageDelivery
from grpc_identity.usage.frames import FRAME_BYTES
from grpc_identity.usage.spool_directory import SpoolDirectory
from grpc_identity.usage.tally import UsageTally
from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb

SMALLEST_REQUEST = 4096
RECORDS = 200

record = functools.partial(samples.record, user_agent="a" * 500)


class Counted:
    """Authenticates calls, and knows how many there were."""

    def __init__(self, secret: ClientSecret) -> None:
        self._secret = secret
        self.calls = 0

    def metadata(self) -> Any:
        self.calls += 1
        return self._secret.metadata()


def delivery_to(target: str, authentication: Any, *, wait: Callable[[float], bool]) -> UsageDelivery:
    return UsageDelivery(
        ChannelFactory(target),
        authentication,
        UsageTally(),
        CircuitBreaker(monotonic=monotonic_clock),
        timeout_seconds=30.0,
        wait=wait,
        wall=wall_clock,
    )


async def test_a_service_that_takes_little_at_once_is_sent_that_without_pauses(
    make_settings: Any, start_service: Any, tmp_path: Path
) -> None:
    small = {"listen": "127.0.0.1:0", "max_message_bytes": SMALLEST_REQUEST}
    service = await start_service(make_settings(grpc=small))
    await service.new_client("orders", clients_pb2.ClientPolicy(grants=["GRANT_REPORT_USAGE"]))
    counted = Counted(ClientSecret("orders", service.secrets["orders"]))
    delivery = delivery_to(service.addresses.grpc_target, counted, wait=lambda seconds: True)
    spool = SpoolDirectory(tmp_path / "usage").create(size_bytes=1 << 20)
    for n in range(RECORDS):
        assert spool.append(record(f"s{n:03}"))
    assert await asyncio.to_thread(delivery.deliver, spool, leave=MAX_BATCH_RECORDS)
    at_once = SMALLEST_REQUEST // (FRAME_BYTES + len(record("s000")))
    # Who delivers pauses now, until there are more; what is left must be less than goes at once.
    assert spool.waiting <= at_once
    # What was too much is not tried at every other turn.
    assert counted.calls <= 2 * RECORDS / at_once
    delivery.close()
    spool.close()


@pytest.mark.parametrize(
    "details", [(), (("grpc-status-details-bin", b"\xff\xff"),)], ids=["none", "unreadable"]
)
def test_who_is_overloaded_before_the_service_costs_no_record(tmp_path: Path, details: Any) -> None:
    """A balancer may answer with the code that gRPC has for requests that are too large, and with details that are none."""
    taken: list[Any] = []

    def record_usage(request: bytes, context: Any) -> bytes:
        if not waits:
            context.set_trailing_metadata(details)
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests")
        taken.extend(record.session_id for record in pb.RecordUsageRequest.FromString(request).records)
        return b""

    waits: list[float] = []
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    handlers = {"RecordUsage": grpc.unary_unary_rpc_method_handler(record_usage)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc_identity.v1.IdentityService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    # What `append` returns says: go on.
    delivery = delivery_to(
        f"127.0.0.1:{port}", ClientSecret("orders", "s3cret"), wait=lambda s: bool(waits.append(s))
    )
    spool = SpoolDirectory(tmp_path / "usage").create(size_bytes=1 << 20)
    assert spool.append(record("s1"))
    assert delivery.deliver(spool)
    assert (taken, spool.waiting) == (["s1"], 0)
    delivery.close()
    spool.close()
    server.stop(None)
