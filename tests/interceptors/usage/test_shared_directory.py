"""A directory that two services share by mistake: each reports what is its own, and holds nothing that it cannot deliver."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import grpc
import pytest
from interceptors.usage.samples import record

from grpc_identity.token_grants import ClientSecret
from grpc_identity.usage.spool import MIN_SPOOL_BYTES, client_of
from grpc_identity.usage.spool_directory import SpoolDirectory
from grpc_identity.v1 import clients_pb2

REPORTER = clients_pb2.ClientPolicy(grants=["GRANT_REPORT_USAGE"])
CLIENT_PLACE = 3072


async def reported(service: Any) -> list[tuple[str, str]]:
    """Of each use in the outbox, who has reported it, and its name."""
    waiting = await service.server.store.outbox_view.after({}, at_most=10_000)
    events = [each.event for each in waiting if each.event.type == "token.used"]
    return sorted((event.reported_by, event.session_id) for event in events)


async def left_behind(recorder_of: Any, name: str, **options: Any) -> None:
    """As a process leaves it whose service was away."""
    usage = recorder_of(**(options | {"target": "127.0.0.1:1"}))
    usage.start()
    assert usage.put(record(name))
    await asyncio.to_thread(usage.close, flush_seconds=0.1)


async def test_uses_are_reported_in_no_other_clients_name(
    service: Any, recorder_of: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "grpc_identity.usage")
    await service.new_client("billing", REPORTER)
    billing = {"client_id": "billing", "client_secret": service.secrets["billing"]}
    await left_behind(recorder_of, "of orders")
    await left_behind(recorder_of, "of orders too")
    async with recorder_of(**billing) as usage:
        assert usage.put(record("of billing"))
    assert await reported(service) == [("billing", "of billing")]
    assert len([line for line in caplog.messages if "for the client 'orders'" in line]) == 1
    async with recorder_of():
        pass
    assert await reported(service) == [
        ("billing", "of billing"),
        ("orders", "of orders"),
        ("orders", "of orders too"),
    ]
    assert not list((tmp_path / "usage").glob("*.spool"))


async def test_a_file_that_names_no_client_is_everybodys(
    service: Any, recorder_of: Any, tmp_path: Path
) -> None:
    await left_behind(recorder_of, "old")
    (path,) = (tmp_path / "usage").glob("*.spool")
    with path.open("r+b") as file:
        file.seek(CLIENT_PLACE)
        # As an earlier version has left it.
        file.write(bytes(128))
    async with recorder_of():
        pass
    assert await reported(service) == [("orders", "old")]


def test_a_process_whose_client_is_not_known_takes_only_what_names_none(tmp_path: Path) -> None:
    for client_id in ("orders", ""):
        SpoolDirectory(tmp_path, client_id).create(size_bytes=MIN_SPOOL_BYTES).close()
    (taken,) = SpoolDirectory(tmp_path).adopt()
    descriptor = os.open(taken.path, os.O_RDONLY)
    assert client_of(descriptor) == ""
    os.close(descriptor)
    taken.close()


class Nobody:
    """Proves who it is in a way that says nothing of an id."""

    def __init__(self, secret: ClientSecret) -> None:
        self._secret = secret

    def metadata(self) -> Any:
        return self._secret.metadata()


async def test_the_client_may_be_named_beside_what_authenticates_it(
    service: Any, recorder_of: Any, tmp_path: Path
) -> None:
    nobody = Nobody(ClientSecret("orders", service.secrets["orders"]))
    await left_behind(recorder_of, "one", client_secret=None, authentication=nobody)
    assert SpoolDirectory(tmp_path / "usage", "billing").adopt() == []
    async with recorder_of():
        pass
    assert await reported(service) == [("orders", "one")]


@pytest.mark.parametrize("is_known", [True, False], ids=["grant-missing", "secret-wrong"])
async def test_who_is_refused_holds_no_file_that_another_could_deliver(
    service: Any, recorder_of: Any, wait_until: Any, tmp_path: Path, is_known: bool
) -> None:
    await left_behind(recorder_of, "one")
    secret = service.secrets["login"] if is_known else "wrong"
    refused = recorder_of(client_secret=None, authentication=ClientSecret("login", secret))
    refused.start()
    await wait_until(lambda: refused._delivery._is_failing)
    allowed = recorder_of()
    await wait_until(lambda: not refused._adopted)
    async with allowed:
        pass
    assert await reported(service) == [("orders", "one")]
    await asyncio.to_thread(refused.close, flush_seconds=0.1)


async def test_who_is_refused_goes_on_trying_for_its_own(
    service: Any, recorder_of: Any, wait_until: Any
) -> None:
    answers = iter([grpc.StatusCode.PERMISSION_DENIED] * 3)

    class Refuses(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            metadata = handler_call_details.invocation_metadata

            async def passed_on(request: bytes, context: Any) -> bytes:
                if (code := next(answers, None)) is not None:
                    await context.abort(code, "not yet")
                who = [(key, value) for key, value in metadata if key == "authorization"]
                async with grpc.aio.insecure_channel(service.addresses.grpc_target) as channel:
                    answer: bytes = await channel.unary_unary(handler_call_details.method)(
                        request, metadata=who
                    )
                return answer

            return grpc.unary_unary_rpc_method_handler(passed_on)

    server = grpc.aio.server(handlers=[Refuses()], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with recorder_of(target=f"127.0.0.1:{port}") as usage:
        assert usage.put(record("own"))
        await asyncio.to_thread(usage.close, flush_seconds=30.0)
    await server.stop(None)
    assert await reported(service) == [("orders", "own")]
