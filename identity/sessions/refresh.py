"""Spending a refresh token (RFC 6749, section 6; RFC 9700, section 4.14.2).

The store decides, in one step, by these rules, the first that fits:

==================================  ====================================================  =====================
presented                           stored                                                answer
==================================  ====================================================  =====================
not authentic                       (the store is not asked)                              REFRESH_TOKEN_INVALID
authentic                           no such family                                        REFRESH_TOKEN_INVALID
by another client                   anything                                              family revoked
anything                            family, subject or client revoked                     FAMILY_REVOKED
anything                            past absolute or idle expiry                          REFRESH_TOKEN_EXPIRED
generation g                        current g                                             rotated to g+1
generation g-1                      current g, rotated with this idempotency key          the same g again
generation g-1                      current g, rotated without a key, within the leeway   the same g again
generation g-1 or older, otherwise  current g                                             family revoked; or only
                                                                                          recorded, by policy
generation g+k, k <= 64             current g, used in the last day (the store lost       fast-forward
                                    writes)
==================================  ====================================================  =====================

Refreshing never ends access tokens in flight, and never extends the absolute lifetime.

Where there is a claims source, the store first says what spending would give, and refuses what it would refuse; then the
source is asked (``current_claims``); only then the token is spent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from identity.audit.event import Circumstances, Event, EventType, Outcome, new_event_id
from identity.audit.ports import EventRecorder
from identity.clients.policy import Grant, Lifetimes, require_grant
from identity.errors import IdentityError, Reason, audit_unavailable
from identity.keys.ports import Signer
from identity.rate_limiter import RateLimiter
from identity.sessions.caller import Caller
from identity.sessions.current_claims import CurrentClaims, without_answer
from identity.sessions.issue import digest_of
from identity.sessions.minting import AccessTokenMint, MintedTokens, Recording, SessionTokens
from identity.store.decisions import NotSpent, Spend, SpendLimits, SpendVerdict, Spent
from identity.store.ports import SessionStore
from identity.tokens.access_token import claims_of_session
from identity.tokens.family_id import FamilyId, bucket_of
from identity.tokens.lifetimes import refresh_expires_at_ms
from identity.tokens.refresh_token import RefreshToken, RefreshTokenCodec, RefreshTokenInvalidError


@dataclass(frozen=True, slots=True)
class RefreshRequest:
    """A checked request. Empty scopes and audience: those of the session."""

    refresh_token: str = field(repr=False)
    idempotency_key: str = ""
    scopes: tuple[str, ...] = ()
    audience: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refresh:
    """The use case."""

    store: SessionStore
    mint: AccessTokenMint
    codec: RefreshTokenCodec
    lifetimes: Lifetimes
    limits: SpendLimits
    forgeries: RateLimiter
    recorder: EventRecorder
    buckets: int
    retry_window_seconds: int
    recovery_window_seconds: int
    count: Callable[[SpendVerdict, str, str], None]
    current_claims: CurrentClaims | None = None

    async def __call__(self, caller: Caller, request: RefreshRequest) -> MintedTokens:
        """The next tokens of the session. Raises what Refresh in the proto says."""
        require_grant(caller.policy, Grant.REFRESH)
        signer = self.mint.signer()
        token = self._authentic(caller, request)
        spend = Spend(
            family=token.family,
            generation=token.generation,
            family_secret_hash=token.family_secret_hash,
            client_id=caller.client_id,
            idempotency_key_digest=digest_of(request.idempotency_key) if request.idempotency_key else b"",
            retry_window_ms=self.retry_window_seconds * 1000,
            leeway_ms=self.lifetimes.refresh_leeway(caller.policy) * 1000,
            scopes=request.scopes,
            audience=request.audience,
            end_user=caller.end_user,
            limits=self.limits,
            recovery_window_ms=self.recovery_window_seconds * 1000,
            reuse_policy=caller.policy.reuse_policy,
        )
        circumstances = caller.circumstances.giving(signer.kid, request.audience, request.scopes)
        if self.current_claims is not None and not await self._bring_claims_up_to_date(
            self.current_claims, caller, request, signer, spend
        ):
            circumstances = without_answer(circumstances)
        event_id = new_event_id()
        spent = await self._spend(spend, event_id, circumstances)
        self.count(spent.verdict, caller.client_id, caller.end_user.ip_address)
        terms = spent.terms
        live = RefreshToken(token.family, spent.generation, token.family_secret)
        expires_at_ms = refresh_expires_at_ms(
            spent.now_ms, spent.absolute_expiry_ms, terms.lifetime.idle_seconds * 1000
        )
        bucket = bucket_of(token.family.subject_tag, self.buckets)
        return await self.mint.mint(
            signer,
            Recording(bucket, spent.sequence, event_id, spent.now_ms),
            session_claims=_claims(token.family, spent, spent.roles, spent.private_claims),
            audience=request.audience or terms.audience,
            scopes=request.scopes or terms.scopes,
            ttl_seconds=self.lifetimes.access_token(caller.policy),
            session=SessionTokens(str(token.family), self.codec.encode(live), expires_at_ms),
        )

    async def _bring_claims_up_to_date(
        self, current: CurrentClaims, caller: Caller, request: RefreshRequest, signer: Signer, spend: Spend
    ) -> bool:
        looked = await self._spend(replace(spend, look_only=True), new_event_id(), caller.circumstances)
        audience = request.audience or looked.terms.audience
        scopes = request.scopes or looked.terms.scopes

        def require_fit(roles: str, private: str) -> None:
            self.mint.check_size(signer, _claims(spend.family, looked, roles, private), audience, scopes)

        return await current.before_refresh(caller, spend.family, looked, require_fit)

    async def _spend(self, spend: Spend, event_id: bytes, circumstances: Circumstances) -> Spent:
        spent = await self.store.spend(spend, event_id, circumstances)
        if isinstance(spent, NotSpent):
            self.count(spent.verdict, spend.client_id, spend.end_user.ip_address)
            raise _refusal(spent, str(spend.family))
        return spent

    def _authentic(self, caller: Caller, request: RefreshRequest) -> RefreshToken:
        try:
            return self.codec.decode(request.refresh_token)
        except RefreshTokenInvalidError:
            address = caller.end_user.ip_address
            wait_seconds = self.forgeries.spend(address) if address else 0.0
            verdict = SpendVerdict.RATE_LIMITED if wait_seconds else SpendVerdict.UNKNOWN
            self.count(verdict, caller.client_id, address)
            reason = Reason.RATE_LIMITED if wait_seconds else Reason.REFRESH_TOKEN_INVALID
            self.recorder.record(
                Event(EventType.REFRESH_REFUSED, Outcome.REFUSED, caller.circumstances, reason)
            )
            if wait_seconds:
                raise _rate_limited(wait_seconds) from None
            raise _refused(Reason.REFRESH_TOKEN_INVALID) from None


_MESSAGES = {
    Reason.REFRESH_TOKEN_INVALID: "This is not a refresh token of a session here; log in again.",
    Reason.REFRESH_TOKEN_EXPIRED: "The session has expired; log in again.",
    Reason.REFRESH_TOKEN_REUSED: "This refresh token was spent before; the session has been ended. Log in again.",
    Reason.FAMILY_REVOKED: "The session was ended; log in again.",
    Reason.SCOPE_NOT_ALLOWED: "The session was not granted one of these scopes.",
    Reason.AUDIENCE_NOT_ALLOWED: "The session was not granted one of these audiences.",
}
_REASONS = {
    SpendVerdict.UNKNOWN: Reason.REFRESH_TOKEN_INVALID,
    SpendVerdict.WRONG_CLIENT: Reason.REFRESH_TOKEN_INVALID,
    SpendVerdict.REVOKED: Reason.FAMILY_REVOKED,
    SpendVerdict.EXPIRED: Reason.REFRESH_TOKEN_EXPIRED,
    SpendVerdict.REUSED: Reason.REFRESH_TOKEN_REUSED,
    SpendVerdict.SCOPE_EXCEEDED: Reason.SCOPE_NOT_ALLOWED,
    SpendVerdict.AUDIENCE_EXCEEDED: Reason.AUDIENCE_NOT_ALLOWED,
}


def _claims(family: FamilyId, spent: Spent, roles: str, private: str) -> str:
    return claims_of_session(spent.subject, str(family), spent.terms, spent.auth_time_seconds, roles, private)


def _refusal(refused: NotSpent, session_id: str) -> IdentityError:
    match refused.verdict:
        case SpendVerdict.RATE_LIMITED:
            return _rate_limited(refused.retry_after_ms / 1000, session_id)
        case SpendVerdict.OUTBOX_FULL:
            return audit_unavailable()
        case verdict:
            return _refused(_REASONS[verdict], session_id)


def _refused(reason: Reason, session_id: str = "") -> IdentityError:
    return IdentityError(reason, _MESSAGES[reason], recorded=True, session_id=session_id)


def _rate_limited(wait_seconds: float, session_id: str = "") -> IdentityError:
    return IdentityError(
        Reason.RATE_LIMITED,
        "Too many refreshes; wait as long as RetryInfo says.",
        retry_after_seconds=wait_seconds,
        recorded=True,
        session_id=session_id,
    )
