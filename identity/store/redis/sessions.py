"""``SessionStore`` on Redis or Valkey: starts families and spends their tokens."""

from __future__ import annotations

from identity.audit.event import Circumstances
from identity.store.decisions import (
    SPEND_SUCCEEDED,
    Exchanged,
    ExchangeVerdict,
    IdempotentIssue,
    NewFamily,
    NotSpent,
    PresentedToken,
    ServiceGrant,
    Spend,
    SpendVerdict,
    Spent,
    Started,
    StartVerdict,
)
from identity.store.redis import scripts
from identity.store.redis.family_record import (
    IDEMPOTENCY_DIGEST_BYTES,
    packed_address,
    packed_terms,
    shared_text,
    unpacked_terms,
)
from identity.store.redis.keys import BucketKeys
from identity.store.redis.scripted import ScriptedStore, recording, session_id_of

# How long an ended family can still be told from an unknown one.
TOMBSTONE_MS = 24 * 3600 * 1000
MAX_FAST_FORWARD = 64
MAX_STEPS = 8
MAX_LISTED_SESSIONS = 1000
_THEFTS = frozenset({SpendVerdict.WRONG_CLIENT, SpendVerdict.REUSED})


class RedisSessionStore(ScriptedStore):
    """Families, at generation 0 and after."""

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
        terms_digest, terms = packed_terms(new.terms)
        agent_digest, agent = shared_text(new.end_user.user_agent)
        keys = (
            *recording(bucket),
            family_key,
            bucket.families(new.family.subject_tag),
            bucket.client(new.terms.client_id),
            bucket.idempotency(idempotent.key_digest) if idempotent else family_key,
            bucket.subject(new.family.subject_tag),
            bucket.revocations,
            bucket.shared(terms_digest),
            bucket.shared(agent_digest) if agent_digest else family_key,
        )
        answer = await self._connection.run(
            scripts.START_FAMILY,
            keys,
            (
                *self._event(event_id, circumstances),
                str(new.family),
                new.family_secret_hash,
                new.subject,
                new.auth_time_seconds or 0,
                terms,
                terms_digest,
                packed_address(new.end_user.ip_address),
                new.end_user.device_label,
                agent,
                agent_digest,
                TOMBSTONE_MS,
                idempotent.request_digest if idempotent else b"",
                idempotent.sealed if idempotent else b"",
                idempotent.window_seconds * 1000 if idempotent else 0,
                MAX_LISTED_SESSIONS,
                new.max_sessions,
            ),
            self._refreshing,
        )
        return Started(StartVerdict(answer[0].decode()), *answer[1:])

    async def grant_service_token(
        self, client_id: str, event_id: bytes, circumstances: Circumstances
    ) -> ServiceGrant:
        """See ``SessionStore``."""
        bucket = self._keys.of_name(client_id)
        answer = await self._connection.run(
            scripts.GRANT_SERVICE_TOKEN,
            (*recording(bucket), bucket.client(client_id)),
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
                *recording(bucket),
                denied,
                bucket.family(presented.family) if presented.family else denied,
                bucket.subject(presented.subject_tag),
                bucket.client(presented.client_id),
                bucket.client(client_id),
            ),
            (
                *self._event(event_id, circumstances),
                presented.subject,
                session_id_of(presented),
                presented.token_id.sequence,
                presented.expires_at_seconds,
            ),
        )
        return Exchanged(ExchangeVerdict(answer[0].decode()), *answer[1:])

    async def spend(self, spend: Spend, event_id: bytes, circumstances: Circumstances) -> Spent | NotSpent:
        """See ``SessionStore``."""
        bucket = self._keys.of_family(spend.family)
        family_key = bucket.family(spend.family)
        address = spend.end_user.ip_address
        agent_digest, agent = shared_text(spend.end_user.user_agent)
        answer = await self._connection.run(
            scripts.SPEND,
            (
                *recording(bucket),
                family_key,
                bucket.subject(spend.family.subject_tag),
                bucket.client(spend.client_id),
                bucket.address(address) if address else family_key,
                bucket.revocations,
                bucket.shared(agent_digest) if agent_digest else family_key,
            ),
            (
                *self._event(event_id, circumstances),
                str(spend.family),
                spend.generation,
                spend.family_secret_hash,
                spend.client_id,
                spend.idempotency_key_digest[:IDEMPOTENCY_DIGEST_BYTES],
                spend.retry_window_ms,
                spend.leeway_ms,
                " ".join(spend.scopes),
                " ".join(spend.audience),
                spend.end_user.device_label,
                spend.limits.per_family,
                spend.limits.address_successes,
                spend.limits.address_failures,
                MAX_FAST_FORWARD,
                packed_address(address),
                MAX_STEPS,
                spend.recovery_window_ms,
                spend.reuse_policy,
                agent_digest,
                agent,
                "LOOK" if spend.look_only else "",
            ),
            self._refreshing,
        )
        verdict = SpendVerdict(answer[0].decode())
        if verdict in _THEFTS:
            await self._settle(bucket)
        if verdict not in SPEND_SUCCEEDED:
            return NotSpent(verdict, *answer[2:])
        now_ms, sequence, generation, expiry_ms, subject, auth_time_seconds, roles, private, terms = answer[
            1:
        ]
        return Spent(
            verdict,
            now_ms,
            sequence,
            generation,
            expiry_ms,
            subject.decode(),
            auth_time_seconds or None,
            roles.decode(),
            private.decode(),
            unpacked_terms(terms),
        )

    async def _settle(self, bucket: BucketKeys) -> None:
        """Makes what was written before as durable as revocations have to be: what comes later is passed on later."""
        if self._revoking > self._refreshing:
            await self._connection.command("SET", bucket.settled, 1, "PX", 1000, durability=self._revoking)
