"""Ending tokens and sessions (RFC 7009). Idempotent: what is unknown or over already is a success, and recorded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias, assert_never

from identity.audit.event import Event, EventType, Outcome, new_event_id
from identity.audit.ports import EventRecorder
from identity.clients.policy import Grant, require_grant, require_request, require_subject
from identity.errors import IdentityError, Reason
from identity.sessions.access_tokens import AccessTokenReader
from identity.sessions.caller import Caller
from identity.store.decisions import EndReason, RevokeVerdict
from identity.store.ports import RevocationStore
from identity.tokens.family_id import FamilyId
from identity.tokens.refresh_token import (
    RefreshTokenCodec,
    RefreshTokenInvalidError,
    looks_like_refresh_token,
)


class RevocationCause(StrEnum):
    """Why; recorded, and never changes what happens. The same names as in the proto."""

    UNSPECIFIED = "UNSPECIFIED"
    LOGOUT = "LOGOUT"
    CREDENTIAL_CHANGE = "CREDENTIAL_CHANGE"
    COMPROMISE = "COMPROMISE"
    ACCOUNT_DISABLED = "ACCOUNT_DISABLED"
    PERMISSIONS_CHANGED = "PERMISSIONS_CHANGED"
    ADMINISTRATIVE = "ADMINISTRATIVE"


@dataclass(frozen=True, slots=True)
class TokenTarget:
    """One token: a refresh token ends its session, an access token ends alone."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SessionTarget:
    """One session."""

    session_id: str


@dataclass(frozen=True, slots=True)
class OthersTarget:
    """Every session of this one's subject, but this one."""

    session_id: str


@dataclass(frozen=True, slots=True)
class SubjectTarget:
    """Every session of a subject."""

    subject: str


@dataclass(frozen=True, slots=True)
class AccessTokensTarget:
    """The access tokens of a subject; its sessions go on, with ``new_roles`` unless that is ``None``."""

    subject: str
    new_roles: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class ClientTarget:
    """Every session of a client."""

    client_id: str


Target: TypeAlias = (
    TokenTarget | SessionTarget | OthersTarget | SubjectTarget | AccessTokensTarget | ClientTarget
)


@dataclass(frozen=True, slots=True)
class Revoke:
    """The use case."""

    store: RevocationStore
    codec: RefreshTokenCodec
    access_tokens: AccessTokenReader
    recorder: EventRecorder

    async def __call__(self, caller: Caller, target: Target, cause: RevocationCause) -> None:
        """Returns once the target can no longer be used. Raises ``REVOCATION_NOT_ALLOWED``."""
        is_admin = Grant.ADMIN in caller.policy.grants
        if not is_admin:
            require_grant(caller.policy, Grant.REVOKE)
        match target:
            case TokenTarget(token):
                await self._revoke_token(caller, token, cause, is_admin=is_admin)
            case SessionTarget(session_id):
                await self._revoke_family(caller, FamilyId.parse(session_id), cause, is_admin=is_admin)
            case OthersTarget(session_id):
                await self._revoke_others(caller, FamilyId.parse(session_id), cause, is_admin=is_admin)
            case SubjectTarget(subject):
                if not is_admin:
                    require_subject(caller.policy, subject)
                await self.store.revoke_subject(
                    subject, cause=cause, event_id=new_event_id(), circumstances=caller.circumstances
                )
            case AccessTokensTarget():
                await self._revoke_access_tokens(caller, target, cause, is_admin=is_admin)
            case ClientTarget(client_id):
                if not is_admin and client_id != caller.client_id:
                    raise _not_allowed()
                await self.store.revoke_client(
                    client_id,
                    cause=cause,
                    event_id=new_event_id(),
                    circumstances=replace(caller.circumstances, detail=f"client {client_id}"),
                    disable=None,
                )
            case _:
                assert_never(target)

    async def _revoke_others(
        self, caller: Caller, family: FamilyId | None, cause: RevocationCause, *, is_admin: bool
    ) -> None:
        if family is None:
            self._record_unknown(caller)
            return
        verdict = await self.store.revoke_other_families(
            family,
            only_client_id=None if is_admin else caller.client_id,
            cause=cause,
            event_id=new_event_id(),
            circumstances=caller.circumstances,
        )
        if verdict is RevokeVerdict.NOT_ALLOWED:
            raise _not_allowed(recorded=True)

    async def _revoke_token(
        self, caller: Caller, text: str, cause: RevocationCause, *, is_admin: bool
    ) -> None:
        if looks_like_refresh_token(text):
            try:
                family = self.codec.decode(text).family
            except RefreshTokenInvalidError:
                family = None
            await self._revoke_family(caller, family, cause, is_admin=is_admin)
            return
        token = self.access_tokens.read(text)
        if token is None:
            self._record_unknown(caller)
            return
        if not is_admin and token.client_id != caller.client_id:
            raise _not_allowed()
        await self.store.revoke_access_token(
            token.presented,
            cause=cause,
            event_id=new_event_id(),
            circumstances=replace(caller.circumstances, token_id=str(token.presented.token_id)),
        )

    async def _revoke_access_tokens(
        self, caller: Caller, target: AccessTokensTarget, cause: RevocationCause, *, is_admin: bool
    ) -> None:
        if not is_admin:
            require_subject(caller.policy, target.subject)
            if target.new_roles is not None:
                # Giving roles is issuing.
                require_grant(caller.policy, Grant.ISSUE)
                require_request(caller.policy, (), (), target.new_roles)
        await self.store.revoke_access_tokens(
            target.subject,
            new_roles=target.new_roles,
            cause=cause,
            event_id=new_event_id(),
            circumstances=caller.circumstances,
        )

    async def _revoke_family(
        self, caller: Caller, family: FamilyId | None, cause: RevocationCause, *, is_admin: bool
    ) -> None:
        if family is None:
            self._record_unknown(caller)
            return
        verdict = await self.store.revoke_family(
            family,
            only_client_id=None if is_admin else caller.client_id,
            cause=cause,
            reason=EndReason.REVOKED_BY_ADMIN if is_admin else EndReason.REVOKED_BY_USER,
            event_id=new_event_id(),
            circumstances=caller.circumstances,
        )
        if verdict is RevokeVerdict.NOT_ALLOWED:
            raise _not_allowed(recorded=True)

    def _record_unknown(self, caller: Caller) -> None:
        self.recorder.record(Event(EventType.REVOCATION_OF_UNKNOWN, Outcome.SUCCESS, caller.circumstances))


def _not_allowed(*, recorded: bool = False) -> IdentityError:
    return IdentityError(
        Reason.REVOCATION_NOT_ALLOWED,
        "Only the client it belongs to, or an administrator, may revoke this.",
        recorded=recorded,
    )
