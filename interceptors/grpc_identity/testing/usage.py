"""Uses of tokens in memory, so that the tests of a service can assert them.

>>> from grpc_identity import Policy, UsageAudit, Verifier
>>> from grpc_identity.sync import AuthInterceptor
>>> from grpc_identity.testing import InMemoryIssuer, InMemoryUsage
>>> usage = InMemoryUsage()
>>> policy = Policy().require("/shop.v1.Orders/Refund", audit=UsageAudit.MUST)
>>> interceptor = AuthInterceptor(Verifier(InMemoryIssuer(audience="orders").trusted()), policy, usage=usage)
>>> usage.used
[]
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from grpc_identity.v1 import identity_service_pb2 as pb

__all__ = ["InMemoryUsage", "RecordedUse"]


@dataclass(frozen=True, slots=True)
class RecordedUse:
    """One record: that a use has begun, or how it ended. ``status_code``: ``OK``, ``NOT_FOUND``, …; empty when begun."""

    is_begun: bool
    occurred_at: datetime
    method: str
    subject: str
    session_id: str
    token_id: str
    client_id: str
    issuer: str
    ip_address: str
    user_agent: str
    status_code: str
    reason: str
    traceparent: str


class InMemoryUsage:
    """A ``UsageSink`` that keeps everything. With ``is_full`` it takes nothing, as a full spool."""

    def __init__(self) -> None:
        self.records: list[RecordedUse] = []
        self.is_full = False

    @property
    def begun(self) -> list[RecordedUse]:
        """Uses that have begun, oldest first; of methods that say ``MUST``, and of streams."""
        return [record for record in self.records if record.is_begun]

    @property
    def used(self) -> list[RecordedUse]:
        """Uses that have ended, oldest first."""
        return [record for record in self.records if not record.is_begun]

    def put(self, record: bytes, *, keep_bytes: int = 0, kept_bytes: int = 0) -> bool:
        """See ``UsageSink``."""
        del keep_bytes
        if self.is_full and not kept_bytes:
            return False
        read = pb.UsageRecord.FromString(record)
        self.records.append(
            RecordedUse(
                is_begun=read.step == pb.USAGE_STEP_BEGUN,
                occurred_at=datetime.fromtimestamp(read.occurred_at_ms / 1000, UTC),
                method=read.method,
                subject=read.subject,
                session_id=read.session_id,
                token_id=read.token_id,
                client_id=read.client_id,
                issuer=read.issuer,
                ip_address=read.ip_address,
                user_agent=read.user_agent,
                status_code=read.status_code,
                reason=read.reason,
                traceparent=read.traceparent,
            )
        )
        return True
