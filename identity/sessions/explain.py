"""Why a session is over, and how it lived: for those who ask why somebody was logged out."""

from __future__ import annotations

from dataclasses import dataclass

from identity.store.decisions import Lineage
from identity.store.ports import SessionReader
from identity.tokens.family_id import FamilyId


@dataclass(frozen=True, slots=True)
class ExplainSession:
    """The use case; for administrators."""

    store: SessionReader

    async def __call__(self, session_id: str) -> Lineage | None:
        """What is stored; ``None`` for what is no session id, and for a session that nothing is stored of any more."""
        family = FamilyId.parse(session_id)
        return None if family is None else await self.store.explain_family(family)
