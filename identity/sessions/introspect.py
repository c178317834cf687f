"""The state of one token (RFC 7662). Of a token that is not active, nothing is said but that."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import StrEnum

from identity.clients.policy import Grant, require_grant
from identity.sessions.access_tokens import AccessTokenReader
from identity.sessions.caller import Caller
from identity.store.ports import SessionReader
from identity.tokens.lifetimes import refresh_expires_at_ms
from identity.tokens.refresh_token import (
    RefreshTokenCodec,
    RefreshTokenInvalidError,
    looks_like_refresh_token,
)


class TokenType(StrEnum):
    """What kind of token it is."""

    ACCESS_TOKEN = "ACCESS_TOKEN"  # noqa: S105 - a kind, not a token
    REFRESH_TOKEN = "REFRESH_TOKEN"  # noqa: S105


@dataclass(frozen=True, slots=True)
class ActiveToken:
    """A token that would be accepted now."""

    token_type: TokenType
    subject: str
    client_id: str
    audience: tuple[str, ...]
    scopes: tuple[str, ...]
    session_id: str
    expires_at_ms: int
    token_id: str = ""
    issued_at_ms: int | None = None
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Introspect:
    """The use case."""

    store: SessionReader
    codec: RefreshTokenCodec
    access_tokens: AccessTokenReader

    async def __call__(self, caller: Caller, token: str) -> ActiveToken | None:
        """The token, or ``None`` for anything that would be refused."""
        require_grant(caller.policy, Grant.INTROSPECT)
        if looks_like_refresh_token(token):
            return await self._refresh_token(token)
        return await self._access_token(token)

    async def _refresh_token(self, text: str) -> ActiveToken | None:
        try:
            token = self.codec.decode(text)
        except RefreshTokenInvalidError:
            return None
        state = await self.store.find_family(token.family)
        if (
            state is None
            or state.ended is not None
            or state.generation > token.generation
            or not hmac.compare_digest(state.family_secret_hash, token.family_secret_hash)
        ):
            return None
        return ActiveToken(
            token_type=TokenType.REFRESH_TOKEN,
            subject=state.subject,
            client_id=state.client_id,
            audience=tuple(state.audience.split()),
            scopes=tuple(state.scope.split()),
            session_id=str(state.family),
            expires_at_ms=refresh_expires_at_ms(state.last_used_ms, state.absolute_expiry_ms, state.idle_ms),
        )

    async def _access_token(self, token: str) -> ActiveToken | None:
        read = self.access_tokens.read(token)
        if read is None or await self.store.is_access_token_denied(read.presented):
            return None
        return ActiveToken(
            token_type=TokenType.ACCESS_TOKEN,
            subject=read.subject,
            client_id=read.client_id,
            audience=read.audience,
            scopes=read.scopes,
            session_id=str(read.family) if read.family else "",
            expires_at_ms=read.expires_at_seconds * 1000,
            token_id=str(read.token_id),
            issued_at_ms=read.issued_at_seconds * 1000,
            roles=read.roles,
        )
