"""``KnownClaimsStore`` on Redis or Valkey."""

from __future__ import annotations

from collections.abc import Sequence

from identity.audit.event import Circumstances
from identity.store.known_claims import Noted, NoteVerdict
from identity.store.redis import scripts
from identity.store.redis.revocations import CUT_OFF_MS
from identity.store.redis.scripted import ScriptedStore, recording
from identity.tokens.access_token import serialised_roles
from identity.tokens.family_id import FamilyId


class RedisKnownClaimsStore(ScriptedStore):
    """What is known of a subject, beside its cut-offs."""

    async def note(
        self,
        family: FamilyId,
        subject: str,
        *,
        client_id: str,
        roles: Sequence[str] | None,
        private: str,
        asked_after_sequence: int,
        event_id: bytes,
        circumstances: Circumstances,
    ) -> Noted:
        """See ``KnownClaimsStore``. As durable as a revocation: a role that was taken away must not come back."""
        bucket = self._keys.of_family(family)
        verdict, sequence = await self._connection.run(
            scripts.NOTE_CLAIMS,
            (
                *recording(bucket),
                bucket.family(family),
                bucket.subject(family.subject_tag),
                bucket.client(client_id),
            ),
            (
                *self._event(event_id, circumstances),
                str(family),
                subject,
                "" if roles is None else serialised_roles(roles),
                private,
                asked_after_sequence,
                CUT_OFF_MS,
            ),
            max(self._revoking, self._refreshing),
        )
        return Noted(NoteVerdict(verdict.decode()), sequence)
