"""Keys over the network: fetched ahead, kept when the issuer is away, asked for once however many need them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from grpc_identity import Issuer, KeySet, TokenError, Verifier
from grpc_identity.errors import KeyFetchError
from grpc_identity.jwks_http import HttpJwks
from grpc_identity.keysets import COOL_DOWN_SECONDS, FetchedKeys, KeyCache, KeyRefresher
from grpc_identity.testing import Flaw, InMemoryIssuer


@pytest.fixture
def issuer() -> InMemoryIssuer:
    return InMemoryIssuer("https://id.example", audience="orders")


class Time:
    """Monotonic seconds that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def trusting(document: Any) -> Issuer:
    return Issuer("https://id.example", jwks=document.url, audience="orders")


async def test_a_verifier_is_ready_when_its_keys_are_there(document: Any, issuer: InMemoryIssuer) -> None:
    verifier = Verifier(trusting(document))
    assert not verifier.ready
    async with verifier:
        assert verifier.ready
        assert [verifier.verify(issuer.mint()).subject for _ in range(100)] == ["alice"] * 100
    assert document.requests == 1


async def test_an_issuer_that_is_away_at_the_start_is_named(document: Any) -> None:
    document.status = 500
    with pytest.raises(KeyFetchError, match=r"https://id\.example: .*answered 500"):
        async with Verifier(trusting(document)):
            pass


async def test_a_hundred_calls_for_an_unknown_key_make_one_fetch_and_good_callers_go_on(
    document: Any, issuer: InMemoryIssuer
) -> None:
    time = Time()
    async with Verifier(trusting(document), monotonic=time) as verifier:
        unknown = issuer.mint_broken(Flaw.UNKNOWN_KEY)

        async def refused() -> str:
            with pytest.raises(TokenError) as caught:
                await verifier.verify_async(unknown)
            return caught.value.reason

        assert {await refused() for _ in range(50)} == {"KEY_UNKNOWN"}
        assert document.requests == 1  # within the cool-down of the first fetch
        time.seconds += COOL_DOWN_SECONDS
        document.hold.clear()
        waiting = [asyncio.ensure_future(refused()) for _ in range(50)]
        await asyncio.sleep(0)
        assert (await verifier.verify_async(issuer.mint())).subject == "alice"  # nobody waits for a bad kid
        document.hold.set()
        assert {await task for task in waiting} == {"KEY_UNKNOWN"}
    assert document.requests == 2


async def test_a_new_key_is_found_without_refusing_anybody(document: Any, issuer: InMemoryIssuer) -> None:
    time = Time()
    async with Verifier(trusting(document), monotonic=time) as verifier:
        old = issuer.mint()
        issuer.rotate()
        document.body = json.dumps(issuer.jwks()).encode()
        time.seconds += COOL_DOWN_SECONDS
        new = issuer.mint()
        answers = await asyncio.gather(*(verifier.verify_async(token) for token in [new, old] * 20))
        assert len(answers) == 40
    assert document.requests == 2


async def test_who_never_waits_has_a_new_key_soon_after_its_first_token(
    document: Any, issuer: InMemoryIssuer, wait_until: Any
) -> None:
    time = Time()
    async with Verifier(trusting(document), monotonic=time) as verifier:
        issuer.rotate(keep_old=False)
        document.body = json.dumps(issuer.jwks()).encode()
        new, unknown = issuer.mint(), issuer.mint_broken(Flaw.UNKNOWN_KEY)

        def accepts() -> bool:
            with contextlib.suppress(TokenError):
                return verifier.verify(new).subject == "alice"
            return False

        assert not accepts()
        assert document.requests == 1  # within the cool-down of the first fetch
        time.seconds += COOL_DOWN_SECONDS
        document.hold.clear()
        assert not any(accepts() for _ in range(100))
        document.hold.set()
        await wait_until(accepts)
        for _ in range(100):
            with pytest.raises(TokenError, match="KEY_UNKNOWN"):
                verifier.verify(unknown)
    assert document.requests == 2


async def test_a_key_that_is_taken_away_is_forgotten_with_what_it_verified(
    document: Any, issuer: InMemoryIssuer
) -> None:
    time = Time()
    async with Verifier(trusting(document), monotonic=time) as verifier:
        token = issuer.mint()
        verifier.verify(token)
        issuer.rotate(keep_old=False)
        document.body = json.dumps(issuer.jwks()).encode()
        time.seconds += COOL_DOWN_SECONDS
        await verifier.verify_async(issuer.mint())
        with pytest.raises(TokenError):
            verifier.verify(token)


def test_stale_keys_serve_a_day_and_then_nobody_is_called_unauthenticated(issuer: InMemoryIssuer) -> None:
    time = Time()
    cache = KeyCache(monotonic=time, max_stale_seconds=24 * 3600, jitter=lambda: 0.0)
    keys = KeySet.from_dict(issuer.jwks())
    cache.succeeded(FetchedKeys(keys, max_age_seconds=3600))
    assert cache.seconds_until_refresh() == pytest.approx(0.8 * 3600)
    for expected in (1, 2, 4, 8, 16, 30, 30):
        time.seconds += cache.seconds_until_refresh()
        cache.attempted()
        cache.failed("away")
        assert cache.seconds_until_refresh() == pytest.approx(expected)
        assert cache.current() is keys  # a failure wipes nothing
    time.seconds = 1000.0 + 24 * 3600
    assert cache.current() is None


def test_the_same_keys_are_the_same_object_so_that_what_is_remembered_stays(issuer: InMemoryIssuer) -> None:
    cache = KeyCache(monotonic=Time(), max_stale_seconds=3600)
    first = KeySet.from_dict(issuer.jwks())
    cache.succeeded(FetchedKeys(first))
    cache.succeeded(FetchedKeys(KeySet.from_dict(issuer.jwks())))
    assert cache.current() is first


def test_eight_threads_share_one_fetch_and_each_gives_up_by_itself(issuer: InMemoryIssuer) -> None:
    asked, answer = [], threading.Event()
    keys = KeySet.from_dict(issuer.jwks())

    def fetch(last: FetchedKeys | None) -> FetchedKeys:
        asked.append(last)
        answer.wait(10)
        return FetchedKeys(keys)

    time = Time()
    cache = KeyCache(monotonic=time, max_stale_seconds=3600)
    refresher = KeyRefresher("https://id.example", fetch, cache)
    with ThreadPoolExecutor(8) as pool:
        flights = [
            flight for flight in pool.map(lambda _: refresher.request(), range(8)) if flight is not None
        ]
        assert len({id(flight) for flight in flights}) == 1
        with pytest.raises(TimeoutError):
            flights[0].result(0.01)
        answer.set()
        flights[0].result(5)
    assert len(asked) == 1
    assert cache.current() == keys
    assert refresher.request() is None  # cooling down
    refresher.stop()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: setattr(d, "status", 404), "answered 404"),
        (lambda d: setattr(d, "body", b"<html>"), r"."),
        (lambda d: setattr(d, "body", b'{"keys":[]}'), "no usable key"),
        (lambda d: setattr(d, "body", b" " * 300_000), "more than"),
        (lambda d: (setattr(d, "status", 302), d.headers.update(Location="http://127.0.0.1:1/")), "redirect"),
    ],
)
def test_a_bad_answer_is_refused_with_the_reason(
    document: Any, spoil: Callable[[Any], None], message: str
) -> None:
    spoil(document)
    with pytest.raises(Exception, match=message) as caught:
        HttpJwks(document.url, allow_plaintext=False, timeout_seconds=2)(None)
    assert caught.type.__module__ == "grpc_identity.errors"


def test_an_unchanged_document_is_not_sent_again(document: Any) -> None:
    document.headers = {"ETag": '"v1"', "Cache-Control": "public, max-age=120"}
    ask = HttpJwks(document.url, allow_plaintext=False, timeout_seconds=2)
    first = ask(None)
    assert (first.version, first.max_age_seconds) == ('"v1"', 120.0)
    document.status = 304
    assert ask(first).key_set is first.key_set


async def test_keys_come_from_the_service_by_grpc_and_by_http(service: Any, new_session: Any) -> None:
    token = (await new_session()).tokens.access_token
    for source in (
        {"target": service.addresses.grpc_target},
        {"jwks": f"{service.addresses.http_url}/.well-known/jwks.json"},
    ):
        async with Verifier(Issuer("https://id.example", audience="orders", **source)) as verifier:
            principal = verifier.verify(token)
            assert (principal.subject, principal.client_id) == ("alice", "login")


# In the child nothing is asked for that is not held, so only a thread of its own can fetch.
FORKED = """
import os, signal, sys, threading
from grpc_identity import Issuer, KeySet, Verifier
from grpc_identity.keysets import FetchedKeys
from grpc_identity.testing import InMemoryIssuer

issuer, now, asked = InMemoryIssuer("https://id.example", audience="orders"), [1000.0], threading.Event()

def fetch(last):
    asked.set()
    return FetchedKeys(KeySet.from_dict(issuer.jwks()))

class Counted(Issuer):
    def fetch(self):
        return fetch

trusted = Counted("https://id.example", target="127.0.0.1:1", audience="orders")
with Verifier(trusted, monotonic=lambda: now[0]) as verifier:
    token = issuer.mint()
    verifier.verify(token)
    child = os.fork()
    if child == 0:
        signal.alarm(15)
        asked = threading.Event()
        assert threading.active_count() == 1
        now[0] += 3600
        assert verifier.ready
        assert verifier.verify(token).subject == "alice"
        assert verifier.verify(issuer.mint(subject="bob")).subject == "bob"
        assert asked.wait(10)
        os._exit(7)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork_the_keys_serve_at_once_and_are_refreshed_in_the_background_again() -> None:
    finished = subprocess.run([sys.executable, "-c", FORKED], timeout=40, capture_output=True, text=True)
    assert finished.returncode == 7, finished.stderr
