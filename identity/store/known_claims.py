"""The port to what was last heard of a subject from the claims source.

It is kept with the subject and applied by the store itself, wherever it reads a session that it covers: so what a refresh
gives is the last known, whether the source is there or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from identity.audit.event import Circumstances
from identity.tokens.family_id import FamilyId


class NoteVerdict(StrEnum):
    """What became of an attempt to note an answer."""

    NOTED = "NOTED"
    ASK_AGAIN = "ASK_AGAIN"
    ENDED = "ENDED"
    OUTBOX_FULL = "OUTBOX_FULL"


@dataclass(frozen=True, slots=True)
class Noted:
    """``sequence`` with ``ASK_AGAIN``: an answer to a question that comes now is newer than all up to it."""

    verdict: NoteVerdict
    sequence: int = 0


class KnownClaimsStore(Protocol):
    """Keeps the last answer about a subject."""

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
        """Makes an answer what is known of the subject, for all of its sessions that exist now.

        ``roles`` of ``None`` leave those that are known. A change is recorded as ``subject.claims_changed``. ``ASK_AGAIN``:
        something else was noted after ``asked_after_sequence``, so that nobody knows which of the two is newer; nothing was
        changed. ``ENDED``: the family is over, so nothing is kept for it.
        """
        ...
