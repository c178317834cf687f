"""A host that is killed in the middle of its calls: every call that was answered is recorded, once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest

from grpc_identity import UsageRecorder
from grpc_identity.v1 import clients_pb2

ROUNDS = int(os.environ.get("USAGE_KILLS", "3"))
CALLS = 600
CALLERS = 16


class Host:
    """The process, and what was answered by it: subjects by method."""

    def __init__(self, stack: str, service: Any, directory: Path, turn: int) -> None:
        self._arguments = (
            stack,
            service.addresses.grpc_target,
            service.secrets["orders"],
            str(directory),
            str(turn),
            str(CALLS),
        )
        self.answered: dict[str, list[str]] = {"Use": [], "Must": []}

    async def _started(self) -> tuple[asyncio.subprocess.Process, Any]:
        script = str(Path(__file__).with_name("host.py"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, *self._arguments, stdout=asyncio.subprocess.PIPE, limit=1 << 22
        )
        assert process.stdout is not None
        return process, json.loads(await process.stdout.readline())

    async def killed_in_streams(self, subjects: int) -> list[str]:
        """Has as many streams answer, and kills it before any has ended; whose they were."""
        process, said = await self._started()
        tokens = dict(list(said["tokens"].items())[:subjects])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{said['port']}") as channel:
            streams = [
                channel.unary_stream("/t.Host/Watch")(b"", metadata=(("authorization", f"Bearer {token}"),))
                for token in tokens.values()
            ]
            for stream in streams:
                assert [await stream.read() for _ in range(3)] == [b"news"] * 3
            process.kill()
            await process.wait()
        return list(tokens)

    async def killed_under_load(self, *, after: int) -> None:
        """Calls it from all sides, and kills it once so many calls were answered."""
        process, said = await self._started()
        waiting = list(said["tokens"].items())
        enough = asyncio.Event()

        async def call(channel: grpc.aio.Channel) -> None:
            while waiting:
                subject, token = waiting.pop()
                for method, answered in self.answered.items():
                    try:
                        await channel.unary_unary(f"/t.Host/{method}")(
                            b"", metadata=(("authorization", f"Bearer {token}"),)
                        )
                    except grpc.aio.AioRpcError:
                        return
                    answered.append(subject)
                    if sum(map(len, self.answered.values())) >= after:
                        enough.set()

        async with grpc.aio.insecure_channel(f"127.0.0.1:{said['port']}") as channel:
            callers = [asyncio.create_task(call(channel)) for _ in range(CALLERS)]
            await enough.wait()
            process.kill()
            await process.wait()
            await asyncio.gather(*callers)


@pytest.mark.parametrize("stack", ["aio", "sync"])
async def test_every_answered_call_is_recorded_once(service: Any, tmp_path: Path, stack: str) -> None:
    await service.new_client("orders", clients_pb2.ClientPolicy(grants=["GRANT_REPORT_USAGE"]))
    directory = tmp_path / "usage"
    answered: dict[str, Counter[str]] = {"Use": Counter(), "Must": Counter()}
    for turn in range(ROUNDS):
        host = Host(stack, service, directory, turn)
        await host.killed_under_load(after=random.randrange(50, CALLS))
        for method, subjects in host.answered.items():
            answered[method].update(subjects)
    left = list(directory.glob("*.spool"))
    assert left, "nothing was left behind, so nothing was killed in the middle of it"
    async with UsageRecorder(
        service.addresses.grpc_target,
        client_id="orders",
        client_secret=service.secrets["orders"],
        directory=directory,
    ):
        pass
    assert not list(directory.glob("*.spool"))
    waiting = await service.server.store.outbox_view.after({}, at_most=1_000_000)
    events = [each.event for each in waiting if each.event.reported_by == "orders"]
    assert len({event.event_id for event in events}) == len(events)
    recorded = {
        (method, kind): Counter(
            event.subject
            for event in events
            if event.method == f"/t.Host/{method}" and event.type == f"token.{kind}"
        )
        for method in answered
        for kind in ("used", "use_begun")
    }
    for method, subjects in answered.items():
        assert subjects
        assert subjects - recorded[method, "used"] == Counter(), "answered, and not recorded"
        assert set(recorded[method, "used"].values()) == {1}
    # What was begun has ended, but for what was under way when its host was killed.
    assert recorded["Must", "used"] - recorded["Must", "use_begun"] == Counter()
    assert sum((recorded["Must", "use_begun"] - recorded["Must", "used"]).values()) <= ROUNDS * CALLERS
    assert not recorded["Use", "use_begun"]


@pytest.mark.parametrize("stack", ["aio", "sync"])
async def test_a_stream_that_has_answered_is_recorded_though_its_host_was_killed(
    service: Any, recorder_of: Any, tmp_path: Path, stack: str
) -> None:
    subjects = await Host(stack, service, tmp_path / "usage", 0).killed_in_streams(4)
    async with recorder_of():
        pass
    waiting = await service.server.store.outbox_view.after({}, at_most=10_000)
    events = [each.event for each in waiting if each.event.reported_by == "orders"]
    assert sorted(event.subject for event in events) == sorted(subjects)
    assert {(event.type, event.method) for event in events} == {("token.use_begun", "/t.Host/Watch")}
