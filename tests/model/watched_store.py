"""The store, as somebody sees it who looks between two steps: new events, counters, and copies to go back to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from identity.store.redis.keys import BucketKeys, KeySpace

Copy = dict[str, tuple[bytes, int]]


class WatchedStore:
    """Begins with empty outboxes."""

    def __init__(self, store: Any, keys: KeySpace) -> None:
        self._store = store
        self._buckets = keys.buckets
        for bucket in self._buckets:
            store.xtrim(bucket.outbox, maxlen=0)
        self._read_to = self._ends()

    def new_events(self) -> list[dict[str, str]]:
        """The events since the last look, in all buckets. Refusals are never counted instead of told: the count begins anew."""
        pipeline = self._store.pipeline(transaction=False)
        for bucket, end in zip(self._buckets, self._read_to, strict=True):
            pipeline.xrange(bucket.outbox, f"({end}")
        answers = pipeline.execute()
        found = []
        for number, entries in enumerate(answers):
            if entries:
                self._forget_counts(self._buckets[number])
            for entry_id, fields in entries:
                found.append({name.decode(): value.decode() for name, value in fields.items()})
                self._read_to[number] = entry_id.decode()
        return found

    def counters(self) -> list[int]:
        """How many events each bucket has had."""
        return [int(self._store.hget(bucket.ledger, "sequence") or 0) for bucket in self._buckets]

    def copy(self, keys: Iterable[str]) -> Copy:
        """What these keys hold."""
        return {
            key: (self._store.dump(key), max(self._store.pttl(key), 0))
            for key in keys
            if self._store.exists(key)
        }

    def go_back(self, copy: Copy, keys: Iterable[str]) -> None:
        """Has these keys hold what they held then."""
        for key in keys:
            if key in copy:
                dump, ttl_ms = copy[key]
                self._store.restore(key, ttl_ms, dump, replace=True)
            else:
                self._store.delete(key)
        self._read_to = self._ends()

    def _forget_counts(self, bucket: BucketKeys) -> None:
        counts = [field for field in self._store.hkeys(bucket.ledger) if field.startswith(b"fold ")]
        if counts:
            self._store.hdel(bucket.ledger, *counts)

    def _ends(self) -> list[str]:
        ends = []
        for bucket in self._buckets:
            last = self._store.xrevrange(bucket.outbox, count=1)
            ends.append(last[0][0].decode() if last else "0-0")
        return ends
