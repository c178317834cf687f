"""Starting a session, and giving a client a token of its own (RFC 6749, sections 4.4 and 5.1)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import assert_never

from identity.audit.event import new_event_id
from identity.claims_source.ports import Active
from identity.clients.policy import Grant, Lifetimes, require_grant, require_request, require_subject
from identity.errors import IdentityError, Reason, audit_unavailable
from identity.keys.ports import Signer
from identity.sessions.caller import Caller
from identity.sessions.current_claims import CurrentClaims, without_answer
from identity.sessions.minting import AccessTokenMint, MintedTokens, Recording, SessionTokens
from identity.sessions.sealed_answers import AnswerSealing
from identity.store.decisions import IdempotentIssue, NewFamily, Started, StartVerdict
from identity.store.ports import SessionStore
from identity.tokens.access_token import SessionClaims, claims_of_session, serialised_roles
from identity.tokens.family_id import FAMILY_ID_BYTES, FamilyId, bucket_of, subject_tag
from identity.tokens.lifetimes import ClientKind, refresh_expires_at_ms
from identity.tokens.refresh_token import RefreshToken, RefreshTokenCodec, new_family_secret
from identity.tokens.session_terms import SessionTerms


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """A checked request. An empty subject asks for a token of the caller's own."""

    subject: str
    audience: tuple[str, ...]
    scopes: tuple[str, ...]
    client_kind: ClientKind
    roles: tuple[str, ...] = ()
    auth_time_seconds: int | None = None
    acr: str = ""
    amr: tuple[str, ...] = ()
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class IssueTokens:
    """The use case. ``sealing`` protects what a retry needs, for as long as a retry may come."""

    store: SessionStore
    mint: AccessTokenMint
    codec: RefreshTokenCodec
    lifetimes: Lifetimes
    buckets: int
    retry_window_seconds: int
    sealing: AnswerSealing
    current_claims: CurrentClaims | None = None

    async def __call__(self, caller: Caller, request: IssueRequest) -> MintedTokens:
        """Tokens, recorded before they exist. Raises what IssueTokens in the proto says."""
        require_grant(caller.policy, Grant.ISSUE if request.subject else Grant.CLIENT_CREDENTIALS)
        if request.subject:
            require_subject(caller.policy, request.subject)
        require_request(caller.policy, request.audience, request.scopes, request.roles)
        signer = self.mint.signer()
        if not request.subject:
            return await self._issue_service_token(caller, request, signer)
        return await self._start_session(caller, request, signer)

    async def _issue_service_token(
        self, caller: Caller, request: IssueRequest, signer: Signer
    ) -> MintedTokens:
        claims = SessionClaims(caller.client_id, caller.client_id, roles=request.roles).serialised()
        self.mint.check_size(signer, claims, request.audience, request.scopes)
        event_id = new_event_id()
        circumstances = caller.circumstances.giving(signer.kid, request.audience, request.scopes)
        granted = await self.store.grant_service_token(caller.client_id, event_id, circumstances)
        _raise_unless_started(granted.verdict)
        bucket = bucket_of(subject_tag(caller.client_id), self.buckets)
        return await self.mint.mint(
            signer,
            Recording(bucket, granted.sequence, event_id, granted.now_ms),
            session_claims=claims,
            audience=request.audience,
            scopes=request.scopes,
            ttl_seconds=self.lifetimes.access_token(caller.policy),
            session=None,
        )

    async def _start_session(self, caller: Caller, request: IssueRequest, signer: Signer) -> MintedTokens:
        token = RefreshToken(FamilyId.generate(request.subject), 0, new_family_secret())
        answer = None
        circumstances = caller.circumstances.giving(signer.kid, request.audience, request.scopes)
        if self.current_claims is not None:
            answer = await self.current_claims.before_issue(caller, request.subject, token.family)
            if answer is None:
                circumstances = without_answer(circumstances)
        lifetime = self.lifetimes.session(caller.policy, request.client_kind)
        terms = SessionTerms(
            client_id=caller.client_id,
            client_kind=request.client_kind,
            lifetime=lifetime,
            audience=request.audience,
            scopes=request.scopes,
            roles=serialised_roles(_roles(request, answer)),
            acr=request.acr,
            amr=request.amr,
        )
        claims = _session_claims(token, request, terms, answer)
        self.mint.check_size(signer, claims, request.audience, request.scopes)
        event_id = new_event_id()
        idempotent = self._idempotent(caller, request, token)
        started = await self.store.start_family(
            NewFamily(
                family=token.family,
                family_secret_hash=token.family_secret_hash,
                subject=request.subject,
                terms=terms,
                auth_time_seconds=request.auth_time_seconds,
                end_user=caller.end_user,
                max_sessions=self.lifetimes.max_sessions(caller.policy),
            ),
            event_id,
            circumstances,
            idempotent,
        )
        _raise_unless_started(started.verdict)
        if started.verdict is StartVerdict.REPEATED and idempotent is not None:
            token = self._unseal(started, idempotent)
            claims = _session_claims(token, request, terms, answer)
        if self.current_claims is not None and answer is not None:
            answer = await self.current_claims.after_issue(caller, request.subject, token.family, answer)
            claims = _session_claims(token, request, terms, answer)
        bucket = bucket_of(token.family.subject_tag, self.buckets)
        expires_at_ms = refresh_expires_at_ms(
            started.now_ms, started.absolute_expiry_ms, lifetime.idle_seconds * 1000
        )
        return await self.mint.mint(
            signer,
            Recording(bucket, started.sequence, event_id, started.now_ms),
            session_claims=claims,
            audience=request.audience,
            scopes=request.scopes,
            ttl_seconds=self.lifetimes.access_token(caller.policy),
            session=SessionTokens(str(token.family), self.codec.encode(token), expires_at_ms),
        )

    def _idempotent(
        self, caller: Caller, request: IssueRequest, token: RefreshToken
    ) -> IdempotentIssue | None:
        if not request.idempotency_key:
            return None
        key_digest = digest_of("issue", caller.client_id, request.subject, request.idempotency_key)
        secret = token.family.raw + token.family_secret
        return IdempotentIssue(
            key_digest=key_digest,
            request_digest=digest_of(repr(request)),
            sealed=self.sealing.seal(secret, key_digest),
            window_seconds=self.retry_window_seconds,
        )

    def _unseal(self, started: Started, idempotent: IdempotentIssue) -> RefreshToken:
        secret = self.sealing.open(started.sealed, idempotent.key_digest)
        if secret is None:
            raise IdentityError(
                Reason.IDEMPOTENCY_KEY_REUSED,
                "The first answer under this key can no longer be repeated; use a new key.",
            )
        return RefreshToken(FamilyId(secret[:FAMILY_ID_BYTES]), 0, secret[FAMILY_ID_BYTES:])


def digest_of(*parts: str) -> bytes:
    """16 bytes of SHA-256 over the parts, each closed off from the next."""
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode()).digest()[:16]


def _raise_unless_started(verdict: StartVerdict) -> None:
    match verdict:
        case StartVerdict.STARTED | StartVerdict.REPEATED:
            return
        case StartVerdict.KEY_REUSED:
            raise IdentityError(
                Reason.IDEMPOTENCY_KEY_REUSED,
                "This idempotency key was used for another request; use a new key for a new request.",
                recorded=True,
            )
        case StartVerdict.CLIENT_DISABLED:
            raise IdentityError(Reason.CLIENT_DISABLED, "This client is disabled.", recorded=True)
        case StartVerdict.FAMILY_REVOKED:
            raise IdentityError(
                Reason.FAMILY_REVOKED,
                "The session that this key started was ended; use a new key for a new one.",
                recorded=True,
            )
        case StartVerdict.OUTBOX_FULL:
            raise audit_unavailable()
        case _:
            assert_never(verdict)


def _roles(request: IssueRequest, answer: Active | None) -> tuple[str, ...]:
    return request.roles if answer is None or answer.roles is None else answer.roles


def _session_claims(
    token: RefreshToken, request: IssueRequest, terms: SessionTerms, answer: Active | None
) -> str:
    return claims_of_session(
        request.subject,
        str(token.family),
        terms,
        request.auth_time_seconds,
        serialised_roles(_roles(request, answer)),
        "" if answer is None else answer.private,
    )
