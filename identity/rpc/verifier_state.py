"""``WatchVerifierState``: one stream a verifier, served from memory.

A verifier that is slow gets more at once, and never makes the server keep anything for it. While the server itself
does not know whether there are news, it says nothing at all: that is what heartbeats are for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from google.protobuf.duration_pb2 import Duration

from grpc_identity.v1 import identity_service_pb2 as service_pb2
from identity.errors import IdentityError, Reason, field_invalid
from identity.rpc import validation
from identity.rpc.keys import PublishesKeys, jwks_response
from identity.sessions.caller import Caller
from identity.verifiers.feed import VerifierFeed
from identity.verifiers.position import Position
from identity.verifiers.revocations import Revocation, RevokedThing
from identity.verifiers.roster import ConnectedVerifier, Roster

HEARTBEAT_SECONDS = 2
FIRST_REPORT_SECONDS = 10.0
MAX_VERIFIERS = 10_000
MAX_REVOCATIONS_A_MESSAGE = 5_000
_HEARTBEAT = Duration(seconds=HEARTBEAT_SECONDS)

_Reports: TypeAlias = AsyncIterator[service_pb2.WatchVerifierStateRequest]


@dataclass(frozen=True, slots=True)
class VerifierWatch:
    """The method of the proto."""

    feed: VerifierFeed
    roster: Roster
    keys: PublishesKeys

    async def __call__(
        self, caller: Caller, reports: _Reports
    ) -> AsyncIterator[service_pb2.WatchVerifierStateResponse]:
        """The stream of one verifier. Ends when either side ends."""
        if len(self.roster) >= MAX_VERIFIERS:
            raise IdentityError(
                Reason.RATE_LIMITED, "Too many verifiers are connected here.", retry_after_seconds=10.0
            )
        first = await _first(reports)
        verifier = self.roster.join(caller.client_id, first.verifier_id, first.verifier_version)
        reading = asyncio.create_task(self._read(reports, verifier))
        try:
            async for message in self._messages(Position.parse(first.applied_position), reading):
                yield message
            if reading.done():
                reading.result()
        finally:
            reading.cancel()
            self.roster.leave(verifier, said_goodbye=_said_goodbye(reading) or self.feed.closing)

    async def _messages(
        self, resumed: Position | None, reading: asyncio.Task[bool]
    ) -> AsyncIterator[service_pb2.WatchVerifierStateResponse]:
        told_number, told_keys = None, ""
        while not self.feed.closing and not reading.done():
            changed = asyncio.create_task(self.feed.changed.wait())
            try:
                if self.feed.is_current:
                    position, published = self.feed.position, self.keys.published()
                    for message in _step(
                        self._news(told_number, resumed),
                        str(position),
                        None if published.version == told_keys else jwks_response(published),
                        is_snapshot=told_number is None and not self._can_resume(resumed),
                    ):
                        yield message
                    told_number, told_keys = position.number, published.version
                await asyncio.wait(
                    (changed, reading), timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                changed.cancel()

    def _news(self, told_number: int | None, resumed: Position | None) -> Sequence[Revocation]:
        if told_number is not None:
            return list(self.feed.log.after(told_number))
        if resumed is not None and self._can_resume(resumed):
            return self.feed.log.beyond(resumed.places)
        return list(self.feed.log.after(0))

    def _can_resume(self, resumed: Position | None) -> bool:
        return resumed is not None and self.feed.can_resume(resumed)

    async def _read(self, reports: _Reports, verifier: ConnectedVerifier) -> bool:
        """Takes in what the verifier reports; whether it has said goodbye."""
        async for report in reports:
            validation.verifier_report(report)
            position = Position.parse(report.applied_position)
            if position is not None and position.instance_id == self.feed.instance_id:
                self.roster.report(
                    verifier,
                    number=min(position.number, self.feed.log.last_number),
                    position=report.applied_position,
                    held_kids=report.held_kids,
                )
            if report.goodbye:
                return True
        return False


async def _first(reports: _Reports) -> service_pb2.WatchVerifierStateRequest:
    try:
        async with asyncio.timeout(FIRST_REPORT_SECONDS):
            return validation.verifier_report(await anext(reports))
    except (TimeoutError, StopAsyncIteration):
        raise field_invalid("verifier_id", "is required, in a first message sent at once") from None


def _said_goodbye(reading: asyncio.Task[bool]) -> bool:
    return reading.done() and not reading.cancelled() and reading.exception() is None and reading.result()


def _step(
    revocations: Sequence[Revocation],
    position: str,
    jwks: service_pb2.GetJWKSResponse | None,
    *,
    is_snapshot: bool,
) -> Iterator[service_pb2.WatchVerifierStateResponse]:
    """One step of the feed, in as many messages as its size asks for."""
    entries = _merged(revocations)
    chunks = [
        entries[start : start + MAX_REVOCATIONS_A_MESSAGE]
        for start in range(0, len(entries) or 1, MAX_REVOCATIONS_A_MESSAGE)
    ]
    for place, chunk in enumerate(chunks):
        yield service_pb2.WatchVerifierStateResponse(
            position=position if place == len(chunks) - 1 else "",
            snapshot=is_snapshot,
            jwks=jwks if place == 0 else None,
            revocations=chunk,
            heartbeat_interval=_HEARTBEAT,
        )


def _merged(revocations: Sequence[Revocation]) -> Sequence[service_pb2.VerifierRevocation]:
    """One message for each thing that is revoked; a client's cut-offs of all buckets go into one."""
    merged: dict[tuple[RevokedThing, str], service_pb2.VerifierRevocation] = {}
    for entry in revocations:
        message = merged.setdefault((entry.thing, entry.name), _of(entry))
        if entry.thing in {RevokedThing.SUBJECT, RevokedThing.CLIENT}:
            known = message.up_to_sequence[entry.bucket]
            message.up_to_sequence[entry.bucket] = max(known, entry.place.sequence)
        message.forget_at.FromMilliseconds(max(entry.forget_at_ms, message.forget_at.ToMilliseconds()))
    return list(merged.values())


def _of(entry: Revocation) -> service_pb2.VerifierRevocation:
    match entry.thing:
        case RevokedThing.SESSION:
            return service_pb2.VerifierRevocation(session_id=entry.name)
        case RevokedThing.TOKEN:
            return service_pb2.VerifierRevocation(token_id=entry.name)
        case RevokedThing.SUBJECT:
            return service_pb2.VerifierRevocation(subject=entry.name)
        case RevokedThing.CLIENT:
            return service_pb2.VerifierRevocation(client_id=entry.name)
        case _:
            assert_never(entry.thing)
