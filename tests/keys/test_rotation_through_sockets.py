"""What operators do to keys, through AdminService, with real verifiers that follow and tokens that are in use."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio

from grpc_identity import Issuer, Reason, TokenError, Verifier
from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import clients_pb2, identity_service_pb2_grpc, keys_pb2
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.app import Addresses, IdentityServer
from identity.cli.connection import basic_metadata as basic
from identity.keys.ports import ProviderError, Signer

ISSUER = "https://id.example"
VERIFY_POLICY = clients_pb2.ClientPolicy(grants=["GRANT_VERIFY", "GRANT_INTROSPECT"])


@dataclass
class Other:
    """A further server of the same store and keys."""

    server: IdentityServer
    addresses: Addresses
    channel: grpc.aio.Channel

    def __post_init__(self) -> None:
        self.identity = identity_service_pb2_grpc.IdentityServiceStub(self.channel)  # type: ignore[no-untyped-call]


@pytest_asyncio.fixture
async def others(service: Any) -> AsyncIterator[list[Other]]:
    """Two more servers beside the service."""
    await service.new_client("orders", VERIFY_POLICY)
    started = []
    for _ in range(2):
        server = IdentityServer(service.settings)
        addresses = await server.start()
        started.append(Other(server, addresses, grpc.aio.insecure_channel(addresses.grpc_target)))
    yield started
    for other in started:
        await other.channel.close()
        await other.server.stop(0)


@pytest_asyncio.fixture
async def new_verifier(
    service: Any, others: list[Other]
) -> AsyncIterator[Callable[..., Awaitable[Verifier]]]:
    started: list[Verifier] = []

    async def start(at: Any = None, **options: Any) -> Verifier:
        verifier = Verifier(
            Issuer(
                ISSUER,
                target=(at or service).addresses.grpc_target,
                audience="orders",
                client_id="orders",
                client_secret=service.secrets["orders"],
            ),
            **options,
        )
        await asyncio.to_thread(verifier.start)
        started.append(verifier)
        return verifier

    yield start
    for verifier in started:
        await asyncio.to_thread(verifier.close)


async def keys_of(service: Any) -> dict[str, Any]:
    """The keys by state, as AdminService lists them."""
    answer = await service.administration.ListKeys(admin_pb.ListKeysRequest(), metadata=service.admin)
    return {keys_pb2.KeyState.Name(key.state).removeprefix("KEY_STATE_").lower(): key for key in answer.keys}


async def rotate(service: Any, *, now: bool = True, key: str = "") -> Any:
    request = admin_pb.RotateKeysRequest(now=now, idempotency_key=key or secrets.token_hex(8))
    return (await service.administration.RotateKeys(request, metadata=service.admin)).key


async def test_a_rotation_is_published_a_day_ahead_and_asking_twice_makes_one_key(service: Any) -> None:
    old = (await keys_of(service))["active"].public_key.kid
    new = await rotate(service, now=False)
    assert new.state == keys_pb2.KEY_STATE_PENDING
    assert 24 * 3600 < new.activates_at.seconds - new.created_at.seconds < 25 * 3600
    assert (await rotate(service, now=False)).public_key.kid == new.public_key.kid
    listed = await keys_of(service)
    assert {state: key.public_key.kid for state, key in listed.items()} == {
        "active": old,
        "pending": new.public_key.kid,
    }
    answer = await service.administration.ListKeys(admin_pb.ListKeysRequest(), metadata=service.admin)
    steps = [(step.kid, keys_pb2.KeyState.Name(step.state)) for step in answer.steps]
    assert steps == [
        (new.public_key.kid, "KEY_STATE_ACTIVE"),
        (old, "KEY_STATE_RETIRED"),
        (old, "KEY_STATE_REMOVED"),
    ]
    published = (await service.identity.GetJWKS(pb.GetJWKSRequest())).keys
    assert [item.kid for item in published] == [old, new.public_key.kid]


async def test_a_forced_rotation_signs_once_every_verifier_of_every_server_holds_the_key(
    service: Any, others: list[Other], new_verifier: Any, new_session: Any, wait_until: Any
) -> None:
    verifiers = [await new_verifier(at) for at in (service, *others)]
    before = (await new_session()).tokens.access_token
    new = (await rotate(service, key="one rotation")).public_key.kid
    servers = [service.server, *(other.server for other in others)]
    await wait_until(lambda: any(server.keys.active_signer().kid == new for server in servers))
    # The moment it signs, all hold it.
    assert all(new in verifier.held_kids(ISSUER) for verifier in verifiers)
    switched_at = asyncio.get_running_loop().time()
    await wait_until(lambda: all(server.keys.active_signer().kid == new for server in servers))
    spread = asyncio.get_running_loop().time() - switched_at
    print(f"all signed with the new key within {spread:.2f} s of the first")
    assert spread < 1.0
    after = (await new_session()).tokens.access_token
    for verifier in verifiers:
        assert verifier.verify(before).subject == "alice"
        assert verifier.verify(after).subject == "alice"
    # The same call again, long after, finds what it has done.
    assert (await rotate(service, key="one rotation")).public_key.kid == new
    assert service.server.keys.active_signer().kid == new


async def test_a_key_waits_for_a_verifier_that_lacks_it_and_at_its_deadline_names_it(
    service: Any, others: list[Other], wait_until: Any, monkeypatch: pytest.MonkeyPatch, events_of: Any
) -> None:
    # One that follows, and never says that it has taken up anything.
    metadata = basic("orders", service.secrets["orders"])

    async def silent() -> AsyncIterator[pb.WatchVerifierStateRequest]:
        yield pb.WatchVerifierStateRequest(verifier_id="stuck", verifier_version="0")
        await asyncio.Event().wait()

    stream = others[0].identity.WatchVerifierState(silent(), metadata=metadata)
    await stream.read()
    old = service.server.keys.active_signer().kid
    new = (await rotate(service)).public_key.kid

    async def is_waited_for() -> bool:
        return service.server.keys.laggards.get(new) == ["orders/stuck"]

    await wait_until(is_waited_for)
    assert service.server.keys.active_signer().kid == old
    assert list((await keys_of(service))["pending"].lacking_verifiers) == ["orders/stuck"]
    monkeypatch.setattr(service.server.keys, "clock", _Ahead(120))
    await wait_until(lambda: service.server.keys.active_signer().kid == new)
    named = [item for item in await events_of("key.not_taken_up") if f"kid {new}" in item]
    assert named == [f"kid {new}; lacking: orders/stuck"]
    stream.cancel()


async def test_a_key_waits_for_a_server_that_cannot_use_it_and_at_its_deadline_names_it(
    service: Any, others: list[Other], wait_until: Any, monkeypatch: pytest.MonkeyPatch, events_of: Any
) -> None:
    class Unreachable:
        async def signer(self, kid: str, algorithm: str, private_part: bytes) -> Signer:
            raise ProviderError("there is no way from here")

    unable = others[0].server
    monkeypatch.setitem(unable.keys.custody.providers, "local", Unreachable())
    old = service.server.keys.active_signer().kid
    new = (await rotate(service)).public_key.kid
    named = f"server:{unable._instance_id}"
    await wait_until(lambda: service.server.keys.laggards.get(new) == [named])
    assert list((await keys_of(service))["pending"].lacking_verifiers) == [named]
    assert [problem.name for problem in unable.keys.problems()] == ["pending_key_unusable"]
    assert {server.keys.active_signer().kid for server in (service.server, unable)} == {old}
    monkeypatch.setattr(service.server.keys, "clock", _Ahead(120))
    await wait_until(lambda: service.server.keys.active_signer().kid == new)
    assert [item for item in await events_of("key.not_taken_up") if new in item] == [
        f"kid {new}; lacking: {named}"
    ]


async def test_a_verifier_that_still_holds_what_was_revoked_is_named_until_it_has_dropped_it(
    service: Any, others: list[Other], wait_until: Any
) -> None:
    stolen = service.server.keys.active_signer().kid
    drops_it = asyncio.Event()

    async def reports() -> AsyncIterator[pb.WatchVerifierStateRequest]:
        yield pb.WatchVerifierStateRequest(verifier_id="slow", verifier_version="0")
        position = (await stream.read()).position
        yield pb.WatchVerifierStateRequest(
            verifier_id="slow", verifier_version="0", applied_position=position, held_kids=[stolen]
        )
        await drops_it.wait()
        yield pb.WatchVerifierStateRequest(
            verifier_id="slow", verifier_version="0", applied_position=position
        )
        await asyncio.Event().wait()

    stream = others[0].identity.WatchVerifierState(
        reports(), metadata=basic("orders", service.secrets["orders"])
    )

    async def holders() -> list[str]:
        answer = await service.administration.ListKeys(admin_pb.ListKeysRequest(), metadata=service.admin)
        (key,) = [key for key in answer.keys if key.public_key.kid == stolen]
        return [*key.holding_verifiers, *(f"not {name}" for name in key.lacking_verifiers)]

    async def holds() -> bool:
        return await holders() == []

    await wait_until(holds)
    await service.administration.RevokeKey(admin_pb.RevokeKeyRequest(kid=stolen), metadata=service.admin)
    assert await holders() == ["orders/slow"]
    drops_it.set()
    await wait_until(holds)
    stream.cancel()


async def test_a_revoked_key_leaves_every_verifier_in_a_second_tokens_die_and_sessions_live_on(
    service: Any, others: list[Other], new_verifier: Any, new_session: Any, wait_until: Any, events_of: Any
) -> None:
    verifiers = [await new_verifier(at) for at in (service, *others)]
    session = await new_session()
    token = session.tokens.access_token
    for verifier in verifiers:
        assert verifier.verify(token).subject == "alice"
    stolen = service.server.keys.active_signer().kid
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await service.administration.RevokeKey(
        admin_pb.RevokeKeyRequest(kid=stolen), metadata=service.admin
    )
    successor = answer.active_key.public_key.kid
    assert service.server.keys.active_signer().kid == successor != stolen
    await wait_until(lambda: all(list(verifier.held_kids(ISSUER)) == [successor] for verifier in verifiers))
    took = loop.time() - began
    print(f"revoked everywhere after {took:.2f} s")
    assert took < 1.5
    for verifier in verifiers:
        with pytest.raises(TokenError) as caught:
            verifier.verify(token)
        assert caught.value.reason is Reason.KEY_UNKNOWN
    for stub in (service.identity, *(other.identity for other in others)):
        state = await stub.Introspect(
            pb.IntrospectRequest(token=token),
            metadata=basic("orders", service.secrets["orders"]),
        )
        assert not state.active
    fresh = (await session.refresh()).access_token
    for verifier in verifiers:
        assert verifier.verify(fresh).subject == "alice"
    assert await events_of("key.revoked") == [f"kid {stolen}"]
    # Again is the same, and so is a key that was revoked long ago.
    again = await service.administration.RevokeKey(
        admin_pb.RevokeKeyRequest(kid=stolen), metadata=service.admin
    )
    assert again.active_key.public_key.kid == successor
    assert (await keys_of(service))["revoked"].public_key.kid == stolen


async def test_a_key_that_waits_takes_over_from_one_that_is_revoked(
    service: Any, others: list[Other]
) -> None:
    waiting = (await rotate(service, now=False)).public_key.kid
    stolen = service.server.keys.active_signer().kid
    answer = await service.administration.RevokeKey(
        admin_pb.RevokeKeyRequest(kid=stolen), metadata=service.admin
    )
    assert answer.active_key.public_key.kid == waiting
    assert service.server.keys.active_signer().kid == waiting


async def test_ten_forced_rotations_in_a_minute_under_load_fail_no_verification(
    service: Any, others: list[Other], new_verifier: Any, new_session: Any, wait_until: Any
) -> None:
    verifiers = [await new_verifier(at) for at in (service, *others)]
    stubs = [service.identity, *(other.identity for other in others)]
    failures: list[str] = []
    verified, kids, ending = 0, set[str](), False

    async def use(number: int) -> None:
        """Starts a session at one server, refreshes it at another, and shows each token to every verifier."""
        nonlocal verified
        place, tokens = number, None
        while not ending:
            place += 1
            stub = stubs[place % len(stubs)]
            if tokens is None or place % 40 == 0:
                request = pb.IssueTokensRequest(subject=f"user-{number}", audience=["orders"])
                tokens = (await stub.IssueTokens(request, metadata=service.login)).tokens
            else:
                refresh = pb.RefreshRequest(
                    refresh_token=tokens.refresh_token, idempotency_key=secrets.token_hex(8)
                )
                tokens = (await stub.Refresh(refresh, metadata=service.login)).tokens
            for verifier in verifiers:
                try:
                    verifier.verify(tokens.access_token)
                    verified += 1
                except TokenError as error:
                    failures.append(str(error.reason))
            kids.add(_kid(tokens.access_token))
            await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    began = loop.time()
    using = [asyncio.create_task(use(number)) for number in range(6)]
    kept = [(await new_session("kept")).tokens.access_token]
    for _ in range(10):
        new = (await rotate(service)).public_key.kid
        await wait_until(lambda new=new: new in kids)
        # Whichever server had it first; this one follows within a second.
        await wait_until(lambda new=new: service.server.keys.active_signer().kid == new)
        kept.append((await new_session("kept")).tokens.access_token)
    took = loop.time() - began
    ending = True
    await asyncio.gather(*using)
    assert failures == []
    assert len(kids) == 11
    # A token of each key is as good as it was, at a verifier that has just started, too.
    assert {_kid(token) for token in kept} == kids
    for verifier in (*verifiers, await new_verifier(others[1])):
        assert {verifier.verify(token).subject for token in kept} == {"kept"}
    assert took < 60
    print(f"{verified} verifications of tokens of {len(kids)} keys in {took:.0f} s")


async def test_a_key_that_is_not_there_is_said_to_be(service: Any, refused: Any) -> None:
    revoke = service.administration.RevokeKey
    refusal = await refused(revoke(admin_pb.RevokeKeyRequest(kid="nothing"), metadata=service.admin))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND")
    refusal = await refused(revoke(admin_pb.RevokeKeyRequest(), metadata=service.admin))
    assert set(refusal.violations) == {"kid"}


class _Ahead:
    """The machine's clock, some seconds ahead."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self._seconds)  # noqa: TID251 - moved by the test


def _kid(token: str) -> str:
    header = token.split(".", maxsplit=1)[0]
    kid: str = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]
    return kid


@pytest.fixture
def events_of(service: Any) -> Callable[[str], Awaitable[list[str]]]:
    """The details of the recorded events of a type."""

    async def read(event_type: str) -> list[str]:
        bucket = service.server.store.keys.buckets[0]
        entries = await service.server.store.connection.command("XRANGE", bucket.outbox, "-", "+")
        rows = [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in entries]
        return [
            json.loads(row[b"circumstances"])["detail"] for row in rows if row[b"type"].decode() == event_type
        ]

    return read
