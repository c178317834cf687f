"""``RevocationStore`` on Redis or Valkey. What is taken away is recorded and announced to verifiers in the same step."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from identity.audit.event import Circumstances, EventType
from identity.store.decisions import EndReason, Erased, PresentedToken, RevokeVerdict
from identity.store.redis import scripts
from identity.store.redis.keys import BucketKeys
from identity.store.redis.scripted import ScriptedStore, raise_if_full, recording, session_id_of
from identity.store.redis.sessions import TOMBSTONE_MS
from identity.tokens.access_token import serialised_roles
from identity.tokens.family_id import FamilyId, erased_subject, subject_tag
from identity.tokens.lifetimes import MAX_SESSION_SECONDS

CUT_OFF_MS = MAX_SESSION_SECONDS * 1000 + TOMBSTONE_MS


class RedisRevocationStore(ScriptedStore):
    """Ends families, cuts off subjects and clients, denies tokens."""

    async def revoke_family(
        self,
        family: FamilyId,
        *,
        only_client_id: str | None,
        cause: str,
        reason: EndReason,
        event_id: bytes,
        circumstances: Circumstances,
    ) -> RevokeVerdict:
        """See ``RevocationStore``."""
        bucket = self._keys.of_family(family)
        answer = await self._connection.run(
            scripts.REVOKE_FAMILY,
            (*recording(bucket), bucket.family(family), bucket.revocations),
            (*self._event(event_id, circumstances), str(family), only_client_id or "", cause, reason.value),
            self._revoking,
        )
        raise_if_full(answer)
        return RevokeVerdict(answer.decode())

    async def revoke_access_token(
        self,
        token: PresentedToken,
        *,
        cause: str,
        event_id: bytes,
        circumstances: Circumstances,
    ) -> RevokeVerdict:
        """See ``RevocationStore``."""
        bucket = self._bucket_of_token(token)
        answer = await self._connection.run(
            scripts.REVOKE_ACCESS_TOKEN,
            (*recording(bucket), bucket.denied_token(str(token.token_id)), bucket.revocations),
            (
                *self._event(event_id, circumstances),
                session_id_of(token),
                str(token.token_id),
                token.subject,
                cause,
            ),
            self._revoking,
        )
        raise_if_full(answer)
        return RevokeVerdict(answer.decode())

    async def revoke_subject(
        self, subject: str, *, cause: str, event_id: bytes, circumstances: Circumstances
    ) -> None:
        """See ``RevocationStore``."""
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
        """See ``RevocationStore``."""
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
            (*recording(bucket), bucket.subject(subject_tag(subject)), bucket.revocations),
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
            self._revoking,
        )
        raise_if_full(answer)

    async def revoke_client(
        self,
        client_id: str,
        *,
        cause: str,
        event_id: bytes,
        circumstances: Circumstances,
        disable: bool | None,
    ) -> None:
        """See ``RevocationStore``. The client's own bucket records the event, after all others hold the cut-off."""
        own = self._keys.of_name(client_id)
        event = self._event(event_id, circumstances)
        flag = "" if disable is None else str(int(disable))

        async def cut_off(bucket: BucketKeys, event_type: str) -> None:
            keys = (*recording(bucket), bucket.client(client_id), bucket.revocations)
            answer = await self._connection.run(
                scripts.CUT_OFF,
                keys,
                (*event, event_type, "", cause, CUT_OFF_MS, flag, "sessions", client_id, ""),
                self._revoking,
            )
            raise_if_full(answer)

        await asyncio.gather(*(cut_off(bucket, "") for bucket in self._keys.buckets if bucket is not own))
        # Disabling and enabling are recorded with the change of the registry.
        await cut_off(own, EventType.CLIENT_REVOKED.value if disable is None else "")

    async def revoke_other_families(
        self,
        family: FamilyId,
        *,
        only_client_id: str | None,
        cause: str,
        event_id: bytes,
        circumstances: Circumstances,
    ) -> RevokeVerdict:
        """See ``RevocationStore``."""
        bucket = self._keys.of_family(family)
        answer = await self._connection.run(
            scripts.REVOKE_OTHERS,
            (
                *recording(bucket),
                bucket.family(family),
                bucket.families(family.subject_tag),
                bucket.subject(family.subject_tag),
                bucket.revocations,
            ),
            (*self._event(event_id, circumstances), str(family), only_client_id or "", cause),
            self._revoking,
        )
        raise_if_full(answer)
        return RevokeVerdict(answer.decode())

    async def erase_subject(self, subject: str, *, event_id: bytes, circumstances: Circumstances) -> Erased:
        """See ``RevocationStore``."""
        tag = subject_tag(subject)
        bucket = self._keys.of_tag(tag)
        answer = await self._connection.run(
            scripts.ERASE_SUBJECT,
            (*recording(bucket), bucket.families(tag), bucket.subject(tag), bucket.revocations),
            (
                *self._event(event_id, circumstances),
                erased_subject(tag),
                subject,
                bucket.family_prefix,
                CUT_OFF_MS,
            ),
            self._revoking,
        )
        raise_if_full(answer)
        return Erased(*answer)
