"""From settings to parts: the adapters of one process, and the values the rules are given."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from grpc_identity.circuit_breaker import CircuitBreaker
from identity.audit.checkpointing import CheckpointWriter, Signing
from identity.audit.ports import EventRecorder
from identity.audit.relay.relay import AuditRelay, RelayPace, SinkRelay
from identity.audit_sinks import audit_sinks, shape_of
from identity.claims_source.grpc_source import GrpcClaimsSource, SourceTransport
from identity.claims_source.metrics import SourceMetrics
from identity.clients.policy import Lifetimes
from identity.clock import Clock, SystemClock
from identity.config import ConfigurationError, Settings
from identity.errors import FieldViolation
from identity.gauges import BACKGROUND, CALLS, StoreMeters
from identity.keys.custody import Custody
from identity.keys.file_store import FileKeyStore
from identity.keys.keyring import LOCAL
from identity.keys.ports import KeyProvider, KeyStore, ProviderError
from identity.keys.providers.by_uri import providers_by_scheme, require_algorithm, scheme_of
from identity.keys.providers.remote import RemoteLimits
from identity.keys.providers.wrapping import unwrapped_kek
from identity.keys.sealing import KeyEncryptionKey, load_kek_file
from identity.keys.service import KeyService
from identity.readiness import Problem
from identity.sessions.current_claims import CurrentClaims, WhenAway
from identity.store.redis.address import StoreAddress
from identity.store.redis.checkpoints import RedisCheckpointTurns
from identity.store.redis.clients import RedisClientStore
from identity.store.redis.dead_letters import RedisDeadLetterBox
from identity.store.redis.durability import Durability
from identity.store.redis.fitness import store_problems
from identity.store.redis.keyring import RedisKeyStore
from identity.store.redis.keys import KeySpace
from identity.store.redis.known_claims import RedisKnownClaimsStore
from identity.store.redis.opening import open_store
from identity.store.redis.outbox import RedisEventOutbox
from identity.store.redis.outbox_view import RedisOutboxView
from identity.store.redis.reading import RedisSessionReader
from identity.store.redis.recent_sessions import RedisSessionTally
from identity.store.redis.relay_outbox import RedisRelayOutbox
from identity.store.redis.revocations import RedisRevocationStore
from identity.store.redis.scripted import ScriptContext, StoreClock
from identity.store.redis.sessions import RedisSessionStore
from identity.store.redis.topology import Bounds
from identity.store.redis.usage import RedisUsageOutbox
from identity.store.redis.verifiers import RedisInstanceBoard
from identity.telemetry.meters import Meters


class StoreParts:
    """The Redis adapters of one process, over one connection to the store."""

    def __init__(self, settings: Settings, watch: StoreMeters | None = None) -> None:
        self.keys = KeySpace(settings.redis.key_prefix, settings.redis.buckets)
        self.connection, self.feed = open_store(
            StoreAddress.parse(settings.redis.url.get_secret_value()),
            _bounds(settings, watch),
            self.keys,
        )
        if watch is not None:
            watch.look_at(self.connection)
        bound = outbox_bound(settings)
        self.clock = StoreClock()
        refreshing = Durability.named(settings.redis.refresh_durability)
        revoking = Durability.named(settings.redis.revoke_durability)
        self._durability = max(refreshing, revoking)
        context = ScriptContext(
            self.connection,
            self.keys,
            bound,
            self.clock,
            refreshing=refreshing,
            revoking=revoking,
        )
        self._context = context
        self.sessions = RedisSessionStore(context)
        self.revocations = RedisRevocationStore(context)
        self.reader = RedisSessionReader(context)
        self.known_claims = RedisKnownClaimsStore(context)
        self.clients = RedisClientStore(self.connection, self.keys, outbox_bound=bound)
        self.keyring = RedisKeyStore(self.connection, self.keys, outbox_bound=bound, durability=revoking)
        self.outbox = RedisEventOutbox(context)
        self.usage = RedisUsageOutbox(context)
        self.relay_outbox = RedisRelayOutbox(context)
        self.outbox_view = RedisOutboxView(context)
        self.dead_letters = RedisDeadLetterBox(context)
        self.board = RedisInstanceBoard(self.connection, self.keys)
        self.session_tally = RedisSessionTally(self.connection, self.keys, SystemClock())

    def checkpoint_turns(self, name: str) -> RedisCheckpointTurns:
        """The turns of the server of that name."""
        return RedisCheckpointTurns(self._context, instance_id=name)

    async def close(self) -> None:
        """Waits for what is on its way, then disconnects."""
        await self.feed.close()
        await self.connection.close()

    async def problems(self) -> Sequence[Problem]:
        """What keeps the store from being fit."""
        return await store_problems(self.connection, self.keys, self._durability)


def _bounds(settings: Settings, watch: StoreMeters | None) -> Bounds:
    bounds = Bounds(settings.redis.timeout_ms / 1000, settings.redis.max_batch)
    if watch is None:
        return bounds
    return replace(bounds, watch_calls=watch.watch(CALLS), watch_background=watch.watch(BACKGROUND))


def outbox_bound(settings: Settings) -> str:
    """As the scripts take it: at how many events the outbox of a bucket is full, and whether refusals make room then."""
    makes_room = settings.audit.when_full == "drop_oldest_refusals"
    return f"{settings.audit.outbox_max_events}{'~' if makes_room else ''}"


def audit_relay(settings: Settings, store: StoreParts, name: str) -> AuditRelay:
    """A relay to every sink that the settings name. Raises ``ConfigurationError``."""
    sinks, shape = audit_sinks(settings, name), shape_of(settings)
    pace = RelayPace(settings.audit.relay_batch, settings.audit.relay_poll_ms / 1000)
    names = [sink.name for sink in sinks]
    return AuditRelay(
        store.relay_outbox,
        [
            SinkRelay(store.relay_outbox, sink, relay=name, sinks=names, pace=pace, shape=shape)
            for sink in sinks
        ],
        relay=name,
        buckets=settings.redis.buckets,
    )


def checkpoint_writer(settings: Settings, store: StoreParts, keys: KeyService, name: str) -> CheckpointWriter:
    """Signs how far the sinks have got, when it is this server's turn. ``name`` is that of the server."""

    def public_jwk(kid: str) -> Mapping[str, Any] | None:
        key = keys.keyring.get(kid)
        return None if key is None else key.public_jwk

    return CheckpointWriter(
        store.outbox,
        store.outbox,
        store.relay_outbox,
        store.checkpoint_turns(name),
        Signing(settings.issuer, keys.active_signer, public_jwk),
        settings.audit.sinks,
        settings.audit.checkpoint_seconds,
    )


def lifetimes_of(settings: Settings) -> Lifetimes:
    """The service's lifetimes."""
    tokens = settings.tokens
    return Lifetimes(
        access_token_seconds=tokens.access_ttl_seconds,
        web_session_seconds=int(timedelta(days=tokens.web_session_days).total_seconds()),
        mobile_session_seconds=int(timedelta(days=tokens.mobile_session_days).total_seconds()),
        session_idle_seconds=int(timedelta(hours=tokens.idle_hours).total_seconds()),
        refresh_leeway_seconds=tokens.refresh_leeway_seconds,
        sessions_per_subject=settings.limits.sessions_per_subject,
    )


def key_encryption_key(settings: Settings) -> KeyEncryptionKey:
    """The key that opens the keyring. Raises ``SealError`` and ``ConfigurationError``."""
    keys = settings.keys
    previous = load_kek_file(keys.previous_kek_file) if keys.previous_kek_file is not None else None
    return replace(_newest_key_encryption_key(settings), previous=previous)


def _newest_key_encryption_key(settings: Settings) -> KeyEncryptionKey:
    keys = settings.keys
    if scheme_of(keys.kek_provider) != LOCAL:
        return _unwrapped(settings)
    if keys.kek is not None:
        return KeyEncryptionKey.from_base64(keys.kek.get_secret_value())
    if keys.kek_file is not None:
        return load_kek_file(keys.kek_file)
    raise ConfigurationError(
        [FieldViolation("keys.kek_file", "is required: private keys are not kept in the clear")]
    )


def key_store(settings: Settings, store: StoreParts, recorder: EventRecorder | None = None) -> KeyStore:
    """Where the settings have the keyring. ``recorder`` is for the events of a keyring in a file."""
    if settings.keys.store == "file":
        return FileKeyStore(settings.keys.file, recorder)
    return store.keyring


def remote_limits(settings: Settings) -> RemoteLimits:
    """How long and how much at once is asked of a key provider."""
    return RemoteLimits(settings.keys.provider_timeout_ms / 1000, settings.keys.provider_concurrency)


def _unwrapped(settings: Settings) -> KeyEncryptionKey:
    keys = settings.keys
    # Whoever reads what is wrapped has nothing: unlike the key itself, its file may be readable.
    text = keys.kek.get_secret_value() if keys.kek is not None else ""
    if keys.kek_file is not None and not text:
        text = (_content("keys.kek_file", keys.kek_file) or b"").decode("ascii", "replace")
    try:
        return KeyEncryptionKey(unwrapped_kek(keys.kek_provider, text, remote_limits(settings)))
    except ProviderError as error:
        raise ConfigurationError([FieldViolation("keys.kek_provider", str(error))]) from None


def key_service(
    settings: Settings, clock: Clock, store: StoreParts, recorder: EventRecorder | None = None
) -> KeyService:
    """The keys as the settings name them. Raises ``SealError`` and ``ConfigurationError``."""
    keys = settings.keys
    custody = Custody(
        key_encryption_key(settings),
        key_providers(settings),
        clock,
        keys.algorithm,
        new_keys_in=scheme_of(keys.provider),
    )
    return KeyService(key_store(settings, store, recorder), custody, keys.schedule(), clock)


def key_providers(settings: Settings) -> Mapping[str, KeyProvider]:
    """Where keys are, by the scheme that the keyring names each place by. Raises ``ConfigurationError``."""
    keys = settings.keys
    try:
        require_algorithm(keys.provider, keys.algorithm)
    except ProviderError as error:
        raise ConfigurationError([FieldViolation("keys.algorithm", str(error))]) from None
    try:
        return providers_by_scheme(keys.provider, keys.former_providers, remote_limits(settings))
    except ProviderError as error:
        raise ConfigurationError([FieldViolation("keys.provider", str(error))]) from None


def claims_source_transport(settings: Settings) -> SourceTransport | None:
    """The way to the claims source, if the settings name one. Raises ``ConfigurationError``."""
    chosen = settings.claims_source
    if not chosen.target:
        return None
    return SourceTransport(
        chosen.target,
        ca=_content("claims_source.ca_file", chosen.ca_file),
        certificate=_content("claims_source.certificate_file", chosen.certificate_file),
        private_key=_content("claims_source.private_key_file", chosen.private_key_file),
        allow_plaintext=chosen.allow_plaintext,
    )


def claims_source(settings: Settings, meters: Meters) -> GrpcClaimsSource | None:
    """The claims source, if the settings name one. Raises ``ConfigurationError``."""
    transport = claims_source_transport(settings)
    if transport is None:
        return None
    chosen = settings.claims_source
    return GrpcClaimsSource(
        transport,
        timeout_seconds=chosen.timeout_ms / 1000,
        allowed_claims=chosen.allowed_claims,
        breaker=CircuitBreaker(
            monotonic=time.monotonic,
            failures_to_open=chosen.breaker_failures,
            max_open_seconds=chosen.breaker_max_open_seconds,
        ),
        metrics=SourceMetrics(meters),
        monotonic=time.monotonic,
    )


def current_claims(
    settings: Settings, source: GrpcClaimsSource | None, store: StoreParts, recorder: EventRecorder
) -> CurrentClaims | None:
    """What the use cases ask before they give tokens; ``None`` where there is no source."""
    if source is None:
        return None
    return CurrentClaims(
        source,
        store.known_claims,
        store.revocations,
        recorder,
        WhenAway(settings.claims_source.when_away_at_issue),
        WhenAway(settings.claims_source.when_away_at_refresh),
    )


def _content(setting: str, file: Path | None) -> bytes | None:
    try:
        return None if file is None else file.read_bytes()
    except OSError as error:
        raise ConfigurationError([FieldViolation(setting, f"cannot read {file}: {error.strerror}")]) from None
