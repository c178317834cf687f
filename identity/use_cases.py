"""From settings and parts to what the service can do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from grpc_identity.jwk import KeySet
from identity.audit.ports import EventRecorder
from identity.claims_source.grpc_source import GrpcClaimsSource
from identity.clock import Clock
from identity.config import Settings
from identity.keys.service import KeyService, PublishedKeys, RefreshTokenSecrets
from identity.parts import StoreParts, current_claims, lifetimes_of
from identity.rate_limiter import RateLimiter
from identity.rpc.identity_service import UseCases
from identity.rpc.metrics import RefreshMetrics
from identity.sessions.access_tokens import AccessTokenReader
from identity.sessions.erase import EraseSubject
from identity.sessions.exchange import ExchangeToken
from identity.sessions.explain import ExplainSession
from identity.sessions.introspect import Introspect
from identity.sessions.issue import IssueTokens
from identity.sessions.listing import ListSessions
from identity.sessions.minting import AccessTokenMint
from identity.sessions.recent import RecentSessions
from identity.sessions.refresh import Refresh
from identity.sessions.revoke import Revoke
from identity.sessions.sealed_answers import AnswerSealing
from identity.sessions.usage import RecordUsage
from identity.store.decisions import SpendLimits
from identity.tokens.access_token import AccessTokenAssembler
from identity.tokens.refresh_token import RefreshTokenCodec


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the use cases need of the running service beside its settings."""

    store: StoreParts
    keys: KeyService
    clock: Clock
    recorder: EventRecorder
    claims_source: GrpcClaimsSource | None
    sessions: RecentSessions
    refreshes: RefreshMetrics
    count_lost_uses: Callable[[int], None]


def refresh_tokens_of(keys: KeyService) -> tuple[RefreshTokenCodec, AnswerSealing]:
    """What makes and reads refresh tokens, and seals answers; both follow the secrets that ``keys`` has, which is started."""
    known = keys.refresh_token_secrets()
    codec = RefreshTokenCodec(known.by_id, known.active_id)
    sealing = AnswerSealing(known.by_id, known.active_id)

    def follow(kept: RefreshTokenSecrets) -> None:
        codec.use(kept.by_id, kept.active_id)
        sealing.use(kept.by_id, kept.active_id)

    keys.on_secrets = follow
    return codec, sealing


def use_cases_of(
    settings: Settings, around: Surroundings, codec: RefreshTokenCodec, sealing: AnswerSealing
) -> UseCases:
    """All of them. Within a running event loop."""
    store, sessions = around.store, around.store.sessions
    mint = AccessTokenMint(
        AccessTokenAssembler(settings.issuer), around.keys.active_signer, around.sessions.saw
    )
    reader = AccessTokenReader(settings.issuer, _key_set(around.keys), around.clock)
    lifetimes, limits = lifetimes_of(settings), settings.limits
    failures_per_minute = limits.effective_address_failures_per_minute
    current = current_claims(settings, around.claims_source, store, around.recorder)
    return UseCases(
        issue=IssueTokens(
            store=sessions,
            mint=mint,
            codec=codec,
            lifetimes=lifetimes,
            buckets=settings.redis.buckets,
            retry_window_seconds=settings.tokens.retry_window_seconds,
            sealing=sealing,
            current_claims=current,
        ),
        refresh=Refresh(
            store=sessions,
            mint=mint,
            codec=codec,
            lifetimes=lifetimes,
            limits=SpendLimits(
                limits.refreshes_per_family_per_minute,
                limits.effective_address_successes_per_minute,
                failures_per_minute,
            ),
            forgeries=RateLimiter(
                calls=failures_per_minute, per_seconds=60.0, monotonic=asyncio.get_running_loop().time
            ),
            recorder=around.recorder,
            buckets=settings.redis.buckets,
            retry_window_seconds=settings.tokens.retry_window_seconds,
            recovery_window_seconds=settings.tokens.recovery_window_seconds,
            count=around.refreshes.refreshed,
            current_claims=current,
        ),
        revoke=Revoke(store.revocations, codec, reader, around.recorder),
        introspect=Introspect(store.reader, codec, reader),
        list_sessions=ListSessions(store.reader),
        erase=EraseSubject(store.revocations),
        explain=ExplainSession(store.reader),
        exchange=ExchangeToken(sessions, mint, reader, lifetimes, settings.redis.buckets),
        record_usage=RecordUsage(store.usage, settings.issuer, around.count_lost_uses),
    )


def _key_set(keys: KeyService) -> Callable[[], KeySet | None]:
    def key_set() -> KeySet | None:
        published = keys.published()
        return _key_set_of(published) if published.jwks else None

    return key_set


@lru_cache(maxsize=4)
def _key_set_of(published: PublishedKeys) -> KeySet:
    return KeySet.from_dict({"keys": list(published.jwks)})
