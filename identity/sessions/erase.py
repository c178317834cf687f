"""The right to be forgotten (GDPR, article 17): everything of a subject is revoked, and what is stored of it removed.

What stays is the audit trail, and a cut-off under a name that cannot be read back: without it, a token that is still in
somebody's hands might be taken for a new one. Both are one step of the store, so that a crash leaves either everything
or nothing; asking again finds nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass

from identity.audit.event import new_event_id
from identity.clients.policy import Grant, require_grant, require_subject
from identity.sessions.caller import Caller
from identity.store.decisions import Erased
from identity.store.ports import RevocationStore


@dataclass(frozen=True, slots=True)
class EraseSubject:
    """The use case. An administrator may erase any subject."""

    store: RevocationStore

    async def __call__(self, caller: Caller, subject: str) -> Erased:
        """What was removed. Raises ``SUBJECT_NOT_ALLOWED``."""
        if Grant.ADMIN not in caller.policy.grants:
            require_grant(caller.policy, Grant.ERASE)
            require_subject(caller.policy, subject)
        return await self.store.erase_subject(
            subject, event_id=new_event_id(), circumstances=caller.circumstances
        )
