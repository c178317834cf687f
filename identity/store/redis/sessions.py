"""``SessionStore`` on Redis or Valkey: each decision is one script in one slot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from identity.audit.event import Circumstances, EndUser, EventType
from identity.errors import audit_unavailable
from identity.store.ports import (
    SPEND_SUCCEEDED,
    Exchanged,
    ExchangeVerdict,
    FamilyState,
    IdempotentIssue,
    NewFamily,
    PresentedToken,
    RevokeVerdict,
    ServiceGrant,
    Spend,
    SpendVerdict,
    Spent,
    Started,
    StartVerdict,
)
from identity.store.redis import scripts
from identity.store.redis.connection import BatchingConnection
from identity.store.redis.keys import BucketKeys, KeySpace
from identity.tokens.access_token import serialised_roles, with_roles
from identity.tokens.family_id import FamilyId, SubjectTag, subject_tag
from identity.tokens.lifetimes import MAX_SESSION_SECONDS, ClientKind

# How long an ended family can still be told from an unknown one.
TOMBSTONE_MS = 24 * 3600 * 1000
CUT_OFF_MS = MAX_SESSION_SECONDS * 1000 + TOMBSTONE_MS
MAX_FAST_FORWARD = 64
MAX_LISTED_SESSIONS = 1000

_STATE_FIELDS = (
    "secret", "subject", "client", "kind", "generation", "created", "used",
    "expiry", "idle", "scope", "audience", "user", "sequence", "revoked",
)  # fmt: skip


class RedisSessionStore:
    """Families, cut-offs and denied tokens. ``clock_offset_ms`` is for tests that travel in time."""

    def __init__(
        self,
        connection: BatchingConnection,
        keys: KeySpace,
        *,
        outbox_max_events: int,
        clock_offset_ms: int = 0,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._outbox_max_events = outbox_max_events
        self.clock_offset_ms = clock_offset_ms

    async def start_family(
        self,
        new: NewFamily,
        event_id: bytes,
        circumstances: Circumstances,
        idempotent: IdempotentIssue | None,
    ) -> Started:
        """See ``SessionStore``."""
        bucket = self._keys.of_family(new.family)
        family_key = bucket.family(new.family)
        keys = (
            *_recording(bucket),
            family_key,
            bucket.families(new.family.subject_tag),
            bucket.client(new.client_id),
            bucket.idempotency(idempotent.key_digest) if idempotent else family_key,
            bucket.subject(new.family.subject_tag),
        )
        answer = await self._connection.run(
            scripts.START_FAMILY,
            keys,
            (
                *self._event(event_id, circumstances),
                str(new.family),
                new.family_secret_hash,
                new.subject,
                new.client_id,
                new.client_kind.value,
                new.lifetime.absolute_seconds * 1000,
                new.lifetime.idle_seconds * 1000,
                new.session_claims,
                " ".join(new.audience),
                " ".join(new.scopes),
                new.end_user.serialised(),
                TOMBSTONE_MS,
                idempotent.request_digest if idempotent else b"",
                idempotent.sealed if idempotent else b"",
                idempotent.window_seconds * 1000 if idempotent else 0,
                MAX_LISTED_SESSIONS,
                new.roles,
            ),
        )
        return Started(StartVerdict(answer[0].decode()), *answer[1:])

    async def grant_service_token(
        self, client_id: str, event_id: bytes, circumstances: Circumstances
    ) -> ServiceGrant:
        """See ``SessionStore``."""
        bucket = self._keys.of_name(client_id)
        answer = await self._connection.run(
            scripts.GRANT_SERVICE_TOKEN,
            (*_recording(bucket), bucket.client(client_id)),
            (*self._event(event_id, circumstances), client_id),
        )
        return ServiceGrant(StartVerdict(answer[0].decode()), *answer[1:])

    async def exchange_token(
        self, presented: PresentedToken, client_id: str, event_id: bytes, circumstances: Circumstances
    ) -> Exchanged:
        """See ``SessionStore``."""
        bucket = self._bucket_of_token(presented)
        denied = bucket.denied_token(str(presented.token_id))
        answer = await self._connection.run(
            scripts.EXCHANGE_TOKEN,
            (
                *_recording(bucket),
                denied,
                bucket.family(presented.family) if presented.family else denied,
                bucket.subject(_tag_of(presented)),
                bucket.client(presented.client_id),
                bucket.client(client_id),
            ),
            (
                *self._event(event_id, circumstances),
                presented.subject,
                _session_id(presented),
                presented.token_id.sequence,
                presented.expires_at_seconds,
            ),
        )
        return Exchanged(ExchangeVerdict(answer[0].decode()), *answer[1:])

    async def spend(self, spend: Spend, event_id: bytes, circumstances: Circumstances) -> Spent:
        """See ``SessionStore``."""
        bucket = self._keys.of_family(spend.family)
        family_key = bucket.family(spend.family)
        address = spend.end_user.ip_address
        answer = await self._connection.run(
            scripts.SPEND,
            (
                *_recording(bucket),
                family_key,
                bucket.subject(spend.family.subject_tag),
                bucket.client(spend.client_id),
                bucket.address(address) if address else family_key,
                bucket.revocations,
            ),
            (
                *self._event(event_id, circumstances),
                str(spend.family),
                spend.generation,
                spend.family_secret_hash,
                spend.client_id,
                spend.idempotency_key_digest,
                spend.retry_window_ms,
                spend.leeway_ms,
                " ".join(spend.scopes),
                " ".join(spend.audience),
                spend.end_user.serialised(),
                spend.limits.per_family,
                spend.limits.address_successes,
                spend.limits.address_failures,
                MAX_FAST_FORWARD,
            ),
        )
        verdict = SpendVerdict(answer[0].decode())
        if verdict not in SPEND_SUCCEEDED:
            return Spent(verdict, *answer[1:3])
        now_ms, retry_after_ms, sequence, generation, expiry_ms, idle_ms = answer[1:7]
        claims, roles, scope, audience = (text.decode() for text in answer[7:11])
        return Spent(
            verdict,
            now_ms,
            retry_after_ms,
            sequence,
            generation,
            expiry_ms,
            idle_ms,
            with_roles(claims, roles),
            scope,
            audience,
        )

    async def revoke_family(
        self,
        family: FamilyId,
        *,
        only_client_id: str | None,
        cause: str,
        event_id: bytes,
        circumstances: Circumstances,
    ) -> RevokeVerdict:
        """See ``SessionStore``."""
        bucket = self._keys.of_family(family)
        answer = await self._connection.run(
            scripts.REVOKE_FAMILY,
            (*_recording(bucket), bucket.family(family), bucket.revocations),
            (*self._event(event_id, circumstances), str(family), only_client_id or "", cause),
        )
        _raise_if_full(answer)
        return RevokeVerdict(answer.decode())

    async def revoke_access_token(
        self,
        token: PresentedToken,
        *,
        event_id: bytes,
        circumstances: Circumstances,
    ) -> RevokeVerdict:
        """See ``SessionStore``."""
        bucket = self._bucket_of_token(token)
        answer = await self._connection.run(
            scripts.REVOKE_ACCESS_TOKEN,
            (*_recording(bucket), bucket.denied_token(str(token.token_id)), bucket.revocations),
            (*self._event(event_id, circumstances), _session_id(token), str(token.token_id)),
        )
        _raise_if_full(answer)
        return RevokeVerdict(answer.decode())

    async def revoke_subject(
        self, subject: str, *, cause: str, event_id: bytes, circumstances: Circumstances
    ) -> None:
        """See ``SessionStore``."""
        event_type = EventType.SUBJECT_REVOKED
        await self._cut_off_subject(subject, event_type, "sessions", cause, event_id, circumstances)

    async def revoke_access_tokens(
        self,
        subject: str,
        *,
        new_roles: Sequence[str] | None,
        cause: str,
        event_id: bytes,
        circumstances: Circumstances,
    ) -> None:
        """See ``SessionStore``."""
        roles = "" if new_roles is None else serialised_roles(new_roles)
        event_type = EventType.SUBJECT_ACCESS_TOKENS_REVOKED
        await self._cut_off_subject(
            subject, event_type, "access_tokens", cause, event_id, circumstances, roles
        )

    async def _cut_off_subject(
        self,
        subject: str,
        event_type: EventType,
        what: str,
        cause: str,
        event_id: bytes,
        circumstances: Circumstances,
        roles: str = "",
    ) -> None:
        bucket = self._keys.of_name(subject)
        answer = await self._connection.run(
            scripts.CUT_OFF,
            (*_recording(bucket), bucket.subject(subject_tag(subject)), bucket.revocations),
            (
                *self._event(event_id, circumstances),
                event_type.value,
                subject,
                cause,
                CUT_OFF_MS,
                "",
                what,
                subject,
                roles,
            ),
        )
        _raise_if_full(answer)

    async def revoke_client(
        self,
        client_id: str,
        *,
        cause: str,
        event_id: bytes,
        circumstances: Circumstances,
        disable: bool | None,
    ) -> None:
        """See ``SessionStore``. The client's own bucket records the event, after all others hold the cut-off."""
        own = self._keys.of_name(client_id)
        event = self._event(event_id, circumstances)
        flag = "" if disable is None else str(int(disable))

        async def cut_off(bucket: BucketKeys, event_type: str) -> None:
            keys = (*_recording(bucket), bucket.client(client_id), bucket.revocations)
            answer = await self._connection.run(
                scripts.CUT_OFF,
                keys,
                (*event, event_type, "", cause, CUT_OFF_MS, flag, "sessions", client_id, ""),
            )
            _raise_if_full(answer)

        await asyncio.gather(*(cut_off(bucket, "") for bucket in self._keys.buckets if bucket is not own))
        # Disabling and enabling are recorded with the change of the registry.
        await cut_off(own, EventType.CLIENT_REVOKED.value if disable is None else "")

    async def find_family(self, family: FamilyId) -> FamilyState | None:
        """See ``SessionStore``."""
        bucket = self._keys.of_family(family)
        fields, subject_cut_off, now_ms = await asyncio.gather(
            self._connection.command("HMGET", bucket.family(family), *_STATE_FIELDS),
            self._connection.command("HGET", bucket.subject(family.subject_tag), "sequence"),
            self._now_ms(),
        )
        if fields[0] is None:
            return None
        client_cut_off = await self._connection.command("HGET", bucket.client(fields[2].decode()), "sequence")
        return _family_state(family, fields, (subject_cut_off, client_cut_off), now_ms)

    async def is_access_token_denied(self, token: PresentedToken) -> bool:
        """See ``SessionStore``."""
        family, bucket = token.family, self._bucket_of_token(token)
        denied, client_cut_off, subject_cut_offs, state = await asyncio.gather(
            self._connection.command("EXISTS", bucket.denied_token(str(token.token_id))),
            self._connection.command("HGET", bucket.client(token.client_id), "sequence"),
            self._connection.command("HMGET", bucket.subject(_tag_of(token)), "sequence", "access_sequence"),
            self.find_family(family) if family else _nothing(),
        )
        if denied or (family is not None and (state is None or state.ended is SpendVerdict.REVOKED)):
            return True
        cut_offs = [int(cut_off) for cut_off in (client_cut_off, *subject_cut_offs) if cut_off is not None]
        return any(token.token_id.sequence <= cut_off for cut_off in cut_offs)

    async def list_families(self, subject: str, *, offset: int, limit: int) -> Sequence[FamilyState]:
        """See ``SessionStore``."""
        tag = subject_tag(subject)
        bucket = self._keys.of_tag(tag)
        names, subject_cut_off, now_ms = await asyncio.gather(
            self._connection.command("ZRANGE", bucket.families(tag), offset, offset + limit - 1, "REV"),
            self._connection.command("HGET", bucket.subject(tag), "sequence"),
            self._now_ms(),
        )
        families = [parsed for name in names if (parsed := FamilyId.parse(name.decode())) is not None]
        rows = await asyncio.gather(
            *(self._connection.command("HMGET", bucket.family(family), *_STATE_FIELDS) for family in families)
        )
        client_ids = sorted({row[2].decode() for row in rows if row[0] is not None})
        cut_offs = await asyncio.gather(
            *(self._connection.command("HGET", bucket.client(name), "sequence") for name in client_ids)
        )
        client_cut_offs = dict(zip(client_ids, cut_offs, strict=True))
        return [
            _family_state(family, row, (subject_cut_off, client_cut_offs[row[2].decode()]), now_ms)
            for family, row in zip(families, rows, strict=True)
            if row[0] is not None
        ]

    def _event(self, event_id: bytes, circumstances: Circumstances) -> tuple[str, str, int, int]:
        return (event_id.hex(), circumstances.serialised(), self._outbox_max_events, self.clock_offset_ms)

    def _bucket_of_token(self, token: PresentedToken) -> BucketKeys:
        return self._keys.of_tag(_tag_of(token))

    async def _now_ms(self) -> int:
        seconds, microseconds = await self._connection.command("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000 + self.clock_offset_ms


def _recording(bucket: BucketKeys) -> tuple[str, str]:
    return (bucket.outbox, bucket.sequence)


def _tag_of(token: PresentedToken) -> SubjectTag:
    return token.family.subject_tag if token.family else subject_tag(token.subject)


def _session_id(token: PresentedToken) -> str:
    return str(token.family) if token.family else ""


def _raise_if_full(answer: object) -> None:
    if answer == b"OUTBOX_FULL":
        raise audit_unavailable()


async def _nothing() -> None:
    return None


def _family_state(
    family: FamilyId, row: Sequence[Any], cut_offs: Sequence[bytes | None], now_ms: int
) -> FamilyState:
    (
        secret,
        subject,
        client,
        kind,
        generation,
        created,
        used,
        expiry,
        idle,
        scope,
        audience,
        user,
        started,
        revoked,
    ) = row
    is_cut_off = any(cut_off is not None and int(started) <= int(cut_off) for cut_off in cut_offs)
    is_expired = now_ms >= min(int(expiry), int(used) + int(idle))
    end_user = json.loads(user)
    return FamilyState(
        family=family,
        family_secret_hash=secret,
        subject=subject.decode(),
        client_id=client.decode(),
        client_kind=ClientKind(kind.decode()),
        generation=int(generation),
        created_ms=int(created),
        last_used_ms=int(used),
        absolute_expiry_ms=int(expiry),
        idle_ms=int(idle),
        scope=scope.decode(),
        audience=audience.decode(),
        end_user=EndUser(end_user.get("ip", ""), end_user.get("ua", ""), end_user.get("device", "")),
        started_at_sequence=int(started),
        ended=(
            SpendVerdict.REVOKED
            if revoked is not None or is_cut_off
            else SpendVerdict.EXPIRED
            if is_expired
            else None
        ),
        now_ms=now_ms,
    )
