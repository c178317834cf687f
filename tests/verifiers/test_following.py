"""Following a server: resuming after a break, going to another server, and what silence means."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from grpc_identity import Reason, StaleRevocations, TokenError, Verifier
from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.app import IdentityServer


def reason_of(verifier: Verifier, token: str) -> Reason | None:
    try:
        verifier.verify(token)
    except TokenError as error:
        return error.reason
    return None


class Watcher:
    """A bare stream, to see each message."""

    def __init__(self, service: Any, **first: Any) -> None:
        self._reports: asyncio.Queue[pb.WatchVerifierStateRequest | None] = asyncio.Queue()
        self.report(**{"verifier_id": "bare", "verifier_version": "test"} | first)
        self.call = service.identity.WatchVerifierState(self._sent(), metadata=service.orders)

    def report(self, **fields: Any) -> None:
        self._reports.put_nowait(pb.WatchVerifierStateRequest(**fields))

    async def _sent(self) -> AsyncIterator[pb.WatchVerifierStateRequest]:
        while (report := await self._reports.get()) is not None:
            yield report

    async def read(self) -> pb.WatchVerifierStateResponse:
        async with asyncio.timeout(10):
            message: pb.WatchVerifierStateResponse = await self.call.read()
            return message

    async def read_news(self) -> pb.WatchVerifierStateResponse:
        """The next message that is no heartbeat."""
        while not (message := await self.read()).revocations:
            pass
        return message


@pytest.fixture
async def watching(service: Any, orders_client: None) -> AsyncIterator[Callable[..., Watcher]]:
    import base64

    opened: list[Watcher] = []
    credentials = base64.b64encode(f"orders:{service.secrets['orders']}".encode()).decode()
    service.orders = (("authorization", f"Basic {credentials}"),)

    def open_stream(at: Any = None, **first: Any) -> Watcher:
        if at is not None:
            at.orders = service.orders
        opened.append(Watcher(at or service, **first))
        return opened[-1]

    yield open_stream
    for watcher in opened:
        watcher.call.cancel()


async def revoke(service: Any, **target: Any) -> None:
    await service.identity.Revoke(pb.RevokeRequest(**target), metadata=service.login)


async def test_the_first_message_is_a_snapshot_with_the_keys(
    service: Any, new_session: Any, watching: Any, wait_until: Any
) -> None:
    session = await new_session("alice")
    await revoke(service, session_id=session.tokens.session_id)
    await revoke(service, client_id="login")
    store = service.server.store
    lengths = [await store.connection.command("XLEN", bucket.revocations) for bucket in store.keys.buckets]
    await wait_until(lambda: len(service.server._feed.log) == sum(lengths))
    watcher = watching()
    message = await watcher.read()
    assert message.snapshot
    assert message.position
    assert message.jwks.keys[0].kid
    assert message.heartbeat_interval.ToSeconds() > 0
    by_target = {entry.WhichOneof("target"): entry for entry in message.revocations}
    assert by_target["session_id"].session_id == session.tokens.session_id
    client = by_target["client_id"]
    assert client.client_id == "login"
    # One entry stands for the client in every bucket in which something has happened.
    assert client.up_to_sequence
    heartbeat = await watcher.read()
    assert not heartbeat.snapshot
    assert not heartbeat.revocations
    assert not heartbeat.HasField("jwks")


@pytest.mark.parametrize("other", [False, True], ids=["same_server", "other_server"])
async def test_a_verifier_takes_up_where_it_left_off_at_any_server(
    service: Any, second_service: Any, new_session: Any, watching: Any, other: bool
) -> None:
    sessions = [await new_session(f"s{number}") for number in range(3)]
    await revoke(service, session_id=sessions[0].tokens.session_id)
    first = watching()
    message = await first.read()
    if not message.revocations:
        message = await first.read_news()
    assert [entry.session_id for entry in message.revocations] == [sessions[0].tokens.session_id]
    first.call.cancel()
    for session in sessions[1:]:
        await revoke(service, session_id=session.tokens.session_id)
    again = watching(second_service if other else None, applied_position=message.position)
    found: set[str] = set()
    while len(found) < 2:
        message = await again.read()
        assert not message.snapshot
        found |= {entry.session_id for entry in message.revocations}
    assert found == {session.tokens.session_id for session in sessions[1:]}


@pytest.mark.parametrize("position", ["nonsense", "a.b.c.d", "x.1.00000000.AAAA", "x.1.y.!!!!"])
async def test_a_position_that_means_nothing_gets_a_snapshot(watching: Any, position: str) -> None:
    assert (await watching(applied_position=position).read()).snapshot


@pytest.mark.parametrize(
    "first", [{"verifier_id": ""}, {"verifier_id": "x" * 200}, {"held_kids": ["k"] * 65}]
)
async def test_a_malformed_report_is_refused(watching: Any, refused: Any, first: dict[str, Any]) -> None:
    refusal = await refused(watching(**first).read())
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations


async def test_a_client_that_is_disabled_is_cut_off(service: Any, watching: Any, refused: Any) -> None:
    watcher = watching()
    await watcher.read()
    await service.administration.SetClientDisabled(
        admin_pb.SetClientDisabledRequest(client_id="orders", disabled=True), metadata=service.admin
    )

    async def read_on() -> None:
        while True:
            await watcher.read()

    assert (await refused(read_on())).reason == "CLIENT_DISABLED"


async def test_with_the_server_away_calls_go_on_and_nothing_needs_a_restart_when_it_is_back(
    service: Any, new_session: Any, new_verifier: Any, wait_until: Any
) -> None:
    from identity.config import GrpcSettings

    verifier = await new_verifier()
    kept, ended = await new_session("kept"), await new_session("ended")
    address = service.addresses.grpc_target
    await service.server.stop(0)
    assert reason_of(verifier, kept.tokens.access_token) is None
    listening = GrpcSettings(**service.settings.grpc.model_dump() | {"listen": address})
    back = IdentityServer(service.settings.model_copy(update={"grpc": listening}))
    await back.start()
    try:
        channel = grpc.aio.insecure_channel(address)
        async with channel:
            from grpc_identity.v1 import identity_service_pb2_grpc as pb_grpc

            stub: Any = pb_grpc.IdentityServiceStub(channel)  # type: ignore[no-untyped-call]
            request = pb.RevokeRequest(session_id=ended.tokens.session_id)
            await stub.Revoke(request, metadata=service.login)
            await wait_until(lambda: reason_of(verifier, ended.tokens.access_token) is Reason.TOKEN_REVOKED)
        assert reason_of(verifier, kept.tokens.access_token) is None
    finally:
        await asyncio.to_thread(verifier.close)
        await back.stop(0)


class Time:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_seconds


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (StaleRevocations.SERVE, None),
        (StaleRevocations.REFUSE, Reason.REVOCATIONS_UNAVAILABLE),
        (StaleRevocations.INTROSPECT, Reason.REVOCATIONS_UNAVAILABLE),
    ],
)
async def test_silence_means_what_the_policy_says(
    service: Any, new_session: Any, new_verifier: Any, policy: StaleRevocations, expected: Reason | None
) -> None:
    clock = Time()
    verifier = await new_verifier(
        monotonic=clock, stale_revocations=policy, max_revocation_age_seconds=60, max_stale_hours=1
    )
    session = await new_session()
    token = session.tokens.access_token
    assert reason_of(verifier, token) is None
    assert verifier.ready
    await service.server.stop(0)
    clock.ahead_seconds = 61
    assert not verifier.ready
    with contextlib.suppress(TokenError):
        await verifier.verify_async(token)
    assert reason_of(verifier, token) is expected
    clock.ahead_seconds = 3601
    with pytest.raises(TokenError) as caught:
        await verifier.verify_async(token)
    assert caught.value.reason is Reason.KEYS_UNAVAILABLE


async def test_a_verifier_that_hears_nothing_can_ask_about_each_token(
    service: Any, new_session: Any, new_verifier: Any, wait_until: Any
) -> None:
    clock = Time()
    verifier = await new_verifier(monotonic=clock, stale_revocations=StaleRevocations.INTROSPECT)
    session, other = await new_session(), await new_session()
    await service.administration.UpdateClient(
        admin_pb.UpdateClientRequest(
            client_id="orders",
            display_name="Orders",
            policy=clients_pb2.ClientPolicy(grants=["GRANT_INTROSPECT"]),
        ),
        metadata=service.admin,
    )

    async def is_cut_off() -> bool:
        answer = await service.administration.ListVerifiers(
            admin_pb.ListVerifiersRequest(), metadata=service.admin
        )
        return not any(listed.connected for listed in answer.verifiers)

    await wait_until(is_cut_off)
    clock.ahead_seconds = 61
    token = session.tokens.access_token
    assert reason_of(verifier, token) is Reason.REVOCATIONS_UNAVAILABLE
    callers = [verifier.verify_async(token) for _ in range(50)]
    assert {principal.subject for principal in await asyncio.gather(*callers)} == {"alice"}
    assert reason_of(verifier, token) is None
    await revoke(service, session_id=session.tokens.session_id)
    clock.ahead_seconds = 70
    with pytest.raises(TokenError) as caught:
        await asyncio.to_thread(verifier.verify_waiting, token)
    assert caught.value.reason is Reason.TOKEN_REVOKED
    assert (await verifier.verify_async(other.tokens.access_token)).subject == "alice"
