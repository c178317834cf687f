"""From a guarded server to the outbox of a real service: acknowledged batches, through a spool on disk."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from interceptors.usage.samples import record

from grpc_identity import Policy, UsageAudit, UsageSpoolError, Verifier
from grpc_identity.testing import InMemoryIssuer
from grpc_identity.token_grants import ClientSecret
from grpc_identity.usage.spool import MIN_SPOOL_BYTES


async def recorded(service: Any) -> list[Any]:
    """The uses in the outbox."""
    waiting = await service.server.store.outbox_view.after({}, at_most=100_000)
    return [each.event for each in waiting if each.event.type in {"token.used", "token.use_begun"}]


@pytest.mark.parametrize("stack", ["sync", "aio"])
async def test_each_use_reaches_the_outbox_once(
    service: Any, recorder_of: Any, issuer: InMemoryIssuer, serve: Any, call: Any, wait_until: Any, stack: str
) -> None:
    def answer(request: Any, context: Any) -> bytes:
        return b""

    handlers = {"unary_unary": grpc.unary_unary_rpc_method_handler(answer)}
    policy = Policy().require("/t.S/unary_unary", audit=UsageAudit.MUST)
    async with recorder_of() as usage:
        target = await serve(stack, handlers, Verifier(issuer.trusted()), policy, usage=usage)
        await asyncio.gather(
            *(call(target, "unary_unary", issuer.mint(subject=f"person-{n}")) for n in range(50))
        )
        await wait_until(lambda: usage.waiting == 0)
    events = await recorded(service)
    assert len({event.event_id for event in events}) == len(events) == 100
    assert {event.reported_by for event in events} == {"orders"}
    for kind in ("token.use_begun", "token.used"):
        assert {event.subject for event in events if event.type == kind} == {f"person-{n}" for n in range(50)}


async def test_what_is_delivered_leaves_nothing_on_disk(recorder_of: Any, tmp_path: Path) -> None:
    async with recorder_of() as usage:
        assert list((tmp_path / "usage").glob("*.spool"))
        assert usage.put(record("one"))
    assert not list((tmp_path / "usage").glob("*.spool"))
    assert usage.tally.delivered == 1
    assert not usage.put(record("after the end"))
    async with usage:
        assert usage.put(record("two"))
    # And that one was lost in between.
    assert usage.tally.delivered == 3


async def test_records_wait_for_a_service_that_is_away_and_all_arrive(
    service: Any, recorder_of: Any, wait_until: Any
) -> None:
    port = int(service.addresses.grpc_target.rpartition(":")[2])
    await service.server.stop(0)
    async with recorder_of() as usage:
        for n in range(1000):
            assert usage.put(record(f"s{n}"))
        await wait_until(lambda: usage._delivery._is_failing)
        assert usage.waiting == 1000
        settings = service.settings.model_copy(
            update={"grpc": service.settings.grpc.model_copy(update={"listen": f"127.0.0.1:{port}"})}
        )
        from identity.app import IdentityServer

        back = IdentityServer(settings)
        await back.start()
        try:
            await wait_until(lambda: usage.waiting == 0, seconds=30)
            waiting = await back.store.outbox_view.after({}, at_most=10_000)
        finally:
            await back.stop(0)
    sessions = [each.event.session_id for each in waiting if each.event.type == "token.used"]
    assert sorted(sessions) == sorted(f"s{n}" for n in range(1000))


async def test_a_full_spool_says_so_and_takes_records_again_when_it_has_room(
    service: Any, recorder_of: Any, wait_until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "grpc_identity.usage")
    usage = recorder_of(target="127.0.0.1:1", spool_bytes=MIN_SPOOL_BYTES)
    usage.start()
    kept = 0
    while usage.put(record(f"s{kept}")):
        kept += 1
    for _ in range(100):
        assert not usage.put(record("lost"))
    assert (usage.counts()["recorded"], usage.counts()["lost"]) == (kept, 101)
    assert len([line for line in caplog.messages if "could not be recorded" in line]) == 1
    await asyncio.to_thread(usage.close, flush_seconds=0.1)
    async with recorder_of(spool_bytes=MIN_SPOOL_BYTES) as again:
        # And that some were lost.
        await wait_until(lambda: again.tally.delivered == kept + 1)
        assert again.put(record("new"))
    assert sorted(event.session_id for event in await recorded(service)) == sorted(
        ["new", *(f"s{n}" for n in range(kept))]
    )


async def test_a_record_that_the_service_never_takes_holds_up_no_other(
    service: Any, recorder_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "grpc_identity.usage")
    async with recorder_of() as usage:
        for n in range(300):
            usage.put(record(f"s{n}" if n != 137 else "x" * 300))
    # And that one is lost.
    assert (usage.tally.delivered, usage.tally.refused) == (300, 1)
    assert len(await recorded(service)) == 299
    assert "the use with the number 138 will never be recorded" in caplog.text


async def test_a_client_without_the_grant_keeps_its_records(
    service: Any, recorder_of: Any, wait_until: Any, tmp_path: Path
) -> None:
    usage = recorder_of(
        client_id="orders", authentication=ClientSecret("login", service.secrets["login"]), client_secret=None
    )
    usage.start()
    usage.put(record("one"))
    await wait_until(lambda: usage._delivery._is_failing)
    await asyncio.to_thread(usage.close, flush_seconds=1.0)
    async with recorder_of() as allowed:
        await wait_until(lambda: allowed.tally.delivered == 1)
    assert [event.session_id for event in await recorded(service)] == ["one"]


async def test_a_directory_that_cannot_be_used_is_an_error_at_the_start(
    recorder_of: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageSpoolError, match="no place for"):
        recorder_of(directory=tmp_path / "file" / "usage").start()


METRICS = """
import json, sys
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from grpc_identity import UsageRecorder

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
usage = UsageRecorder("127.0.0.1:1", client_id="orders", client_secret="s", directory=sys.argv[1], spool_bytes=65536)
usage.start()
kept = 0
while usage.put(b"x" * 232):
    kept += 1
found = {}
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            for point in metric.data.data_points:
                found[" ".join([metric.name, *map(str, point.attributes.values())])] = point.value
usage.close(flush_seconds=0.1)
print(json.dumps([kept, found]))
"""


def test_metrics_say_what_became_of_the_records(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", METRICS, str(tmp_path)], check=True, capture_output=True, text=True
    )
    kept, found = json.loads(ran.stdout)
    assert kept > 200
    assert found == {
        "identity.usage.records recorded": kept,
        "identity.usage.records lost": 1,
        "identity.usage.records delivered": 0,
        "identity.usage.records refused": 0,
        "identity.usage.waiting": kept,
    }


class LosesAnswers(grpc.GenericRpcHandler):
    """Between a host and the service: passes reports on, and loses most answers, as a network does."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target)
        self.passed = 0

    def service(self, handler_call_details: Any) -> Any:
        method, metadata = handler_call_details.method, handler_call_details.invocation_metadata

        async def passed_on(request: bytes, context: Any) -> bytes:
            who = [(key, value) for key, value in metadata if key == "authorization"]
            answer: bytes = await self._channel.unary_unary(method)(request, metadata=who)
            self.passed += 1
            if self.passed % 4:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
            return answer

        return grpc.unary_unary_rpc_method_handler(passed_on)

    async def close(self) -> None:
        await self._channel.close()


async def test_answers_that_are_lost_make_no_second_event(service: Any, recorder_of: Any) -> None:
    between = LosesAnswers(service.addresses.grpc_target)
    server = grpc.aio.server(handlers=[between], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with recorder_of(target=f"127.0.0.1:{port}") as usage:
        for n in range(700):
            assert usage.put(record(f"s{n}"))
        await asyncio.to_thread(usage.close, flush_seconds=30.0)
    await server.stop(None)
    await between.close()
    assert between.passed > 4
    events = await recorded(service)
    assert len({event.event_id for event in events}) == len(events) == 700
    assert [event.session_id for event in events] == [f"s{n}" for n in range(700)]


@pytest.mark.parametrize("stack", ["sync", "aio"])
async def test_at_a_full_spool_use_goes_on_and_must_is_refused(
    service: Any,
    recorder_of: Any,
    issuer: InMemoryIssuer,
    serve: Any,
    call: Any,
    refused: Any,
    wait_until: Any,
    stack: str,
) -> None:
    def answer(request: Any, context: Any) -> bytes:
        return b"answer"

    handlers = {
        kind: grpc.unary_unary_rpc_method_handler(answer)
        if kind == "unary_unary"
        else grpc.stream_unary_rpc_method_handler(answer)
        for kind in ("unary_unary", "stream_unary")
    }
    policy = (
        Policy()
        .require("/t.S/unary_unary", audit=UsageAudit.USE)
        .require("/t.S/stream_unary", audit=UsageAudit.MUST)
    )
    usage = recorder_of(target="127.0.0.1:1", spool_bytes=MIN_SPOOL_BYTES)
    usage.start()
    target = await serve(stack, handlers, Verifier(issuer.trusted()), policy, usage=usage)
    token = issuer.mint(subject="alice")
    assert await call(target, "stream_unary", token) == [b"answer"]
    begun = 0
    while usage.put(record("x")):
        begun += 1
    lost = usage.tally.lost
    assert await call(target, "unary_unary", token) == [b"answer"]
    assert usage.tally.lost == lost + 1
    refusal = await refused(call(target, "stream_unary", token, is_silent=True))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "AUDIT_UNAVAILABLE")
    assert refusal.retry_after_seconds
    await asyncio.to_thread(usage.close, flush_seconds=0.1)
    async with recorder_of() as again:
        await wait_until(lambda: again.tally.delivered == begun + 3)
    kinds = sorted(event.type for event in await recorded(service) if event.subject == "alice")
    assert kinds.count("token.use_begun") == 1
    assert kinds.count("token.used") == begun + 1


FORKING = """
import os, sys, time
from grpc_identity import UsageRecorder
from grpc_identity.v1 import identity_service_pb2 as pb

target, secret, directory = sys.argv[1:]
usage = UsageRecorder(target, client_id="orders", client_secret=secret, directory=directory, linger_seconds=0.01)
usage.start()

def put(name):
    record = pb.UsageRecord(step=2, occurred_at_ms=int(time.time() * 1000), method="/t.S/M", subject="alice", token_id="j",
        status_code="OK", session_id=name)
    assert usage.put(record.SerializeToString())

children = []
for child in range(3):
    pid = os.fork()
    if pid == 0:
        for n in range(50):
            put(f"child-{child}-{n}")
        usage.close() if child else None
        os._exit(0)  # child 0 leaves its spool behind
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
put("parent")
usage.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
async def test_forked_processes_have_spools_of_their_own_and_orphans_are_adopted(
    service: Any, recorder_of: Any, tmp_path: Path
) -> None:
    arguments = (service.addresses.grpc_target, service.secrets["orders"], str(tmp_path / "usage"))
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", FORKING, *arguments], check=True, timeout=50
    )
    async with recorder_of():
        pass
    expected = {"parent", *(f"child-{child}-{n}" for child in range(3) for n in range(50))}
    events = await recorded(service)
    assert len(events) == len({event.event_id for event in events}) == len(expected)
    assert {event.session_id for event in events} == expected
    assert not list((tmp_path / "usage").glob("*.spool"))


INHERITING = """
import os, sys, threading
from pathlib import Path
from grpc_identity import UsageRecorder
from grpc_identity.usage.spool import MIN_SPOOL_BYTES
from grpc_identity.usage.spool_directory import SpoolDirectory

directory = Path(sys.argv[1])
left = SpoolDirectory(directory, "orders").create(size_bytes=MIN_SPOOL_BYTES)
left.append(b"waits")
left.close()
usage = UsageRecorder("127.0.0.1:1", client_id="orders", client_secret="s", directory=directory)
usage.start()
while not usage._adopted:
    threading.Event().wait(0.01)
is_over, end = os.pipe()
child = os.fork()
if child == 0:
    os.close(end)
    os.read(is_over, 1)
    os._exit(0)
usage.close(flush_seconds=0.1)
found = [spool.path for spool in SpoolDirectory(directory, "orders").adopt()]
os.close(end)
os.waitpid(child, 0)
print(found == [left.path])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_holds_nothing_that_its_parent_has_taken_over(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", INHERITING, str(tmp_path / "usage")],
        check=True,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert ran.stdout == "True\n"
