"""The one place where the parts are put together.

``IdentityServer`` is the whole service as one object: settings in, two listening ports out. ``serve`` runs it
until a signal asks it to end, and lets what is under way finish.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.routing import BaseRoute

from identity.audit.backlog_watch import BacklogWatch
from identity.audit.recorder import RefusalRecorder
from identity.audit.relay.relay import AuditRelay
from identity.audit_sinks import naming_of
from identity.clients.administration import ClientAdministration
from identity.clients.registry import ClientRegistry
from identity.clients.secrets import SecretHasher
from identity.clock import Clock, SystemClock
from identity.config import Settings
from identity.errors import IdentityError
from identity.exporting import exports_of
from identity.gauges import (
    StoreMeters,
    observe_backlog,
    observe_health,
    observe_keys,
    observe_process,
    observe_refusals,
    observe_relay,
    observe_sessions,
    observe_verifiers,
)
from identity.http.app import create_app
from identity.http.server import HttpServer
from identity.keys.administration import KeyAdministration
from identity.keys.ports import KeyStoreAwayError
from identity.parts import (
    StoreParts,
    audit_relay,
    checkpoint_writer,
    claims_source,
    key_service,
)
from identity.process import BackgroundTasks, done_before, end_signals
from identity.readiness import Problem
from identity.rpc.admin_service import AdminService
from identity.rpc.authentication import CallerAuthenticator
from identity.rpc.budgets import ClientBudgets
from identity.rpc.calls import Calls
from identity.rpc.failures import FailureLog
from identity.rpc.identity_service import IdentityService
from identity.rpc.metrics import CallMetrics, RefreshMetrics
from identity.rpc.server import Bounds, RpcServer, Transport, split_address
from identity.rpc.spans import CallSpans
from identity.rpc.verifier_state import VerifierWatch
from identity.sessions.recent import RecentSessions
from identity.telemetry.instruments import CALLS_UNDER_WAY, USES_LOST
from identity.telemetry.meters import Meters
from identity.use_cases import Surroundings, refresh_tokens_of, use_cases_of
from identity.verifiers.census import Census
from identity.verifiers.feed import VerifierFeed
from identity.verifiers.roster import Roster

READINESS_INTERVAL_SECONDS = 1.0
KEYRING_RETRY_SECONDS = 0.5
FINAL_FLUSH_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the service can be reached. ``http_url`` is empty when HTTP is off."""

    grpc_target: str
    http_url: str


class IdentityServer:
    """The service. ``start`` once, ``stop`` once."""

    def __init__(
        self, settings: Settings, *, extra_routes: Sequence[BaseRoute] = (), clock: Clock | None = None
    ) -> None:
        self.settings = settings
        self._clock = clock or SystemClock()
        self.meters = Meters()
        self.store = StoreParts(settings, StoreMeters(self.meters))
        self._extra_routes = extra_routes
        self._instance_id = secrets.token_hex(4)
        self._recorder = RefusalRecorder(self.store.outbox)
        self.keys = key_service(settings, self._clock, self.store, self._recorder)
        self._claims_source = claims_source(settings, self.meters)
        self._feed = VerifierFeed(
            self.store.feed, self._instance_id, keys_version=lambda: self.keys.published().version
        )
        self._roster = Roster(time.monotonic)
        self._census = Census(self.store.board, self._feed, self._roster, ready_keys=self.keys.ready_keys)
        self.keys.on_published = self._feed.keys_changed
        self.keys.uptake = self._census
        self._problems: Sequence[Problem] = (Problem("starting", "The service is starting."),)
        self._tasks = BackgroundTasks()
        self._backlog = BacklogWatch(
            self.store.outbox, self.store.relay_outbox, settings.audit.sinks, time.monotonic
        )
        self._checkpoints = checkpoint_writer(settings, self.store, self.keys, self._instance_id)
        self._sessions = RecentSessions(self.store.session_tally)
        self._refreshes = RefreshMetrics(self.meters)
        self._count_lost_uses = self.meters.counter(USES_LOST).inc
        self._calls = CallMetrics(self.meters)
        self._budgets = ClientBudgets()
        self._exports = exports_of(os.environ, self.meters, self._clock, self._instance_id)
        self._failures: FailureLog | None = None
        self._observe()
        self._closed = asyncio.Event()
        self._relay: AuditRelay | None = None
        self._rpc: RpcServer | None = None
        self._http: HttpServer | None = None
        self.addresses = Addresses("", "")

    async def start(self) -> Addresses:
        """Listens. Comes up even while the store is away: not ready, and ready once it is back."""
        settings = self.settings
        transport = Transport(
            listen=settings.grpc.listen,
            certificate_file=settings.grpc.tls_certificate_file,
            private_key_file=settings.grpc.tls_private_key_file,
            client_ca_file=settings.grpc.tls_client_ca_file,
            allow_plaintext=settings.grpc.allow_plaintext,
        )
        # Before the store is waited for: what is wrong with the settings does not pass.
        transport.check()
        if settings.audit.relay:
            self._relay = audit_relay(settings, self.store, self._instance_id)
            observe_relay(self.meters, self._relay)
        http_url = await self._start_http()
        await self._start_keys()
        hasher = SecretHasher(self.keys.client_secret_pepper())
        registry = ClientRegistry(self.store.clients, hasher)
        with contextlib.suppress(IdentityError):
            await registry.refresh()
        watch = VerifierWatch(self._feed, self._roster, self.keys)
        self._failures = FailureLog(registry, naming_of(settings))
        calls = Calls(
            CallerAuthenticator(registry),
            registry,
            self._budgets,
            self._recorder,
            self._calls,
            self._failures,
            None if self._exports.tracer is None else CallSpans(self._exports.tracer, self._exports.now_ns),
        )
        administration = ClientAdministration(
            registry, self.store.clients, self.store.revocations, hasher, self._clock
        )
        if self._claims_source is not None:
            self._claims_source.start()
        self.refresh_tokens, sealing = refresh_tokens_of(self.keys)
        around = Surroundings(
            self.store,
            self.keys,
            self._clock,
            self._recorder,
            self._claims_source,
            self._sessions,
            self._refreshes,
            self._count_lost_uses,
        )
        use_cases = use_cases_of(settings, around, self.refresh_tokens, sealing)
        self._rpc = RpcServer(
            identity_service=IdentityService(
                calls, use_cases, self.keys, watch, self._census, self._clock, self._refreshes
            ),
            admin_service=AdminService(
                calls,
                administration,
                use_cases.explain,
                self._census,
                self._clock,
                KeyAdministration(self.keys),
                self._refreshes,
            ),
            calls=calls,
            transport=transport,
            bounds=Bounds(
                settings.grpc.max_message_bytes,
                settings.grpc.max_metadata_bytes,
                settings.grpc.max_concurrent_calls,
            ),
            with_reflection=settings.reflection_enabled,
        )
        grpc_target = await self._rpc.start()
        if self._relay is not None:
            self._tasks.start(self._relay.run())
        await self._look_at_readiness()
        self._tasks.start(
            self._backlog.run(),
            self._checkpoints.run(),
            registry.run(),
            self._recorder.run(),
            self.keys.run(),
            self._feed.run(),
            self._census.run(),
            self._sessions.run(),
            self._failures.run(),
            self._exports.run(),
            self._watch_readiness(),
        )
        _log.info("serving gRPC on %s, HTTP on %s", grpc_target, http_url or "no port")
        self.addresses = Addresses(grpc_target, http_url)
        return self.addresses

    async def stop(self, grace_seconds: float | None = None) -> None:
        """Takes no new calls, lets those under way finish, hands over what is recorded, and lets go; once."""
        if self._closed.is_set():
            return
        grace = self.settings.grpc.drain_seconds if grace_seconds is None else grace_seconds
        # Verifiers go to other servers now, and do not hold up the end of this one.
        self._feed.close()
        if self._rpc is not None:
            await self._rpc.stop(grace)
        if self._http is not None:
            await self._http.stop()
        if self._claims_source is not None:
            await self._claims_source.close()
        await self._tasks.end()
        await self._census.close()
        if self._failures is not None:
            self._failures.close()
        try:
            async with asyncio.timeout(FINAL_FLUSH_SECONDS):
                await self._recorder.flush()
                if self._relay is not None:
                    await self._relay.drain()
        except (IdentityError, TimeoutError):
            _log.warning("some events could not be handed over; those in the outbox go with the next start")
        if self._relay is not None:
            await self._relay.close()
        await self.keys.close()
        await self._exports.close()
        await self.store.close()
        self._closed.set()

    async def wait_closed(self) -> None:
        """Returns once ``stop`` has finished."""
        await self._closed.wait()

    def _observe(self) -> None:
        meters = self.meters
        observe_keys(meters, self.keys)
        observe_verifiers(meters, self._roster, self._feed)
        observe_backlog(meters, self._backlog)
        observe_refusals(meters, self._recorder)
        observe_sessions(meters, self._sessions)
        observe_health(meters, lambda: self._problems)
        observe_process(meters)
        meters.observe_one(CALLS_UNDER_WAY, lambda: self._budgets.under_way)

    async def _start_keys(self) -> None:
        """Waits for a keyring that is in the store, while that is away."""
        said = ""
        while True:
            try:
                await self.keys.start()
            except KeyStoreAwayError as error:
                if not said:
                    said = str(error)
                    _log.warning("waiting for the keyring: %s", said)
                self._problems = (Problem("keyring_unavailable", said),)
                await asyncio.sleep(KEYRING_RETRY_SECONDS)
            else:
                return

    async def _start_http(self) -> str:
        if not self.settings.http.enabled:
            return ""
        host, port = split_address(self.settings.http.listen)
        app = create_app(
            keys=self.keys,
            issuer=self.settings.issuer,
            readiness=self._ready,
            metrics=self.meters.registry,
            extra_routes=self._extra_routes,
        )
        self._http = HttpServer(app, host, port)
        return f"http://{host}:{await self._http.start()}"

    async def _ready(self) -> Sequence[Problem]:
        if self._rpc is not None:
            await self._look_at_readiness()
        return self._problems

    async def _look_at_readiness(self) -> None:
        problems = [*await self.store.problems(), *self.keys.problems(), *self._backlog.problems()]
        problems += self._checkpoints.overdue.problems()
        if self._relay is not None:
            problems += self._relay.problems()
        if problems != list(self._problems):
            for problem in problems:
                state = "not ready" if problem.blocks else "impaired"
                _log.warning("%s: %s: %s", state, problem.name, problem.message)
            if not problems:
                _log.info("ready")
        self._problems = tuple(problems)
        if self._rpc is not None:
            await self._rpc.set_serving(not any(problem.blocks for problem in problems))

    async def _watch_readiness(self) -> None:
        while True:
            await asyncio.sleep(READINESS_INTERVAL_SECONDS)
            await self._look_at_readiness()


async def serve(
    settings: Settings,
    on_ready: Callable[[IdentityServer], Awaitable[None]] | None = None,
    *,
    extra_routes: Sequence[BaseRoute] = (),
) -> None:
    """Serves until SIGTERM or SIGINT, then drains. A second signal ends without waiting."""
    server = IdentityServer(settings, extra_routes=extra_routes)
    try:
        with end_signals() as asked_to_end:
            if not await done_before(server.start(), asked_to_end):
                return
            if on_ready is not None:
                await on_ready(server)
            await asked_to_end.wait()
    finally:
        await server.stop()
