"""``SessionReader`` on Redis or Valkey: looks, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from identity.audit.event import EndUser
from identity.store.decisions import Ending, EndReason, FamilyState, Lineage, PresentedToken, SpendVerdict
from identity.store.redis.family_record import FamilyRecord, newest_first, unpacked_terms
from identity.store.redis.keys import BucketKeys
from identity.store.redis.scripted import ScriptedStore
from identity.tokens.family_id import NAME_CHARS, FamilyId, subject_tag
from identity.tokens.session_terms import SessionTerms

_OF_CUT_OFF = ("ended", "cause", "by", "sequence")


class RedisSessionReader(ScriptedStore):
    """Families with their cut-offs applied."""

    async def find_family(self, family: FamilyId) -> FamilyState | None:
        """See ``SessionReader``."""
        lineage = await self.explain_family(family)
        return None if lineage is None else lineage.state

    async def explain_family(self, family: FamilyId) -> Lineage | None:
        """See ``SessionReader``."""
        bucket = self._keys.of_family(family)
        stored, of_subject, now_ms = await asyncio.gather(
            self._connection.command("GET", bucket.family(family)),
            self._cut_off(bucket.subject(family.subject_tag)),
            self._now_ms(bucket),
        )
        if stored is None:
            return None
        record = FamilyRecord.parse(stored)
        shared = await self._shared(bucket, {record.terms, record.user_agent})
        terms = unpacked_terms(shared[record.terms])
        of_client = await self._cut_off(bucket.client(terms.client_id))
        state = _family_state(family, record, terms, shared, (of_subject, of_client), now_ms)
        ending = record.ending or _ending(state, of_subject, of_client)
        return Lineage(state, ending, record.steps, record.earlier_steps)

    async def is_access_token_denied(self, token: PresentedToken) -> bool:
        """See ``SessionReader``."""
        family, bucket = token.family, self._bucket_of_token(token)
        denied, client_cut_off, subject_cut_offs, state = await asyncio.gather(
            self._connection.command("EXISTS", bucket.denied_token(str(token.token_id))),
            self._connection.command("HGET", bucket.client(token.client_id), "sequence"),
            self._connection.command(
                "HMGET", bucket.subject(token.subject_tag), "sequence", "access_sequence"
            ),
            self.find_family(family) if family else _nothing(),
        )
        if denied or (family is not None and (state is None or state.ended is SpendVerdict.REVOKED)):
            return True
        cut_offs = [int(cut_off) for cut_off in (client_cut_off, *subject_cut_offs) if cut_off is not None]
        return any(token.token_id.sequence <= cut_off for cut_off in cut_offs)

    async def list_families(self, subject: str, *, offset: int, limit: int) -> Sequence[FamilyState]:
        """See ``SessionReader``."""
        tag = subject_tag(subject)
        bucket = self._keys.of_tag(tag)
        first, last = -(offset + limit) * NAME_CHARS, -offset * NAME_CHARS - 1
        names, of_subject, now_ms = await asyncio.gather(
            self._connection.command("GETRANGE", bucket.families(tag), first, last),
            self._cut_off(bucket.subject(tag)),
            self._now_ms(bucket),
        )
        families = newest_first(names, tag)
        stored = await asyncio.gather(
            *(self._connection.command("GET", bucket.family(family)) for family in families)
        )
        records = {
            family: FamilyRecord.parse(value)
            for family, value in zip(families, stored, strict=True)
            if value is not None
        }
        digests = {digest for record in records.values() for digest in (record.terms, record.user_agent)}
        shared = await self._shared(bucket, digests)
        terms = {family: unpacked_terms(shared[record.terms]) for family, record in records.items()}
        client_ids = sorted({granted.client_id for granted in terms.values()})
        cut_offs = await asyncio.gather(*(self._cut_off(bucket.client(name)) for name in client_ids))
        of_clients = dict(zip(client_ids, cut_offs, strict=True))
        return [
            _family_state(
                family,
                record,
                terms[family],
                shared,
                (of_subject, of_clients[terms[family].client_id]),
                now_ms,
            )
            for family, record in records.items()
        ]

    async def _cut_off(self, key: str) -> Sequence[bytes | None]:
        answer: Sequence[bytes | None] = await self._connection.command("HMGET", key, *_OF_CUT_OFF)
        return answer

    async def _shared(self, bucket: BucketKeys, digests: set[bytes]) -> dict[bytes, bytes]:
        """What many families have in common, by digest; the empty digest is that of nothing."""
        wanted = sorted(digests - {b""})
        texts = await asyncio.gather(
            *(self._connection.command("GET", bucket.shared(digest)) for digest in wanted)
        )
        return {b"": b""} | {digest: text or b"" for digest, text in zip(wanted, texts, strict=True)}


async def _nothing() -> None:
    return None


def _family_state(
    family: FamilyId,
    record: FamilyRecord,
    terms: SessionTerms,
    shared: dict[bytes, bytes],
    cut_offs: Sequence[Sequence[bytes | None]],
    now_ms: int,
) -> FamilyState:
    absolute_expiry_ms = record.created_ms + terms.lifetime.absolute_seconds * 1000
    idle_ms = terms.lifetime.idle_seconds * 1000
    is_revoked = record.ending is not None or any(
        sequence is not None and record.started_at_sequence <= int(sequence) for *_, sequence in cut_offs
    )
    is_expired = now_ms >= min(absolute_expiry_ms, record.used_ms + idle_ms)
    return FamilyState(
        family=family,
        family_secret_hash=record.secret_hash,
        subject=record.subject,
        client_id=terms.client_id,
        client_kind=terms.client_kind,
        generation=record.generation,
        created_ms=record.created_ms,
        last_used_ms=record.used_ms,
        absolute_expiry_ms=absolute_expiry_ms,
        idle_ms=idle_ms,
        scope=" ".join(terms.scopes),
        audience=" ".join(terms.audience),
        end_user=EndUser(record.ip_address, shared[record.user_agent].decode(), record.device_label),
        started_at_sequence=record.started_at_sequence,
        ended=SpendVerdict.REVOKED if is_revoked else SpendVerdict.EXPIRED if is_expired else None,
        now_ms=now_ms,
    )


def _ending(
    state: FamilyState, of_subject: Sequence[bytes | None], of_client: Sequence[bytes | None]
) -> Ending | None:
    for reason, (*told, sequence) in (
        (EndReason.SUBJECT_CUTOFF, of_subject),
        (EndReason.CLIENT_CUTOFF, of_client),
    ):
        if sequence is not None and state.started_at_sequence <= int(sequence):
            if told[1] == EndReason.CLIENT_DISABLED.encode():
                return _told(EndReason.CLIENT_DISABLED, (told[0], None, told[2]))
            return _told(reason, told)
    idle_end_ms = state.last_used_ms + state.idle_ms
    if state.now_ms < min(state.absolute_expiry_ms, idle_end_ms):
        return None
    if state.absolute_expiry_ms <= idle_end_ms:
        return Ending(EndReason.EXPIRED_ABSOLUTE, state.absolute_expiry_ms)
    return Ending(EndReason.EXPIRED_IDLE, idle_end_ms)


def _told(reason: EndReason, told: Sequence[bytes | None]) -> Ending:
    at_ms, cause, client_id = told
    return Ending(reason, int(at_ms or 0), (cause or b"").decode(), (client_id or b"").decode())
