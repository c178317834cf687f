"""The live sessions of a subject, for a "your devices" page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from identity.clients.policy import Grant, require_grant, require_subject
from identity.errors import field_invalid
from identity.sessions.caller import Caller
from identity.store.decisions import FamilyState
from identity.store.ports import SessionReader

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 100
MAX_OFFSET = 10_000


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Sessions, newest first; ``next_page_token`` is empty on the last page."""

    sessions: Sequence[FamilyState]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class ListSessions:
    """The use case. An administrator may look at any subject."""

    store: SessionReader

    async def __call__(self, caller: Caller, subject: str, page_size: int, page_token: str) -> SessionPage:
        """One page. Raises ``SUBJECT_NOT_ALLOWED`` and ``FIELD_INVALID``."""
        if Grant.ADMIN not in caller.policy.grants:
            require_grant(caller.policy, Grant.LIST_SESSIONS)
            require_subject(caller.policy, subject)
        size = _checked_page_size(page_size)
        offset = _checked_offset(page_token)
        families = await self.store.list_families(subject, offset=offset, limit=size + 1)
        return SessionPage(
            sessions=[family for family in families[:size] if family.ended is None],
            next_page_token=str(offset + size) if len(families) > size else "",
        )


def _checked_page_size(page_size: int) -> int:
    if not 0 <= page_size <= MAX_PAGE_SIZE:
        raise field_invalid("page_size", f"between 1 and {MAX_PAGE_SIZE}")
    return page_size or DEFAULT_PAGE_SIZE


def _checked_offset(page_token: str) -> int:
    if not page_token:
        return 0
    if not page_token.isascii() or not page_token.isdigit() or int(page_token) > MAX_OFFSET:
        raise field_invalid("page_token", "not a page token of this method")
    return int(page_token)
