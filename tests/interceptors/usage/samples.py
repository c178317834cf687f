"""Records of uses, as a host makes them."""

from __future__ import annotations

from grpc_identity.clock import wall_clock
from grpc_identity.v1 import identity_service_pb2 as pb

NOW_MS = int(wall_clock() * 1000)


def record(name: str, at_ms: int = NOW_MS, *, user_agent: str = "") -> bytes:
    """A record that can be told from others."""
    return pb.UsageRecord(
        step=pb.USAGE_STEP_ENDED,
        occurred_at_ms=at_ms,
        method="/t.S/M",
        subject="alice",
        token_id="j",
        status_code="OK",
        session_id=name,
        user_agent=user_agent,
    ).SerializeToString()
