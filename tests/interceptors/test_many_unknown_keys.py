"""Tokens with keys nobody knows, by the thousand: the issuer hears of them once per cool-down, good callers not at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from grpc_identity import Issuer, TokenError, Verifier, current_principal
from grpc_identity.errors import KeyNotHeldError
from grpc_identity.keysets import COOL_DOWN_SECONDS
from grpc_identity.testing import InMemoryIssuer
from grpc_identity.v1.identity_service_pb2 import GetJWKSRequest, GetJWKSResponse

UNKNOWN_KIDS = 10_000
AT_ONCE = 500
WAVES = 5
FETCH_METHOD = "GetJWKS"


class Time:
    """Monotonic seconds that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Published:
    """A real server of keys that counts how often it was asked and may hold its answers back."""

    def __init__(self, issuer: InMemoryIssuer, document: Any) -> None:
        self._issuer, self._document = issuer, document
        self.hold = document.hold
        self.questions = 0
        self.fails = False
        self.trusted = Issuer(issuer.issuer, jwks=document.url, audience="orders")

    @property
    def requests(self) -> int:
        return self.questions + int(self._document.requests)

    def fail(self) -> None:
        self.fails, self._document.status = True, 503

    def answer(self, request: GetJWKSRequest, context: Any) -> GetJWKSResponse:
        self.questions += 1
        self.hold.wait(20)
        if self.fails:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        return GetJWKSResponse(version="1", keys=self._issuer.jwks()["keys"])


@pytest.fixture(params=["http", "grpc"])
def published(request: Any, issuer: InMemoryIssuer, document: Any) -> Iterator[Published]:
    """The keys of the issuer, at a URL or at a gRPC address."""
    keys = Published(issuer, document)
    if request.param == "http":
        yield keys
        return
    handler = grpc.unary_unary_rpc_method_handler(
        keys.answer, GetJWKSRequest.FromString, GetJWKSResponse.SerializeToString
    )
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        service = grpc.method_handlers_generic_handler(
            "grpc_identity.v1.IdentityService", {FETCH_METHOD: handler}
        )
        server.add_generic_rpc_handlers((service,))
        target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        keys.trusted = Issuer(issuer.issuer, target=target, audience="orders")
        server.start()
        yield keys
        keys.hold.set()
        server.stop(0).wait()


@pytest.fixture(scope="module")
def strangers() -> list[str]:
    """Tokens that name ten thousand keys which were never published."""
    forger = InMemoryIssuer(audience="orders")
    return [forger.mint(header={"kid": f"unknown-{number}"}) for number in range(UNKNOWN_KIDS)]


async def reasons(verifier: Verifier, tokens: list[str]) -> Counter[str]:
    """Why these tokens are refused."""
    found: Counter[str] = Counter()
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(token: str) -> None:
        async with slots:
            try:
                await verifier.verify_async(token)
            except TokenError as error:
                found[error.reason] += 1

    await asyncio.gather(*map(one, tokens))
    return found


@pytest.mark.parametrize("is_away", [False, True], ids=["there", "away"])
async def test_ten_thousand_unknown_keys_cause_one_fetch_per_cool_down_and_delay_no_good_caller(
    published: Published, issuer: InMemoryIssuer, strangers: list[str], is_away: bool, wait_until: Any
) -> None:
    time = Time()
    async with Verifier(published.trusted, monotonic=time) as verifier:
        assert published.requests == 1
        if is_away:
            published.fail()
        share = UNKNOWN_KIDS // WAVES
        for wave in range(WAVES):
            time.seconds += COOL_DOWN_SECONDS
            published.hold.clear()
            refusing = asyncio.ensure_future(reasons(verifier, strangers[wave * share : (wave + 1) * share]))
            await wait_until(lambda expected=wave + 2: published.requests == expected)
            # The fetch hangs, with hundreds waiting for it; a good caller is answered from memory, seen or not.
            for subject in ("alice", "bob"):
                principal = await asyncio.wait_for(verifier.verify_async(issuer.mint(subject=subject)), 1)
                assert principal.subject == subject
            assert not refusing.done()
            published.hold.set()
            assert await refusing == {"KEY_UNKNOWN": share}
            assert published.requests == wave + 2


async def test_a_burst_of_first_calls_makes_one_fetch(published: Published, issuer: InMemoryIssuer) -> None:
    verifier = Verifier(published.trusted)
    try:
        tokens = [issuer.mint(subject=f"user-{number}") for number in range(200)]
        principals = await asyncio.gather(*map(verifier.verify_async, tokens))
        assert [principal.subject for principal in principals] == [f"user-{number}" for number in range(200)]
        assert published.requests == 1
    finally:
        verifier.close()


async def test_a_caller_that_asks_for_keys_just_after_they_have_come_has_them(
    published: Published, issuer: InMemoryIssuer
) -> None:
    verifier = Verifier(published.trusted)
    try:
        token = issuer.mint()
        with pytest.raises(KeyNotHeldError) as before:
            verifier.verify(token)
        await verifier.verify_async(token)
        flight = verifier.fetch_for(before.value, token)
        assert flight is not None
        assert flight.done()
        stranger = InMemoryIssuer(audience="orders").mint()
        with pytest.raises(KeyNotHeldError) as now:
            verifier.verify(stranger)
        assert verifier.fetch_for(now.value, stranger) is None
        assert published.requests == 1
    finally:
        verifier.close()


def test_threads_that_come_first_share_one_fetch(published: Published, issuer: InMemoryIssuer) -> None:
    verifier = Verifier(published.trusted)
    try:
        with ThreadPoolExecutor(16) as pool:
            principals = list(pool.map(verifier.verify_waiting, [issuer.mint() for _ in range(64)]))
        assert len(principals) == 64
        assert published.requests == 1
    finally:
        verifier.close()


def handlers(stack: str) -> dict[str, Any]:
    def plain(request: bytes, context: Any) -> bytes:
        return current_principal().subject.encode()

    async def coroutine(request: bytes, context: Any) -> bytes:
        return current_principal().subject.encode()

    return {"who": grpc.unary_unary_rpc_method_handler(plain if stack == "sync" else coroutine)}


@pytest.mark.parametrize("stack", ["sync", "aio"])
async def test_a_server_under_unknown_keys_asks_once_and_serves_good_callers_meanwhile(
    serve: Any, document: Any, issuer: InMemoryIssuer, strangers: list[str], wait_until: Any, stack: str
) -> None:
    time = Time()
    trusted = Issuer(issuer.issuer, jwks=document.url, audience="orders")
    async with Verifier(trusted, monotonic=time) as verifier:
        target = await serve(stack, handlers(stack), verifier)
        time.seconds += COOL_DOWN_SECONDS
        document.hold.clear()
        async with grpc.aio.insecure_channel(target) as channel:
            who = channel.unary_unary("/t.S/who")

            async def one(token: str) -> grpc.StatusCode:
                call = who(b"", metadata=(("authorization", f"Bearer {token}"),), timeout=20)
                return await call.code()

            flood = [asyncio.ensure_future(one(token)) for token in strangers[:300]]
            await wait_until(lambda: document.requests == 2)
            for _ in range(20):
                answer = who(b"", metadata=(("authorization", f"Bearer {issuer.mint()}"),), timeout=5)
                assert await answer == b"alice"
            assert not all(task.done() for task in flood)
            document.hold.set()
            outcomes = Counter(await asyncio.gather(*flood))
        # On the sync stack few threads may wait; those that find no room are asked to come again.
        assert set(outcomes) <= {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE}
        assert outcomes[grpc.StatusCode.UNAUTHENTICATED] >= 1
        if stack == "aio":
            assert outcomes == {grpc.StatusCode.UNAUTHENTICATED: 300}
        assert document.requests == 2
