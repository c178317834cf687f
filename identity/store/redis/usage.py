"""``UsageOutbox`` on Redis or Valkey: the uses of a report, one script call a bucket.

A spool is recorded in the order of its numbers, so that one mark a bucket and spool tells what is recorded of it. The mark is
forgotten a day after the last report; what is reported again after that is in the outbox again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from identity.audit.event import Event, EventType
from identity.audit.ports import UsageReport, UsageTaken
from identity.store.redis import scripts
from identity.store.redis.connection import Argument
from identity.store.redis.keys import BucketKeys
from identity.store.redis.scripted import ScriptedStore, recording

MARK_LIVES_MS = 24 * 3600 * 1000


class RedisUsageOutbox(ScriptedStore):
    """The outbox of every bucket, as those see it who report uses."""

    async def record_uses(self, report: UsageReport) -> UsageTaken:
        """See ``UsageOutbox``."""
        by_bucket: dict[BucketKeys, list[tuple[int, Event]]] = defaultdict(list)
        for number, event in report.uses:
            # A loss has no subject: it goes where everything does that is about the client alone.
            by_bucket[self._keys.of_name(event.subject or report.reported_by)].append((number, event))
        taken = await asyncio.gather(
            *(self._record(report, bucket, uses) for bucket, uses in by_bucket.items())
        )
        return UsageTaken(*(sum(counts) for counts in zip(*taken, strict=True)))

    async def _record(
        self, report: UsageReport, bucket: BucketKeys, uses: Sequence[tuple[int, Event]]
    ) -> tuple[int, int, int, int]:
        arguments: list[Argument] = []
        for number, event in uses:
            arguments += _arguments(number, event)
        recorded, already, left = await self._connection.run(
            scripts.RECORD_USAGE,
            (*recording(bucket), bucket.usage_mark(report.reported_by, report.spool_id)),
            (*self._no_event(), MARK_LIVES_MS, *arguments),
            # Whoever reports forgets what is acknowledged, and can wait.
            max(self._refreshing, self._revoking),
        )
        new = (event for _, event in uses[already : already + recorded])
        lost = sum(event.circumstances.count for event in new if event.type is EventType.USES_LOST)
        return recorded, already, left, lost


def _arguments(number: int, event: Event) -> tuple[Argument, ...]:
    return (
        number,
        event.event_id.hex(),
        event.type.value,
        event.outcome.value,
        event.reason,
        event.subject,
        event.session_id,
        event.circumstances.serialised(),
    )
