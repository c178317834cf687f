"""What the adapters of the session store have in common: the connection, the names of the keys, and what each script is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from identity.audit.event import Circumstances
from identity.errors import audit_unavailable
from identity.store.decisions import PresentedToken
from identity.store.redis.durability import Durability
from identity.store.redis.keys import BucketKeys, KeySpace
from identity.store.redis.topology import StoreConnection

__all__ = [
    "ScriptContext",
    "ScriptedStore",
    "StoreClock",
    "raise_if_full",
    "recording",
    "session_id_of",
]


@dataclass(slots=True)
class StoreClock:
    """The store's own clock, but in tests: ``offset_ms`` travels in time, ``frozen_at_ms`` stops it."""

    offset_ms: int = 0
    frozen_at_ms: int | None = None

    def as_argument(self) -> int | str:
        """As the prelude of the scripts takes it."""
        return self.offset_ms if self.frozen_at_ms is None else f"={self.frozen_at_ms}"


@dataclass(frozen=True, slots=True)
class ScriptContext:
    """What every script is called with."""

    connection: StoreConnection
    keys: KeySpace
    outbox_bound: str
    clock: StoreClock = field(default_factory=StoreClock)
    refreshing: Durability = Durability.NONE
    revoking: Durability = Durability.NONE


class ScriptedStore:
    """The base of the adapters; each decision of theirs is one script in one slot."""

    def __init__(self, context: ScriptContext) -> None:
        self._connection = context.connection
        self._keys = context.keys
        self._outbox_bound = context.outbox_bound
        self._clock = context.clock
        self._refreshing = context.refreshing
        self._revoking = context.revoking

    def _event(self, event_id: bytes, circumstances: Circumstances) -> tuple[str, str, str, int | str]:
        return (
            event_id.hex(),
            circumstances.serialised(),
            self._outbox_bound,
            self._clock.as_argument(),
        )

    def _no_event(self) -> tuple[str, str, str, int | str]:
        """In its place, for a script that records none, or brings those that it records itself."""
        return ("", "", self._outbox_bound, self._clock.as_argument())

    def _bucket_of_token(self, token: PresentedToken) -> BucketKeys:
        return self._keys.of_tag(token.subject_tag)

    async def _now_ms(self, bucket: BucketKeys) -> int:
        """By the server that decides in this bucket."""
        if self._clock.frozen_at_ms is not None:
            return self._clock.frozen_at_ms
        seconds, microseconds = await self._connection.command("TIME", key=bucket.ledger)
        return int(seconds) * 1000 + int(microseconds) // 1000 + self._clock.offset_ms


def recording(bucket: BucketKeys) -> tuple[str, str]:
    """The keys of every script that records."""
    return (bucket.outbox, bucket.ledger)


def session_id_of(token: PresentedToken) -> str:
    """The session it belongs to; empty where it belongs to none."""
    return str(token.family) if token.family else ""


def raise_if_full(answer: object) -> None:
    """Raises ``AUDIT_UNAVAILABLE`` where not even a revocation could be recorded."""
    if answer == b"OUTBOX_FULL":
        raise audit_unavailable()
