"""Calls whose key is not held yet, through real servers of both stacks: they wait, and nobody waits for them."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from grpc_identity import Issuer, KeySet, Policy, Verifier, current_principal
from grpc_identity.aio import AuthInterceptor as AioAuthInterceptor
from grpc_identity.errors import KeyFetchError
from grpc_identity.keysets import COOL_DOWN_SECONDS, Fetch, FetchedKeys
from grpc_identity.policy import Requirement
from grpc_identity.sync import AuthInterceptor
from grpc_identity.testing import Flaw, InMemoryIssuer

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
WAITING_AT_ONCE = 2


class Published:
    """Keys as an issuer publishes them; a test may hold the answer back."""

    def __init__(self) -> None:
        self.issuer = InMemoryIssuer("https://id.example", audience="orders")
        self.fetches = 0
        self.asked = threading.Event()
        self.answer = threading.Event()
        self.answer.set()
        self.is_away = False
        self.seconds = 1000.0

    def fetch(self, last: FetchedKeys | None) -> FetchedKeys:
        self.fetches += 1
        self.asked.set()
        assert self.answer.wait(10)
        if self.is_away:
            raise KeyFetchError("the issuer is away")
        return FetchedKeys(KeySet.from_dict(self.issuer.jwks()))

    def hold_back(self) -> None:
        """From here on a missing key is a reason to ask, and the answer does not come."""
        self.seconds += COOL_DOWN_SECONDS
        self.asked.clear()
        self.answer.clear()


class Served:
    def __init__(self, target: str, published: Published) -> None:
        self.target = target
        self.published = published
        self.deserialised = 0


@pytest.fixture
def published() -> Iterator[Published]:
    keys = Published()
    yield keys
    keys.answer.set()


def verifier_of(published: Published) -> Verifier:
    class HeldBack(Issuer):
        def fetch(self) -> Fetch | KeySet:
            return published.fetch

    issuer = HeldBack("https://id.example", target="127.0.0.1:1", audience="orders")
    return Verifier(issuer, monotonic=lambda: published.seconds)


def _fail(_: object) -> Any:
    # Put together here, since a traceback shows the line of the source.
    raise RuntimeError("-".join(("canary", "7f3a")))


POLICY = {"/t.S/faulty": Requirement(_fail, "a fault")}


@pytest_asyncio.fixture(params=["sync", "aio"])
async def served(request: Any, published: Published) -> AsyncIterator[Served]:
    service = Served("", published)

    def deserialise(raw: bytes) -> bytes:
        service.deserialised += 1
        return raw

    def unary(request: Any, context: Any) -> bytes:
        return current_principal().subject.encode()

    def stream(request: Any, context: Any) -> Iterator[bytes]:
        yield current_principal().subject.encode()

    def consuming(requests: Any, context: Any) -> bytes:
        return b",".join([current_principal().subject.encode() for _ in requests])

    def both(requests: Any, context: Any) -> Iterator[bytes]:
        for _ in requests:
            yield current_principal().subject.encode()

    generic = grpc.method_handlers_generic_handler(
        "t.S",
        {
            "unary_unary": grpc.unary_unary_rpc_method_handler(unary, deserialise),
            "unary_stream": grpc.unary_stream_rpc_method_handler(stream, deserialise),
            "stream_unary": grpc.stream_unary_rpc_method_handler(consuming, deserialise),
            "stream_stream": grpc.stream_stream_rpc_method_handler(both, deserialise),
            "faulty": grpc.unary_unary_rpc_method_handler(unary, deserialise),
        },
    )
    policy = Policy()
    for method, requirement in POLICY.items():
        policy.require(method, requirement)
    options = [("grpc.so_reuseport", 0)]
    with ThreadPoolExecutor(4) as pool, verifier_of(published) as verifier:
        if request.param == "sync":
            guard = AuthInterceptor(verifier, policy, max_waiting_calls=WAITING_AT_ONCE)
            sync_server = grpc.server(pool, interceptors=[guard], options=options)
            sync_server.add_generic_rpc_handlers((generic,))
            service.target = f"127.0.0.1:{sync_server.add_insecure_port('127.0.0.1:0')}"
            sync_server.start()
            yield service
            published.answer.set()
            await asyncio.to_thread(sync_server.stop(None).wait)
        else:
            aio_server = grpc.aio.server(
                pool, interceptors=[AioAuthInterceptor(verifier, policy)], options=options
            )
            aio_server.add_generic_rpc_handlers((generic,))
            service.target = f"127.0.0.1:{aio_server.add_insecure_port('127.0.0.1:0')}"
            await aio_server.start()
            yield service
            published.answer.set()
            await aio_server.stop(None)


async def call(
    served: Served, kind: str, token: str, *, method: str = "", seconds: float = 10, is_silent: bool = False
) -> list[bytes]:
    """The answers of one call. ``is_silent`` sends no message where messages are a stream: a client that is refused
    while it writes may report INTERNAL in place of the status it was sent (grpc/grpc#36066)."""

    async def requests() -> AsyncIterator[bytes]:
        if is_silent:
            await asyncio.Event().wait()
        yield b"1"

    async with grpc.aio.insecure_channel(served.target) as channel:
        multi = getattr(channel, kind)(f"/t.S/{method or kind}")
        argument = b"1" if kind.startswith("unary") else requests()
        started = multi(argument, metadata=(("authorization", f"Bearer {token}"),), timeout=seconds)
        return [await started] if kind.endswith("unary") else [answer async for answer in started]


def explained(error: grpc.aio.AioRpcError) -> tuple[str, bool]:
    """The reason, and whether the caller is told when to try again."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason, any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status.details)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_with_a_key_just_published_waits_and_is_answered(served: Served, kind: str) -> None:
    served.published.issuer.rotate()
    served.published.hold_back()
    waiting = asyncio.ensure_future(call(served, kind, served.published.issuer.mint(subject="alice")))
    await asyncio.to_thread(served.published.asked.wait, 10)
    assert served.deserialised == 0
    served.published.answer.set()
    assert await waiting == [b"alice"]
    assert served.deserialised == 1
    assert served.published.fetches == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_has_waited_in_vain_is_refused_unread(served: Served, kind: str) -> None:
    served.published.seconds += COOL_DOWN_SECONDS
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(served, kind, served.published.issuer.mint_broken(Flaw.UNKNOWN_KEY), is_silent=True)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert explained(refused.value) == ("KEY_UNKNOWN", False)
    assert served.deserialised == 0
    assert served.published.fetches == 2


async def test_an_unknown_method_stays_unimplemented_after_waiting(served: Served) -> None:
    served.published.issuer.rotate()
    served.published.seconds += COOL_DOWN_SECONDS
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(served, "unary_unary", served.published.issuer.mint(), method="Unknown")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_slow_fetch_stalls_no_other_call_not_even_on_the_one_serving_thread(
    served: Served, wait_until: Callable[..., Awaitable[None]]
) -> None:
    good, bad = served.published.issuer.mint(), served.published.issuer.mint_broken(Flaw.UNKNOWN_KEY)
    served.published.hold_back()
    waiting = [asyncio.ensure_future(call(served, "unary_unary", bad)) for _ in range(12)]
    await asyncio.to_thread(served.published.asked.wait, 10)
    for _ in range(5):
        assert await call(served, "unary_unary", good, seconds=5) == [b"alice"]
    served.published.answer.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    reasons = [explained(error) for error in outcomes if isinstance(error, grpc.aio.AioRpcError)]
    # Those that found no room to wait are asked to try again, since nothing is known of their tokens yet.
    assert len(reasons) == 12
    assert set(reasons) <= {("KEY_UNKNOWN", False), ("KEYS_UNAVAILABLE", True)}
    assert ("KEY_UNKNOWN", False) in reasons
    assert served.published.fetches == 2


async def test_a_deadline_ends_the_waiting_of_one_caller_and_not_the_fetch_that_others_share(
    served: Served,
) -> None:
    served.published.issuer.rotate()
    served.published.hold_back()
    token = served.published.issuer.mint()
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await call(served, "unary_unary", token, seconds=0.3)
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    served.published.answer.set()
    assert await call(served, "unary_unary", token) == [b"alice"]
    assert served.published.fetches == 2


async def test_keys_that_are_too_old_are_unavailable_and_never_unauthenticated(served: Served) -> None:
    token = served.published.issuer.mint()
    served.published.is_away = True
    served.published.seconds += 23 * 3600
    assert await call(served, "unary_unary", token) == [b"alice"]
    served.published.seconds += 2 * 3600
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(served, "unary_unary", token)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert explained(refused.value) == ("KEYS_UNAVAILABLE", True)
    served.published.is_away = False
    served.published.seconds += COOL_DOWN_SECONDS
    assert await call(served, "unary_unary", token) == [b"alice"]


async def test_a_fault_while_deciding_refuses_and_tells_nobody_its_text(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(served, "unary_unary", served.published.issuer.mint(), method="faulty")
    assert refused.value.code() is grpc.StatusCode.INTERNAL
    assert explained(refused.value) == ("VERIFIER_FAILED", False)
    assert "canary-7f3a" not in f"{refused.value!r} {caplog.text}"
    assert "RuntimeError" in caplog.text
    assert served.deserialised == 0


# The fork comes at the worst moment: the parent's thread is in the middle of a fetch, and another has the lock. The
# child has neither thread, so nobody would ever end the fetch or let go of the lock.
FORK = """
import os, signal, sys, threading
from grpc_identity import Issuer, KeySet, Verifier
from grpc_identity.errors import TokenError
from grpc_identity.keysets import FetchedKeys
from grpc_identity.testing import InMemoryIssuer

issuer, now = InMemoryIssuer("https://id.example", audience="orders"), [1000.0]
asked, answer = threading.Event(), threading.Event()
answer.set()

def fetch(last):
    asked.set()
    answer.wait(20)
    return FetchedKeys(KeySet.from_dict(issuer.jwks()))

class Held(Issuer):
    def fetch(self):
        return fetch

with Verifier(Held("https://id.example", target="127.0.0.1:1", audience="orders"), monotonic=lambda: now[0]) as verifier:
    old = issuer.mint()
    issuer.rotate()
    now[0] += 30
    asked.clear()
    answer.clear()
    try:
        verifier.verify_waiting(issuer.mint(), wait_seconds=0)
    except TokenError:
        asked.wait(10)
    has_lock, let_go = threading.Event(), threading.Event()

    def hold_lock():
        with verifier._refreshers["https://id.example"]._wake:
            has_lock.set()
            let_go.wait(20)

    threading.Thread(target=hold_lock, daemon=True).start()
    has_lock.wait(10)
    child = os.fork()
    if child == 0:
        signal.alarm(15)
        answer = threading.Event()
        answer.set()
        now[0] += 30
        verifier.verify(old)
        verifier.verify_waiting(issuer.mint(), wait_seconds=10)
        os._exit(7)
    let_go.set()
    answer.set()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork_the_child_still_verifies_and_finds_new_keys() -> None:
    finished = subprocess.run([sys.executable, "-c", FORK], timeout=60, capture_output=True, text=True)
    assert finished.returncode == 7, finished.stderr
