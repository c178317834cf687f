"""What all remote signers do when their place is slow, away, or wrong."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec

from identity.keys.ports import PROBE, ProviderError, SignerBusyError, SignerUnavailableError
from identity.keys.providers.local import LocalSigner
from identity.keys.providers.remote import (
    FAILURES_TO_OPEN,
    NewPair,
    RemoteKeys,
    RemoteLimits,
    UnreachableError,
    raw_es256,
)

INPUT = b"header.payload"


class Place:
    """A backend that does as a test says. ``failure`` is raised, ``gate`` waited for."""

    place = "the place"

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked: list[bytes] = []
        self.under_way = self.most_under_way = 0
        self.destroyed: list[bytes] = []
        self.signs_with = self.key

    async def generate(self, algorithm: str) -> NewPair:
        return NewPair(self.key.public_key(), b"reference")

    async def sign(self, algorithm: str, private_part: bytes, signing_input: bytes) -> bytes:
        self.asked.append(signing_input)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.failure is not None:
            raise self.failure
        return await LocalSigner("", algorithm, self.signs_with).sign(signing_input)

    async def destroy(self, private_part: bytes) -> None:
        self.destroyed.append(private_part)

    async def close(self) -> None:
        pass


@pytest.fixture
def place() -> Place:
    return Place()


@pytest_asyncio.fixture
async def keys_of(place: Place) -> AsyncIterator[Callable[..., RemoteKeys]]:
    made: list[RemoteKeys] = []

    def build(**limits: Any) -> RemoteKeys:
        made.append(RemoteKeys(place, RemoteLimits(**limits), time.monotonic))
        return made[-1]

    yield build
    for keys in made:
        await keys.close()


async def opened(keys: RemoteKeys, place: Place) -> Any:
    """A signer whose circuit has just opened."""
    signer = await keys.signer("kid", "ES256", b"reference")
    place.failure = UnreachableError("ConnectionRefused")
    calls = [signer.sign(INPUT) for _ in range(FAILURES_TO_OPEN)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(answer) for answer in answers} == {SignerUnavailableError}
    return signer


async def test_an_open_circuit_refuses_at_once_says_when_to_come_back_and_closes_by_a_probe(
    keys_of: Callable[..., RemoteKeys], place: Place, wait_until: Any, caplog: Any
) -> None:
    caplog.set_level(logging.INFO)
    signer = await opened(keys_of(timeout_seconds=0.5), place)
    with pytest.raises(SignerUnavailableError, match="the place does not sign: ConnectionRefused") as caught:
        signer.check()
    assert caught.value.retry_after_seconds >= 1
    asked = len(place.asked)
    await wait_until(lambda: len(place.asked) > asked)
    # Whoever calls is no guinea pig: what goes out is no token, one at a time.
    assert set(place.asked[asked:]) == {PROBE}
    assert b"." not in PROBE
    place.failure = None

    def is_closed() -> bool:
        try:
            signer.check()
        except SignerUnavailableError:
            return False
        return True

    await wait_until(is_closed)
    assert await signer.sign(INPUT)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert said == [
        "nothing can be signed: the place does not sign: ConnectionRefused",
        "the place signs again",
    ]


async def test_one_that_is_under_way_when_the_place_comes_back_within_its_deadline_is_signed(
    keys_of: Callable[..., RemoteKeys], place: Place, wait_until: Any
) -> None:
    keys = keys_of(timeout_seconds=10.0)
    signer = await keys.signer("kid", "ES256", b"reference")
    place.failure = UnreachableError("ConnectionRefused")
    calls = [asyncio.create_task(signer.sign(INPUT)) for _ in range(FAILURES_TO_OPEN)]
    await wait_until(lambda: PROBE in place.asked)
    place.failure = None
    assert len(await asyncio.gather(*calls)) == FAILURES_TO_OPEN


async def test_a_place_that_hangs_opens_the_circuit_and_a_caller_that_gives_up_early_does_not(
    keys_of: Callable[..., RemoteKeys], place: Place, wait_until: Any
) -> None:
    keys = keys_of(timeout_seconds=0.4)
    signer = await keys.signer("kid", "ES256", b"reference")
    place.gate.clear()
    calls = [asyncio.create_task(signer.sign(INPUT)) for _ in range(2 * FAILURES_TO_OPEN)]
    await wait_until(lambda: place.under_way == 2 * FAILURES_TO_OPEN)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    signer.check()
    began = time.monotonic()
    calls = [asyncio.create_task(signer.sign(INPUT)) for _ in range(FAILURES_TO_OPEN)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {str(answer) for answer in answers} == {"the place does not sign: no answer in time"}
    assert time.monotonic() - began < 5
    with pytest.raises(SignerUnavailableError):
        signer.check()


async def test_no_more_are_under_way_than_allowed_and_too_many_that_wait_are_refused_beforehand(
    keys_of: Callable[..., RemoteKeys], place: Place, wait_until: Any
) -> None:
    keys = keys_of(timeout_seconds=10.0, concurrency=2)
    signer = await keys.signer("kid", "ES256", b"reference")
    place.gate.clear()
    calls = [asyncio.create_task(signer.sign(INPUT)) for _ in range(RemoteLimits(concurrency=2).max_pending)]
    await wait_until(lambda: place.under_way == 2)
    with pytest.raises(SignerBusyError, match="more to sign than it keeps up with"):
        signer.check()
    place.gate.set()
    await asyncio.gather(*calls)
    signer.check()
    assert place.most_under_way == 2


async def test_a_key_that_is_not_there_is_said_at_once(
    keys_of: Callable[..., RemoteKeys], place: Place
) -> None:
    signer = await keys_of(timeout_seconds=30.0).signer("kid", "ES256", b"reference")
    place.failure = ProviderError("the place has no such key")
    with pytest.raises(SignerUnavailableError, match=r"^the place has no such key$"):
        await signer.sign(INPUT)
    assert len(place.asked) == 1


@pytest.mark.parametrize("failure", [ProviderError("the place has no such key"), UnreachableError("reset")])
async def test_a_key_that_is_tried_and_fails_keeps_no_other_from_signing(
    keys_of: Callable[..., RemoteKeys], place: Place, failure: Exception
) -> None:
    keys = keys_of()
    signer = await keys.signer("kid", "ES256", b"reference")
    pending = await keys.signer("another", "ES256", b"another reference")
    place.failure = failure
    for _ in range(2 * FAILURES_TO_OPEN):
        with pytest.raises(SignerUnavailableError, match=str(failure)):
            await pending.probe()
    assert set(place.asked) == {PROBE}
    signer.check()
    place.failure = None
    assert await signer.sign(INPUT)


async def test_an_answer_of_no_use_is_not_a_defect_of_the_call(
    keys_of: Callable[..., RemoteKeys], place: Place, caplog: Any
) -> None:
    signer = await keys_of(timeout_seconds=0.3).signer("kid", "ES256", b"reference")
    place.failure = KeyError("signature")
    with pytest.raises(SignerUnavailableError, match=r"an answer of no use \(KeyError\)"):
        await signer.sign(INPUT)


async def test_a_new_key_whose_signature_does_not_verify_is_destroyed_and_refused(
    keys_of: Callable[..., RemoteKeys], place: Place
) -> None:
    place.signs_with = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ProviderError, match="what it signs does not verify"):
        await keys_of().generate("ES256")
    assert place.destroyed == [b"reference"]


async def test_a_key_of_another_algorithm_than_was_asked_for_is_refused(
    keys_of: Callable[..., RemoteKeys],
) -> None:
    with pytest.raises(ProviderError, match="made a key for ES256 when asked for EdDSA"):
        await keys_of().generate("EdDSA")


def test_a_signature_that_is_not_on_the_curve_is_not_shortened() -> None:
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    assert raw_es256(encode_dss_signature(1, 2)) == bytes(31) + b"\x01" + bytes(31) + b"\x02"
    for der in (encode_dss_signature(2**256, 1), b"", b"\x30\x00"):
        with pytest.raises(ValueError, match=r"."):
            raw_es256(der)
