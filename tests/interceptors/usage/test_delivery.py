"""How much of a spool is sent at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

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


def record(name: str) -> bytes:
    """A record of a call with a long user agent."""
    return pb.UsageRecord(
        step=pb.USAGE_STEP_ENDED,
        occurred_at_ms=int(wall_clock() * 1000),
        method="/t.S/M",
        subject="alice",
        token_id="j",
        status_code="OK",
        session_id=name,
        user_agent="a" * 500,
    ).SerializeToString()


class Counted:
    """Authenticates calls, and knows how many there were."""

    def __init__(self, secret: ClientSecret) -> None:
        self._secret = secret
        self.calls = 0

    def metadata(self) -> Any:
        self.calls += 1
        return self._secret.metadata()


async def test_a_service_that_takes_little_at_once_is_sent_that_without_pauses(
    make_settings: Any, start_service: Any, tmp_path: Path
) -> None:
    small = {"listen": "127.0.0.1:0", "max_message_bytes": SMALLEST_REQUEST}
    service = await start_service(make_settings(grpc=small))
    await service.new_client("orders", clients_pb2.ClientPolicy(grants=["GRANT_REPORT_USAGE"]))
    counted = Counted(ClientSecret("orders", service.secrets["orders"]))
    delivery = UsageDelivery(
        ChannelFactory(service.addresses.grpc_target),
        counted,
        UsageTally(),
        CircuitBreaker(monotonic=monotonic_clock),
        timeout_seconds=30.0,
        wait=lambda seconds: True,
        wall=wall_clock,
    )
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
