"""Uses of tokens on other servers, as those report them.

What a report says is the word of the client that reports it, and nothing of it is proved: whoever may report can say that any
subject has used any token. So a record says who says it (``reported_by``), and nothing is decided by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from identity.audit.event import Circumstances, EndUser, Event, EventType, Outcome
from identity.audit.ports import UsageOutbox, UsageReport, UsageTaken
from identity.audit.recorded_event import timestamp
from identity.clients.policy import Grant, require_grant
from identity.errors import audit_unavailable
from identity.sessions.caller import Caller

OK = "OK"
REPORTED_ID_BYTES = 16
"""More than other events have: who reports chooses what is hashed, and finds two that begin with the same ten bytes."""


@dataclass(frozen=True, slots=True)
class ReportedUse:
    """One use, or its beginning, as it is reported. ``number`` is its place in its spool; ``as_reported`` is all that was sent."""

    number: int
    as_reported: bytes
    is_begun: bool
    occurred_at_ms: int
    method: str
    subject: str
    session_id: str
    token_id: str
    client_id: str
    issuer: str
    end_user: EndUser
    status_code: str
    reason: str
    traceparent: str


@dataclass(frozen=True, slots=True)
class ReportedLoss:
    """Records of uses that a host could not keep: how many, the first and the last of them when. ``number`` and
    ``as_reported`` as with uses."""

    number: int
    as_reported: bytes
    records: int
    since_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class RecordUsage:
    """The use case. ``issuer`` is this service; ``count_lost`` is told of records that others say are missing."""

    outbox: UsageOutbox
    issuer: str
    count_lost: Callable[[int], None]

    async def __call__(
        self, caller: Caller, spool_id: bytes, reported: tuple[ReportedUse | ReportedLoss, ...]
    ) -> UsageTaken:
        """Records them, each once. Raises ``GRANT_MISSING`` and ``AUDIT_UNAVAILABLE``."""
        require_grant(caller.policy, Grant.REPORT_USAGE)
        events = [
            (
                item.number,
                self._lost(caller, spool_id, item)
                if isinstance(item, ReportedLoss)
                else self._event(caller, spool_id, item),
            )
            for item in reported
        ]
        taken = await self.outbox.record_uses(UsageReport(caller.client_id, spool_id, events))
        self.count_lost(taken.lost)
        if taken.left:
            raise audit_unavailable()
        return taken

    def _event(self, caller: Caller, spool_id: bytes, use: ReportedUse) -> Event:
        is_foreign = use.issuer not in {"", self.issuer}
        circumstances = Circumstances(
            use.client_id,
            use.method,
            use.end_user,
            use.traceparent,
            detail=f"a token of {use.issuer}" if is_foreign else "",
            token_id=use.token_id,
            reported_by=caller.client_id,
            status_code=use.status_code,
            occurred_at_ms=use.occurred_at_ms,
        )
        return Event(
            EventType.TOKEN_USE_BEGUN if use.is_begun else EventType.TOKEN_USED,
            _outcome(use),
            circumstances,
            use.reason,
            use.subject,
            use.session_id,
            event_id_of(caller.client_id, spool_id, use.as_reported),
        )

    @staticmethod
    def _lost(caller: Caller, spool_id: bytes, lost: ReportedLoss) -> Event:
        circumstances = replace(
            caller.circumstances,
            detail=f"between {timestamp(lost.since_ms)} and {timestamp(lost.until_ms)}",
            count=lost.records,
            reported_by=caller.client_id,
            occurred_at_ms=lost.until_ms,
        )
        event_id = event_id_of(caller.client_id, spool_id, lost.as_reported)
        return Event(EventType.USES_LOST, Outcome.REFUSED, circumstances, event_id=event_id)


def event_id_of(reported_by: str, spool_id: bytes, as_reported: bytes) -> bytes:
    """The same however often the record is reported, and another for anything else: for what says otherwise under the same number,
    so that it takes no place of what was recorded before, and for what another client reports."""
    named = b"\0".join((reported_by.encode(), spool_id, as_reported))
    return hashlib.sha256(named).digest()[:REPORTED_ID_BYTES]


def _outcome(use: ReportedUse) -> Outcome:
    if use.is_begun:
        return Outcome.BEGUN
    return Outcome.SUCCESS if use.status_code == OK else Outcome.REFUSED
