"""``KeyProvider`` for a private half that lives behind a wire: what all such places share.

A place is a ``Backend``: it makes a pair, signs, destroys. Around it:

- Each signature has a deadline. Within it an attempt that fails is made again, because by then the decision is recorded
  and the caller's refresh token spent. At most ``concurrency`` attempts are under way at once; the others wait.
- Failures in a row open the circuit. From then on ``check`` refuses at once, so that nothing more is recorded or spent.
  Whoever is under way waits for the rest of its deadline.
- While the circuit is open a task signs a probe that is no token, until one succeeds: nobody's call is the guinea pig.
- More than ``max_pending`` signatures that wait are too many: ``check`` refuses then as well.
- A new pair signs a probe that is verified with its public half, before anybody hears of it.
- Nothing takes the place of a key that cannot be reached. The log says once that the circuit has opened, with the
  place and the kind of failure, and once that it has closed; neither ever has a credential in it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from grpc_identity.circuit_breaker import CircuitBreaker
from grpc_identity.jwk import PublicKey, to_jwk
from identity.keys.ports import PROBE, NewKey, ProviderError, SignerBusyError, SignerUnavailableError
from identity.keys.signatures import verifies

FAILURES_TO_OPEN = 5
MAX_OPEN_SECONDS = 5.0
RETRY_AFTER_SECONDS = 1.0
PENDING_PER_SLOT = 16
LONG_CALL_FACTOR = 10
NO_ANSWER = "no answer in time"
_P256_COORDINATE_BYTES = 32

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class UnreachableError(Exception):
    """The place did not answer, or says that it cannot now. The same again may succeed; holds no secret."""


@dataclass(frozen=True, slots=True)
class RemoteLimits:
    """``timeout_seconds`` is for one signature with all its attempts; making a key may take ten times as long."""

    timeout_seconds: float = 2.0
    concurrency: int = 16

    @property
    def max_pending(self) -> int:
        """Signatures under way or waiting at which no more are begun."""
        return self.concurrency * PENDING_PER_SLOT


@dataclass(frozen=True, slots=True)
class NewPair:
    """A pair that was made, and how its place finds the private half again."""

    public_key: PublicKey
    private_part: bytes = field(repr=False)


class Backend(Protocol):
    """A place where private keys are. Every method may raise ``UnreachableError`` and ``ProviderError``."""

    @property
    def place(self) -> str:
        """What it is called in errors and logs, without credentials."""
        ...

    async def generate(self, algorithm: str) -> NewPair:
        """A new pair whose private half cannot be taken out."""
        ...

    async def sign(self, algorithm: str, private_part: bytes, signing_input: bytes) -> bytes:
        """The JOSE signature."""
        ...

    async def destroy(self, private_part: bytes) -> None:
        """Ends a pair; success where it is gone."""
        ...

    async def close(self) -> None:
        """Lets go of connections and sessions."""
        ...


@dataclass(frozen=True, slots=True)
class RemoteSigner:
    """A ``Signer`` whose private half is elsewhere."""

    kid: str
    algorithm: str
    private_part: bytes = field(repr=False)
    keys: RemoteKeys = field(repr=False)

    def check(self) -> None:
        """See ``Signer``."""
        self.keys.check()

    async def sign(self, signing_input: bytes) -> bytes:
        """See ``Signer``."""
        return await self.keys.sign(self, signing_input)

    async def probe(self) -> bytes:
        """See ``Signer``."""
        return await self.keys.probe(self)


class RemoteKeys:
    """A ``KeyProvider`` over one backend."""

    def __init__(self, backend: Backend, limits: RemoteLimits, monotonic: Callable[[], float]) -> None:
        self._backend = backend
        self._limits = limits
        self._monotonic = monotonic
        self._breaker = CircuitBreaker(
            monotonic=monotonic, failures_to_open=FAILURES_TO_OPEN, max_open_seconds=MAX_OPEN_SECONDS
        )
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._closed_circuit = asyncio.Event()
        self._closed_circuit.set()
        self._pending = 0
        self._reason = ""
        self._probing: asyncio.Task[None] | None = None

    async def generate(self, algorithm: str) -> NewKey:
        """See ``KeyProvider``."""
        pair = await self._called(lambda: self._backend.generate(algorithm))
        jwk = to_jwk(pair.public_key)
        if jwk["alg"] != algorithm:
            raise ProviderError(
                f"{self._backend.place} made a key for {jwk['alg']} when asked for {algorithm}"
            )
        proof = await self._called(lambda: self._backend.sign(algorithm, pair.private_part, PROBE))
        if not verifies(algorithm, pair.public_key, PROBE, proof):
            await self.destroy(pair.private_part)
            raise ProviderError(
                f"{self._backend.place} made a key of no use for {algorithm}: what it signs does not verify"
            )
        return NewKey(jwk, pair.private_part)

    async def signer(self, kid: str, algorithm: str, private_part: bytes) -> RemoteSigner:
        """See ``KeyProvider``. Asks nobody: the service comes up while the place is away, and is not ready."""
        return RemoteSigner(kid, algorithm, private_part, self)

    async def destroy(self, private_part: bytes) -> None:
        """See ``KeyProvider``."""
        await self._called(lambda: self._backend.destroy(private_part))

    async def close(self) -> None:
        """See ``KeyProvider``."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])
        await self._backend.close()

    def check(self) -> None:
        """See ``Signer``."""
        if self._breaker.is_open:
            raise self._away()
        if self._pending >= self._limits.max_pending:
            raise SignerBusyError(f"{self._backend.place} has more to sign than it keeps up with")

    async def sign(self, signer: RemoteSigner, signing_input: bytes) -> bytes:
        """See ``Signer``."""
        self._pending += 1
        deadline = self._monotonic() + self._limits.timeout_seconds
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                return await self._signed(signer, signing_input, deadline)
        except TimeoutError:
            raise self._away() from None
        finally:
            self._pending -= 1

    async def probe(self, signer: RemoteSigner) -> bytes:
        """See ``Signer``: one attempt, past the circuit and without effect on it."""
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                return await self._attempt(signer, PROBE)
        except TimeoutError:
            raise SignerUnavailableError(self._does_not_sign(NO_ANSWER)) from None
        except UnreachableError as error:
            raise SignerUnavailableError(self._does_not_sign(error)) from None
        except ProviderError as error:
            raise SignerUnavailableError(str(error)) from None

    async def _signed(self, signer: RemoteSigner, signing_input: bytes, deadline: float) -> bytes:
        while True:
            await self._closed_circuit.wait()
            async with self._slots:
                began = self._monotonic()
                try:
                    signature = await self._attempt(signer, signing_input)
                except UnreachableError as error:
                    self._failed(signer, self._does_not_sign(error))
                except ProviderError as error:
                    self._failed(signer, str(error))
                    raise self._away() from None
                except asyncio.CancelledError:
                    # A caller that gives up early says nothing about the place; one that has waited long does.
                    if self._monotonic() - began >= self._limits.timeout_seconds / 2:
                        self._failed(signer, self._does_not_sign(NO_ANSWER))
                    raise
                else:
                    # One that was under way when the circuit opened does not close it: that is up to the probe.
                    if not self._breaker.is_open:
                        self._breaker.succeeded()
                    return signature
            if self._monotonic() >= deadline:
                # A client with a timer of its own may have taken the cancellation for its own.
                raise self._away()
            await asyncio.sleep(self._breaker.seconds_until_attempt())

    def _failed(self, signer: RemoteSigner, reason: str) -> None:
        was_open = self._breaker.is_open
        if was_open:
            return
        self._reason = reason
        self._breaker.failed()
        if self._breaker.is_open:
            _log.error("nothing can be signed: %s", reason)
            self._closed_circuit.clear()
            self._probing = asyncio.create_task(self._until_it_signs(signer))

    async def _until_it_signs(self, signer: RemoteSigner) -> None:
        while True:
            await asyncio.sleep(self._breaker.seconds_until_attempt())
            try:
                await self.probe(signer)
            except SignerUnavailableError as error:
                self._reason = str(error)
            else:
                break
            self._breaker.failed()
        self._breaker.succeeded()
        self._closed_circuit.set()
        _log.info("%s signs again", self._backend.place)

    async def _attempt(self, signer: RemoteSigner, signing_input: bytes) -> bytes:
        try:
            return await self._backend.sign(signer.algorithm, signer.private_part, signing_input)
        except (UnreachableError, ProviderError):
            raise
        except Exception as error:
            # An answer of a shape that nobody thought of must not pass for a defect of the call that needed it.
            _log.exception("%s gave an answer of no use", self._backend.place)
            raise UnreachableError(f"an answer of no use ({type(error).__name__})") from None

    async def _called(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        return await called_once(self._backend.place, self._limits, operation)

    def _does_not_sign(self, reason: object) -> str:
        return f"{self._backend.place} does not sign: {reason}"

    def _away(self) -> SignerUnavailableError:
        retry_after = max(self._breaker.seconds_until_attempt(), RETRY_AFTER_SECONDS)
        reason = self._reason or self._does_not_sign(NO_ANSWER)
        return SignerUnavailableError(reason, retry_after_seconds=retry_after)


async def called_once(place: str, limits: RemoteLimits, operation: Callable[[], Awaitable[_T]]) -> _T:
    """What is no signature, and may take its time. Raises ``ProviderError``."""
    try:
        async with asyncio.timeout(limits.timeout_seconds * LONG_CALL_FACTOR):
            return await operation()
    except TimeoutError:
        raise ProviderError(f"{place} does not answer in time") from None
    except UnreachableError as error:
        raise ProviderError(f"{place} cannot be reached: {error}") from None


def raw_es256(der: bytes) -> bytes:
    """The 64 bytes of R and S (RFC 7518, section 3.4) of an ECDSA signature in DER. Raises ``ValueError``."""
    try:
        return b"".join(
            number.to_bytes(_P256_COORDINATE_BYTES, "big") for number in decode_dss_signature(der)
        )
    except OverflowError:
        raise ValueError("not a signature on P-256") from None
