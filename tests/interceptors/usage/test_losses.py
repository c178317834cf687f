"""Uses that could not be recorded: counted on disk, and told once, whatever happens in between."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from interceptors.usage.samples import NOW_MS, record

from grpc_identity.usage.losses import NO_LOSSES, Losses
from grpc_identity.usage.spool import MIN_SPOOL_BYTES, Spool
from grpc_identity.usage.spool_directory import SpoolDirectory
from grpc_identity.v1 import identity_service_pb2 as pb


async def told(service: Any) -> list[tuple[str, int]]:
    """Of each event about uses in the outbox, its type, and how many records it says were lost."""
    waiting = await service.server.store.outbox_view.after({}, at_most=100_000)
    return [
        (each.event.type, each.event.count) for each in waiting if each.event.type.startswith("token.use")
    ]


def reopened(spool: Spool) -> Spool:
    """As whoever finds the file after a SIGKILL at this moment."""
    return Spool(spool.path, os.open(spool.path, os.O_RDWR))


def steps_of(spool: Spool) -> list[int]:
    batch = spool.oldest(at_most=10_000, max_bytes=10**9)
    return [pb.UsageRecord.FromString(each).step for _, each in batch.records] if batch else []


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return SpoolDirectory(tmp_path / "usage").create(size_bytes=MIN_SPOOL_BYTES)


def test_what_was_lost_is_counted_for_whoever_finds_the_file(spool: Spool) -> None:
    assert spool.untold == NO_LOSSES
    for number in range(5):
        assert spool.lose(Losses.one(NOW_MS + number))
        assert reopened(spool).untold == Losses(number + 1, NOW_MS, NOW_MS + number)


def test_a_full_spool_tells_of_its_losses_as_soon_as_there_is_room(spool: Spool) -> None:
    while spool.append(record("kept")):
        pass
    spool.lose(Losses(3, NOW_MS, NOW_MS + 9))
    spool.tell_losses()
    assert pb.USAGE_STEP_LOST not in steps_of(spool)
    some = spool.oldest(at_most=4, max_bytes=10**6)
    assert some is not None
    spool.acknowledge(some)
    spool.tell_losses()
    assert spool.untold == NO_LOSSES
    assert steps_of(spool).count(pb.USAGE_STEP_LOST) == 1
    batch = spool.oldest(at_most=10_000, max_bytes=10**9)
    assert batch is not None
    last = pb.UsageRecord.FromString(batch.records[-1][1])
    assert (last.lost_records, last.lost_since_ms, last.occurred_at_ms) == (3, NOW_MS, NOW_MS + 9)
    spool.tell_losses()
    assert steps_of(spool).count(pb.USAGE_STEP_LOST) == 1


@pytest.mark.parametrize("step", ["telling", "append", "told"])
@pytest.mark.parametrize("dies", ["before", "after"])
def test_whoever_dies_while_telling_has_told_once(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, step: str, dies: str
) -> None:
    spool.append(record("one"))
    spool.lose(Losses(3, NOW_MS, NOW_MS + 9))
    owner: Any = spool if step == "append" else spool._ledger
    real = getattr(owner, step)

    def killed(*arguments: Any) -> None:
        if dies == "after":
            real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, step, killed)
    with pytest.raises(KeyboardInterrupt):
        spool.tell_losses()
    found = reopened(spool)
    report = found.report_of_losses()
    in_ring = steps_of(found).count(pb.USAGE_STEP_LOST)
    assert in_ring + (report is not None) == 1
    if report is not None:
        assert pb.UsageRecord.FromString(report[1].records[0][1]).lost_records == 3
        # Whoever dies before it is noted that they are told tells the same under the same id.
        assert reopened(found).report_of_losses() == report
        found.losses_told()
    assert found.untold == reopened(found).untold == NO_LOSSES
    found.lose(Losses.one(NOW_MS))
    assert reopened(found).untold.records == 1
    again = found.report_of_losses()
    assert again is not None
    assert report is None or again[0] != report[0]


def test_a_sealed_spool_takes_nothing_and_counts_nothing(spool: Spool) -> None:
    spool.append(record("one"))
    spool.lose(Losses.one(NOW_MS))
    spool.seal()
    assert not spool.append(record("two"))
    assert not spool.append(record("two"), kept_bytes=1000)
    assert not spool.lose(Losses.one(NOW_MS))
    assert (reopened(spool).waiting, reopened(spool).untold.records) == (1, 1)
    spool.close()
    assert not spool.append(record("three"))


LOSING = """
import os, signal, sys, time
from grpc_identity import UsageRecorder
from grpc_identity.v1 import identity_service_pb2 as pb

secret, directory, lost = sys.argv[1:]
usage = UsageRecorder("127.0.0.1:1", client_id="orders", client_secret=secret, directory=directory, spool_bytes=65536)
usage.start()
record = pb.UsageRecord(step=2, occurred_at_ms=int(time.time() * 1000), method="/t.S/M", subject="alice", token_id="j",
    status_code="OK").SerializeToString()
kept = 0
while usage.put(record):
    kept += 1
for _ in range(int(lost) - 1):
    assert not usage.put(record)
assert not usage.put(record, keep_bytes=1000)  # a call that is refused uses nothing
print(kept, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_a_host_that_was_killed_has_not_taken_its_losses_with_it(
    service: Any, recorder_of: Any, tmp_path: Path
) -> None:
    arguments = (service.secrets["orders"], str(tmp_path / "usage"), "847")
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", LOSING, *arguments],
        capture_output=True,
        timeout=50,
        check=False,
    )
    kept = int(ran.stdout)
    async with recorder_of():
        pass
    events = await told(service)
    assert events.count(("token.used", 0)) == kept
    assert [event for event in events if event[0] != "token.used"] == [("token.uses_lost", 847)]
    assert not list((tmp_path / "usage").glob("*.spool"))


class Between(grpc.GenericRpcHandler):
    """Between a host and the service: an older one, that knows nothing of losses, or a network that loses answers."""

    def __init__(self, target: str, *, knows_losses: bool) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self._knows_losses = knows_losses
        self.passed = 0

    def service(self, handler_call_details: Any) -> Any:
        method, metadata = handler_call_details.method, handler_call_details.invocation_metadata

        async def passed_on(request: bytes, context: Any) -> bytes:
            records = pb.RecordUsageRequest.FromString(request).records
            if not self._knows_losses and any(each.step == pb.USAGE_STEP_LOST for each in records):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "is not a step this service knows")
            who = [(key, value) for key, value in metadata if key == "authorization"]
            answer: bytes = await self._channel.unary_unary(method)(request, metadata=who)
            self.passed += 1
            if self._knows_losses and self.passed % 2:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
            return answer

        return grpc.unary_unary_rpc_method_handler(passed_on)


@pytest.mark.parametrize("knows_losses", [True, False], ids=["answers-lost", "older-service"])
async def test_losses_are_told_once_by_whatever_way(
    service: Any, recorder_of: Any, tmp_path: Path, knows_losses: bool
) -> None:
    between = Between(service.addresses.grpc_target, knows_losses=knows_losses)
    server = grpc.aio.server(handlers=[between], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    usage = recorder_of(target="127.0.0.1:1", spool_bytes=MIN_SPOOL_BYTES)
    usage.start()
    kept = 0
    while usage.put(record(f"s{kept}")):
        kept += 1
    await asyncio.to_thread(usage.close, flush_seconds=0.1)

    async with recorder_of(target=f"127.0.0.1:{port}") as usage:
        await asyncio.to_thread(usage.close, flush_seconds=30.0)
    await server.stop(None)
    assert (await told(service)).count(("token.used", 0)) == kept
    left = list((tmp_path / "usage").glob("*.spool"))
    assert len(left) == (0 if knows_losses else 1)
    async with recorder_of():
        pass
    events = await told(service)
    assert len(events) == kept + 1
    assert events.count(("token.uses_lost", 1)) == 1
    assert not list((tmp_path / "usage").glob("*.spool"))


async def test_what_waits_in_a_deleted_file_is_not_said_to_wait_on_disk(
    service: Any, recorder_of: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "grpc_identity.usage")
    gate = Gate(service.addresses.grpc_target)
    server = grpc.aio.server(handlers=[gate], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    usage = recorder_of(target=f"127.0.0.1:{port}")
    usage.start()
    for number in range(6):
        assert usage.put(record(f"s{number}"))
    shutil.rmtree(tmp_path / "usage")
    await asyncio.to_thread(usage.close, flush_seconds=0.1)
    assert "wait on disk" not in caplog.text
    assert "6 uses of tokens" in caplog.text
    assert "was deleted under this process" in caplog.text
    assert usage.counts()["lost"] == 6
    gate.is_open = True
    async with usage:
        pass
    await server.stop(None)
    assert await told(service) == [("token.uses_lost", 6)]


class Gate(grpc.GenericRpcHandler):
    """Between a host and the service, which is away until it is said to be back."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self.is_open = False

    def service(self, handler_call_details: Any) -> Any:
        method, metadata = handler_call_details.method, handler_call_details.invocation_metadata

        async def passed_on(request: bytes, context: Any) -> bytes:
            if not self.is_open:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
            who = [(key, value) for key, value in metadata if key == "authorization"]
            answer: bytes = await self._channel.unary_unary(method)(request, metadata=who)
            return answer

        return grpc.unary_unary_rpc_method_handler(passed_on)


async def test_whoever_adopts_a_copy_swallows_nothing_of_what_its_living_host_tells(
    service: Any, recorder_of: Any, tmp_path: Path
) -> None:
    gate = Gate(service.addresses.grpc_target)
    server = grpc.aio.server(handlers=[gate], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    host = recorder_of(target=f"127.0.0.1:{port}", directory=tmp_path / "host", spool_bytes=MIN_SPOOL_BYTES)
    host.start()
    kept = 0
    while host.put(record(f"s{kept}")):
        kept += 1
    (path,) = (tmp_path / "host").glob("*.spool")
    for name in ("usage", "another"):
        (tmp_path / name).mkdir()
        shutil.copy(path, tmp_path / name)
    for name in ("usage", "another"):
        async with recorder_of(directory=tmp_path / name):
            pass
    events = await told(service)
    assert events.count(("token.used", 0)) == kept
    # The same count, though two have told of it.
    assert [event for event in events if event[0] != "token.used"] == [("token.uses_lost", 1)]
    for _ in range(49):
        assert not host.put(record("lost"))
    gate.is_open = True
    await asyncio.to_thread(host.close, flush_seconds=30.0)
    await server.stop(None)
    events = await told(service)
    assert events.count(("token.used", 0)) == kept
    # What the copy has told is told once more by its host: rather too much than nothing.
    assert sorted(count for kind, count in events if kind == "token.uses_lost") == [1, 50]


async def test_a_record_that_the_service_never_takes_is_told_as_lost(service: Any, recorder_of: Any) -> None:
    async with recorder_of() as usage:
        for name, at_ms in (("one", NOW_MS), ("x" * 300, NOW_MS), ("far", 2**62), ("two", NOW_MS)):
            assert usage.put(record(name, at_ms))
    events = await told(service)
    assert events.count(("token.used", 0)) == 2
    assert sum(count for kind, count in events if kind == "token.uses_lost") == 2


async def test_what_was_lost_without_a_spool_is_told_by_the_next(
    service: Any, recorder_of: Any, tmp_path: Path
) -> None:
    (tmp_path / "usage").write_text("in the way")
    usage = recorder_of()
    for _ in range(7):
        assert not usage.put(record("lost"))
    (tmp_path / "usage").unlink()
    async with usage:
        pass
    assert await told(service) == [("token.uses_lost", 7)]
