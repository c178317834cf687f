"""A service whose outbox is looked at, and sinks that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from grpc_identity.v1 import identity_service_pb2 as pb
from identity.audit.chain import ChainedEvent
from identity.audit.relay.relay import AuditRelay, RelayPace, SinkRelay
from identity.audit.sinks.ports import Delivered, Delivery, Undelivered


@dataclass
class ToldSink:
    """Takes what it is given, unless it is told otherwise."""

    name: str = "told"
    taken: list[ChainedEvent] = field(default_factory=list)
    answers: list[Delivery | BaseException] = field(default_factory=list)
    hangs: bool = False
    is_away: bool = False
    refuses: Callable[[ChainedEvent], bool] = lambda event: False
    says: str = "never"
    asked: int = 0

    async def deliver(self, events: Sequence[ChainedEvent]) -> Delivery:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_away:
            return Undelivered("away")
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            if isinstance(answer, Undelivered):
                return answer
        refused = {each.event.event_id: self.says for each in events if self.refuses(each)}
        self.taken += [each for each in events if each.event.event_id not in refused]
        return Delivered(refused)

    async def close(self) -> None:
        """Nothing to let go of."""

    def types(self) -> list[str]:
        return [each.event.type for each in self.taken]


@pytest.fixture(name="told_sink")
def told_sink_fixture() -> Callable[..., ToldSink]:
    return ToldSink


@pytest.fixture
def relay_of() -> Callable[..., AuditRelay]:
    """A relay of a service's outbox to these sinks, to be run by the test."""

    def make(service: Any, *sinks: Any, name: str = "one", batch: int = 100) -> AuditRelay:
        outbox = service.server.store.relay_outbox
        names = [sink.name for sink in sinks]
        pace = RelayPace(batch, 0.01)
        by_sink = [SinkRelay(outbox, sink, relay=name, sinks=names, pace=pace) for sink in sinks]
        return AuditRelay(outbox, by_sink, relay=name, buckets=service.settings.redis.buckets)

    return make


@pytest.fixture
def issue() -> Callable[..., Awaitable[Any]]:
    async def issue_tokens(service: Any, subject: str = "alice", **fields: Any) -> Any:
        request = pb.IssueTokensRequest(**({"subject": subject, "audience": ["orders"]} | fields))
        return (await service.identity.IssueTokens(request, metadata=service.login)).tokens

    return issue_tokens


@pytest.fixture
def waiting() -> Callable[..., Awaitable[int]]:
    """How many events are in the outbox."""

    async def count(service: Any, *sinks: str) -> int:
        return int((await service.server.store.outbox.backlog(sinks)).events)

    return count
