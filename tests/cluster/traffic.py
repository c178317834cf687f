"""People who refresh without a pause, each with one session, repeating a call with its key until there is an answer.

What they hold against the service is counted: sessions that were lost (refused for any reason but that the store was away),
two successors of one token, and answers that were meant for somebody else.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from grpc_identity.claims import parse_claims
from grpc_identity.encoding import decode_base64url
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.clock import SystemClock
from identity.config import Settings
from identity.parts import StoreParts, key_service
from identity.tokens.refresh_token import RefreshTokenCodec

PAUSE_SECONDS = 0.02
MAX_ATTEMPTS = 1000
# A caller waits no longer than this before it asks again; the store has ``timeout_ms``.
DEADLINE_SECONDS = 10.0


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """What the service said, or the gRPC status where nothing arrived."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return info.reason
    return f"status {error.code().name}"


@dataclass
class Person:
    """Somebody with a session, and what was seen of it."""

    subject: str
    tokens: Any
    bucket: int
    generation: int = 0
    successors: dict[int, set[str]] = field(default_factory=dict)
    answered_at: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    lost: str = ""
    crossed: int = 0

    def longest_wait_seconds(self) -> float:
        """Between two answers."""
        return max((b - a for a, b in zip(self.answered_at, self.answered_at[1:], strict=False)), default=0.0)


class Traffic:
    """All of them, at several servers."""

    def __init__(self, fleet: Any, stubs: list[Any], pause_seconds: float = PAUSE_SECONDS) -> None:
        self._fleet = fleet
        self.stubs = stubs
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False
        self._pause_seconds = pause_seconds
        self._codec: RefreshTokenCodec
        self.people: list[Person] = []

    async def begin(self, people: int) -> None:
        settings = Settings(**self._fleet.settings)
        parts = StoreParts(settings)
        service = key_service(settings, SystemClock(), parts)
        await service.start()
        await parts.close()
        found = service.refresh_token_secrets()
        self._codec = RefreshTokenCodec(found.by_id, found.active_id)
        self.people = list(await asyncio.gather(*(self.sign_in(f"person-{n}") for n in range(people))))
        self._tasks = [asyncio.create_task(self._live(number)) for number in range(people)]

    async def sign_in(self, subject: str) -> Person:
        issue = pb.IssueTokensRequest(subject=subject, audience=["orders"])
        tokens = (await self.stubs[0].IssueTokens(issue, metadata=self._fleet.metadata)).tokens
        return Person(subject, tokens, self._fleet.keys.of_name(subject).index)

    async def sign_in_and_out(self, name: str) -> list[Person]:
        """People whose sessions are over, as they were told."""
        people = [await self.sign_in(f"{name}-{number}") for number in range(8)]
        revoke = [pb.RevokeRequest(session_id=person.tokens.session_id) for person in people]
        metadata = self._fleet.metadata
        await asyncio.gather(*(self.stubs[0].Revoke(request, metadata=metadata) for request in revoke))
        return people

    async def refusals_of(self, people: list[Person]) -> set[str]:
        """What they hear who come back, once the store is there for them."""
        return {await self._heard_by(person, number) for number, person in enumerate(people)}

    async def _heard_by(self, person: Person, number: int) -> str:
        refusal = ""
        for _ in range(MAX_ATTEMPTS):
            refusal = await self.refresh(person, "back", number)
            if refusal != "STORE_UNAVAILABLE":
                break
            await asyncio.sleep(PAUSE_SECONDS)
        return refusal

    async def refresh(self, person: Person, key: str, number: int = 0) -> str:
        """One call: empty when it was answered, or why not."""
        request = pb.RefreshRequest(refresh_token=person.tokens.refresh_token, idempotency_key=key)
        stub = self.stubs[number % len(self.stubs)]
        try:
            answer = await stub.Refresh(request, metadata=self._fleet.metadata, timeout=DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            return reason_of(error)
        claims = parse_claims(decode_base64url(answer.tokens.access_token.split(".")[1].encode()))
        person.crossed += claims.subject != person.subject
        person.crossed += answer.tokens.session_id != person.tokens.session_id
        person.successors.setdefault(person.generation, set()).add(answer.tokens.refresh_token)
        person.tokens = answer.tokens
        person.generation = self._codec.decode(answer.tokens.refresh_token).generation
        person.answered_at.append(time.monotonic())
        return ""

    async def end(self) -> None:
        """Lets everybody finish what they have begun."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    def answered(self) -> int:
        return sum(len(person.answered_at) for person in self.people)

    def refusals(self) -> Counter[str]:
        return sum((person.refusals for person in self.people), Counter())

    def figures(self) -> dict[str, int]:
        """What must all be zero."""
        return {
            "lost sessions": sum(bool(person.lost) for person in self.people),
            "double successors": sum(
                len(tokens) > 1 for person in self.people for tokens in person.successors.values()
            ),
            "cross-talk": sum(person.crossed for person in self.people),
        }

    async def count(self, event_type: str) -> int:
        """How often something was recorded of anybody."""
        events = [event for person in self.people for event in await self._fleet.events(person.subject)]
        return sum(event["type"] == event_type for event in events)

    async def check_records(self) -> None:
        """What was recorded of each session is one unbroken chain, and ends where its owner is."""
        for person in self.people:
            events = await self._fleet.events(person.subject)
            refreshed = [int(event["generation"]) for event in events if event["type"] == "tokens.refreshed"]
            assert refreshed == list(range(1, person.generation + 1)), person.subject
            assert {event["type"] for event in events} <= {
                "tokens.issued", "tokens.refreshed", "refresh.retry_answered",
            }  # fmt: skip

    async def _live(self, number: int) -> None:
        person, attempt, calls = self.people[number], 0, number
        while not self._is_over and not person.lost:
            attempt += 1
            while refusal := await self.refresh(person, f"{number}-{attempt}", calls):
                calls += 1
                person.refusals[refusal] += 1
                if refusal != "STORE_UNAVAILABLE":
                    person.lost = refusal
                    return
                await asyncio.sleep(PAUSE_SECONDS)
            calls += 1
            await asyncio.sleep(self._pause_seconds)
