"""The audit relay as a process of its own: it needs the store and the sinks, and holds no key."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence

from identity.audit.backlog_watch import BacklogWatch
from identity.clock import SystemClock
from identity.config import Settings
from identity.errors import IdentityError
from identity.exporting import exports_of
from identity.gauges import StoreMeters, observe_backlog, observe_health, observe_process, observe_relay
from identity.http.app import create_operations_app
from identity.http.server import HttpServer
from identity.parts import StoreParts, audit_relay
from identity.process import BackgroundTasks, end_signals
from identity.readiness import Problem
from identity.rpc.server import split_address
from identity.telemetry.meters import Meters

FINAL_DRAIN_SECONDS = 5.0
READINESS_INTERVAL_SECONDS = 2.0

_log = logging.getLogger(__name__)


class RelayProcess:
    """``start`` once, ``stop`` once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.meters = Meters()
        self._store = StoreParts(settings, StoreMeters(self.meters))
        self._name = secrets.token_hex(4)
        self._clock = SystemClock()
        self._backlog = BacklogWatch(
            self._store.outbox, self._store.relay_outbox, settings.audit.sinks, time.monotonic
        )
        self._latest: Sequence[Problem] = (Problem("starting", "The relay is starting."),)
        self._exports = exports_of(os.environ, self.meters, self._clock, self._name)
        self._tasks = BackgroundTasks()
        self._http: HttpServer | None = None
        self.relay = audit_relay(settings, self._store, self._name)
        observe_relay(self.meters, self.relay)
        observe_backlog(self.meters, self._backlog)
        observe_health(self.meters, lambda: self._latest)
        observe_process(self.meters)

    async def start(self) -> str:
        """Relays from now on, and while the store is away waits for it. Gives the URL of the HTTP side, empty without one."""
        url = ""
        if self._settings.audit.relay_listen:
            host, port = split_address(self._settings.audit.relay_listen)
            app = create_operations_app(readiness=self._problems, metrics=self.meters.registry)
            self._http = HttpServer(app, host, port)
            url = f"http://{host}:{await self._http.start()}"
        self._tasks.start(self.relay.run(), self._backlog.run(), self._exports.run(), self._watch_readiness())
        sinks = ", ".join(each.sink.name for each in self.relay.by_sink)
        _log.info("relaying audit events to %s, as relay %s; HTTP on %s", sinks, self._name, url or "no port")
        return url

    async def stop(self) -> None:
        """Relays what is there now, as far as the sinks take it, and leaves the rest to others."""
        await self._tasks.end()
        try:
            async with asyncio.timeout(FINAL_DRAIN_SECONDS):
                await self.relay.drain()
        except (IdentityError, TimeoutError):
            _log.warning("some events are left to other relays, or to the next start")
        await self.relay.close()
        if self._http is not None:
            await self._http.stop()
        await self._exports.close()
        await self._store.close()

    async def _problems(self) -> Sequence[Problem]:
        problems = [*await self._store.problems(), *self.relay.problems(), *self._backlog.differing()]
        self._latest = problems
        return problems

    async def _watch_readiness(self) -> None:
        # For the gauges; whoever asks /readyz is told what is so at that moment.
        while True:
            await self._problems()
            await asyncio.sleep(READINESS_INTERVAL_SECONDS)


async def serve_relay(settings: Settings, on_ready: Callable[[str], Awaitable[None]] | None = None) -> None:
    """Relays until SIGTERM or SIGINT. A second signal ends without waiting."""
    process = RelayProcess(settings)
    with end_signals() as asked_to_end:
        url = await process.start()
        if on_ready is not None:
            await on_ready(url)
        await asked_to_end.wait()
    await process.stop()
