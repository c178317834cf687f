"""Exchanging a caller's token for a narrower one, to call on in the caller's name (RFC 8693).

Rules:

- the new token speaks for the same subject and session, with the same roles and private claims, and names the client that asked as the
  actor, before whoever acted already (section 4.1);
- audiences and scopes only narrow: they are among those of the presented token, and the client's policy covers them.
  None asked for means those of the presented token;
- it lives no longer than the presented token, and ends with its session or subject;
- the store looks whether the presented token was taken back in the same step in which it records the exchange.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

from identity.audit.event import new_event_id
from identity.clients.policy import Grant, Lifetimes, require_grant, require_request, require_subject
from identity.errors import IdentityError, Reason, audit_unavailable
from identity.sessions.access_tokens import AccessTokenReader, ReadAccessToken
from identity.sessions.caller import Caller
from identity.sessions.minting import AccessTokenMint, MintedTokens, Recording
from identity.store.decisions import ExchangeVerdict
from identity.store.ports import SessionStore
from identity.tokens.access_token import SessionClaims, serialised_private
from identity.tokens.family_id import bucket_of

MAX_ACTORS = 4


@dataclass(frozen=True, slots=True)
class ExchangeRequest:
    """A checked request. Empty audience and scopes: those of the token."""

    subject_token: str = field(repr=False)
    audience: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExchangeToken:
    """The use case."""

    store: SessionStore
    mint: AccessTokenMint
    access_tokens: AccessTokenReader
    lifetimes: Lifetimes
    buckets: int

    async def __call__(self, caller: Caller, request: ExchangeRequest) -> MintedTokens:
        """An access token, recorded before it exists. Raises what ExchangeToken in the proto says."""
        require_grant(caller.policy, Grant.EXCHANGE)
        token = self.access_tokens.read(request.subject_token)
        if token is None:
            raise _invalid(recorded=False)
        require_subject(caller.policy, token.subject)
        audience, scopes = request.audience or token.audience, request.scopes or token.scopes
        _require_within(Reason.AUDIENCE_NOT_ALLOWED, "audience", audience, token.audience)
        _require_within(Reason.SCOPE_NOT_ALLOWED, "scope", scopes, token.scopes)
        require_request(caller.policy, audience, scopes, ())
        claims = _claims(token, actor=caller.client_id).serialised()
        signer = self.mint.signer()
        self.mint.check_size(signer, claims, audience, scopes)
        event_id = new_event_id()
        presented = token.presented
        bucket = bucket_of(presented.subject_tag, self.buckets)
        exchanged = await self.store.exchange_token(
            presented, caller.client_id, event_id, caller.circumstances.giving(signer.kid, audience, scopes)
        )
        _raise_unless_exchanged(exchanged.verdict)
        return await self.mint.mint(
            signer,
            Recording(bucket, exchanged.sequence, event_id, exchanged.now_ms),
            session_claims=claims,
            audience=audience,
            scopes=scopes,
            ttl_seconds=min(
                self.lifetimes.access_token(caller.policy),
                token.expires_at_seconds - exchanged.now_ms // 1000,
            ),
            session=None,
        )


def _claims(token: ReadAccessToken, *, actor: str) -> SessionClaims:
    if len(token.actors) >= MAX_ACTORS:
        raise IdentityError(
            Reason.SUBJECT_TOKEN_INVALID,
            f"The token was exchanged {MAX_ACTORS} times already; call on with the one at hand.",
        )
    return SessionClaims(
        subject=token.subject,
        client_id=actor,
        session_id=str(token.family) if token.family else None,
        roles=token.roles,
        auth_time_seconds=token.auth_time_seconds,
        acr=token.acr,
        amr=token.amr,
        actors=(actor, *token.actors),
        private=serialised_private(token.private),
    )


def _require_within(reason: Reason, what: str, wanted: Sequence[str], granted: Sequence[str]) -> None:
    for name in wanted:
        if name not in granted:
            raise IdentityError(reason, f"The token does not cover the {what} {name!r}.")


def _raise_unless_exchanged(verdict: ExchangeVerdict) -> None:
    match verdict:
        case ExchangeVerdict.EXCHANGED:
            return
        case ExchangeVerdict.TOKEN_INVALID:
            raise _invalid(recorded=True)
        case ExchangeVerdict.CLIENT_DISABLED:
            raise IdentityError(Reason.CLIENT_DISABLED, "This client is disabled.", recorded=True)
        case ExchangeVerdict.OUTBOX_FULL:
            raise audit_unavailable()
        case _:
            assert_never(verdict)


def _invalid(*, recorded: bool) -> IdentityError:
    return IdentityError(
        Reason.SUBJECT_TOKEN_INVALID,
        "The token to exchange is no access token of this service, has expired or was revoked.",
        recorded=recorded,
    )
