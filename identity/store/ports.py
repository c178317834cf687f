"""What the service asks of a store, and what each answer means.

Deciding and recording are one call: a store changes state, counts against limits and writes the audit event
in one atomic step, or does nothing. There is no begin and commit to forget. Every method raises
``IdentityError`` with ``STORE_UNAVAILABLE`` when the store does not answer; whether it acted is then unknown,
and a retry with the same idempotency key finds out.

Times are the store's own, in milliseconds since the epoch, and every answer carries the time at which it was
decided: one reference for the whole decision, however many servers with however many clocks there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from identity.audit.event import Circumstances, EventType
from identity.store.decisions import (
    EndReason,
    Erased,
    Exchanged,
    FamilyState,
    IdempotentIssue,
    Lineage,
    NewFamily,
    NotSpent,
    PresentedToken,
    RevokeVerdict,
    ServiceGrant,
    Spend,
    Spent,
    Started,
)
from identity.tokens.family_id import FamilyId


class SessionStore(Protocol):
    """Starts families and spends their tokens."""

    async def start_family(
        self,
        new: NewFamily,
        event_id: bytes,
        circumstances: Circumstances,
        idempotent: IdempotentIssue | None,
    ) -> Started:
        """Stores a family at generation 0 and records ``tokens.issued``."""
        ...

    async def grant_service_token(
        self, client_id: str, event_id: bytes, circumstances: Circumstances
    ) -> ServiceGrant:
        """Records that a client got a token of its own; no state is kept of it."""
        ...

    async def exchange_token(
        self, presented: PresentedToken, client_id: str, event_id: bytes, circumstances: Circumstances
    ) -> Exchanged:
        """Records that a client exchanges a token, unless the token has expired or was taken back."""
        ...

    async def spend(self, spend: Spend, event_id: bytes, circumstances: Circumstances) -> Spent | NotSpent:
        """Decides on a presented refresh token and records the decision. Rotates at most once.

        A look decides, and refuses, as if the token were spent; where it would succeed, it changes and records nothing.
        """
        ...


class RevocationStore(Protocol):
    """Takes away what was given. What is revoked cannot be used any more when the method returns."""

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
        """Ends a family. With ``only_client_id``, only if it is that client's. ``UNKNOWN`` changes nothing."""
        ...

    async def revoke_access_token(
        self,
        token: PresentedToken,
        *,
        cause: str,
        event_id: bytes,
        circumstances: Circumstances,
    ) -> RevokeVerdict:
        """Denies one access token, for as long as it would live."""
        ...

    async def revoke_subject(
        self, subject: str, *, cause: str, event_id: bytes, circumstances: Circumstances
    ) -> None:
        """Ends every family of a subject that exists now; O(1). Once it returns, none of them refreshes."""
        ...

    async def revoke_access_tokens(
        self,
        subject: str,
        *,
        new_roles: Sequence[str] | None,
        cause: str,
        event_id: bytes,
        circumstances: Circumstances,
    ) -> None:
        """Ends every access token of a subject that exists now, and keeps the families.

        ``new_roles`` replace those of the families that exist now; ``None`` leaves them as they are.
        """
        ...

    async def revoke_client(
        self,
        client_id: str,
        *,
        cause: str,
        event_id: bytes,
        circumstances: Circumstances,
        disable: bool | None,
    ) -> None:
        """Ends every family of a client that exists now; one write a bucket. ``disable`` also stops new ones."""
        ...

    async def revoke_other_families(
        self,
        family: FamilyId,
        *,
        only_client_id: str | None,
        cause: str,
        event_id: bytes,
        circumstances: Circumstances,
    ) -> RevokeVerdict:
        """Ends the listed families of this one's subject but this one. Answers as ``revoke_family`` does of this one."""
        ...

    async def erase_subject(self, subject: str, *, event_id: bytes, circumstances: Circumstances) -> Erased:
        """Ends everything of a subject and removes what is stored of it; again finds nothing more."""
        ...


class SessionReader(Protocol):
    """Looks at families; changes nothing."""

    async def find_family(self, family: FamilyId) -> FamilyState | None:
        """A family with its cut-offs applied; ``None`` when nothing is stored."""
        ...

    async def explain_family(self, family: FamilyId) -> Lineage | None:
        """What became of a family; ``None`` when nothing is stored."""
        ...

    async def is_access_token_denied(self, token: PresentedToken) -> bool:
        """Whether an access token was revoked by itself, or with its session, subject or client."""
        ...

    async def list_families(self, subject: str, *, offset: int, limit: int) -> Sequence[FamilyState]:
        """Families of a subject, newest first, ended ones included."""
        ...


@dataclass(frozen=True, slots=True)
class StoredClient:
    """A client as the store keeps it: an opaque document and the revision at which it was written."""

    client_id: str
    document: str = field(repr=False)


class ClientStore(Protocol):
    """The registry of clients."""

    async def revision(self) -> int:
        """Changes whenever any client does."""
        ...

    async def load_all(self) -> tuple[int, Sequence[StoredClient]]:
        """Every client, and the revision they belong to."""
        ...

    async def put(
        self,
        client: StoredClient,
        *,
        replaces: str | None,
        event_type: EventType,
        event_id: bytes,
        circumstances: Circumstances,
    ) -> bool:
        """Writes a client and records the event.

        ``replaces`` is the document it was made from, ``None`` for a new client; ``False`` when the stored
        one is another by now.
        """
        ...
