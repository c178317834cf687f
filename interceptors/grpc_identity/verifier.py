"""From a token to a ``Principal``, or to a ``TokenError`` that says why not. Knows nothing of gRPC.

``TokenVerifier`` verifies with the keys that are held and never waits. A token that was verified is remembered, by
its SHA-256 and not by its text, until it expires or the keys of its issuer change, whichever is first; the memory is
bounded. What is revoked is looked up with each call. ``Verifier`` adds the fetching of keys, the feed of revocations,
and waiting.

Order: form, header, form of the claims, issuer (exact), key, signature, audience, times, revocations. Of several
issuers only the keys of the one that the token names are tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from hashlib import sha256
from math import inf
from secrets import token_hex
from typing import TYPE_CHECKING, Protocol, Self

from grpc_identity.claims import (
    ACCESS_TOKEN_TYPE,
    MAX_LEEWAY_SECONDS,
    check_claims,
    parse_claims,
)
from grpc_identity.clock import Clock, monotonic_clock, wall_clock
from grpc_identity.errors import (
    GrpcIdentityError,
    KeyFetchError,
    KeyNotHeldError,
    NotHeldError,
    Reason,
    RevocationsNotHeldError,
    StateFeedError,
    TokenError,
)
from grpc_identity.issuer import Issuer
from grpc_identity.jwk import Algorithm, KeySet
from grpc_identity.jws import ALL_ALGORITHMS, MAX_TOKEN_BYTES, parse_compact, verify_signature
from grpc_identity.keysets import KeyCache, KeyRefresher
from grpc_identity.leases import Lease, Leases
from grpc_identity.principal import Principal
from grpc_identity.revocation_guard import RevocationGuard
from grpc_identity.revocations import RevocationView, StaleRevocations

if TYPE_CHECKING:
    from grpc_identity.introspection import Introspector
    from grpc_identity.verifier_state import StateFollower

__all__ = ["HeldKeys", "Issuer", "TokenVerifier", "TrustedIssuer", "Verifier"]

MAX_REMEMBERED_TOKENS = 10_000
MAX_STALE_HOURS = 24.0
MAX_REVOCATION_AGE_SECONDS = 60.0
START_TIMEOUT_SECONDS = 15.0
WAIT_FOR_KEY_SECONDS = 5.0
_RETRY_AFTER_SECONDS = 1.0


def digest_of(token: str) -> bytes:
    """What a token is remembered by."""
    return sha256(token.encode("utf-8", "replace")).digest()


def default_verifier_name() -> str:
    """Host, process, and enough to tell it from another process of that number."""
    return f"{socket.gethostname()[:80]}-{os.getpid()}-{token_hex(2)}"


class HeldKeys(Protocol):
    """Keys of one issuer in memory."""

    def current(self) -> KeySet | None:
        """The keys to use, the same object while they are the same; ``None`` if there are none fit to use."""


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer, whose tokens are accepted if they name one of ``audiences``."""

    issuer: str
    audiences: frozenset[str]
    keys: HeldKeys
    algorithms: frozenset[Algorithm] = ALL_ALGORITHMS
    revocations: RevocationGuard | None = None


@dataclass(slots=True)
class _Remembered:
    principal: Principal = dataclass_field(repr=False)
    good_until: float
    keys: HeldKeys
    key_set: KeySet
    kid: str
    is_for_us: bool
    revocations: RevocationGuard | None
    revocations_seen: object


class _Memory:
    """What was verified lately, at most ``limit`` entries.

    Two halves: when the young one is full it becomes the old one, and what was old is forgotten. So nothing is ever
    searched, and what is in use moves back into the young half.
    """

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._young: dict[bytes, _Remembered] = {}
        self._old: dict[bytes, _Remembered] = {}

    def get(self, digest: bytes) -> _Remembered | None:
        found = self._young.get(digest)
        if found is None:
            found = self._old.get(digest)
            if found is not None:
                self.put(digest, found)
        return found

    def put(self, digest: bytes, remembered: _Remembered) -> None:
        if self._half:
            if len(self._young) >= self._half:
                # Threads may do this at once; the worst of it is to forget a little more.
                self._old, self._young = self._young, {}
            self._young[digest] = remembered


class TokenVerifier:
    """Verifies tokens with the keys that are held; safe to use from several threads.

    >>> from grpc_identity.testing import InMemoryIssuer
    >>> issuer = InMemoryIssuer(audience="orders")
    >>> Verifier(issuer.trusted()).verify(issuer.mint(subject="alice")).subject
    'alice'
    """

    def __init__(
        self,
        issuers: Sequence[TrustedIssuer],
        *,
        leeway_seconds: float = MAX_LEEWAY_SECONDS,
        max_remembered: int = MAX_REMEMBERED_TOKENS,
        clock: Clock = wall_clock,
    ) -> None:
        if not issuers:
            raise ValueError("name at least one issuer")
        if not 0 <= leeway_seconds <= MAX_LEEWAY_SECONDS:
            raise ValueError(f"leeway_seconds is {leeway_seconds}; 0 to {MAX_LEEWAY_SECONDS} are allowed")
        self._guards = {
            issuer.issuer: issuer.revocations for issuer in issuers if issuer.revocations is not None
        }
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        if len(self._issuers) != len(issuers):
            raise ValueError("an issuer is named twice; give it several audiences instead")
        self._leeway_seconds = leeway_seconds
        self._clock = clock
        self._memory = _Memory(max_remembered)

    def verify(self, token: str, audiences: frozenset[str] | None = None) -> Principal:
        """The caller whose token this is, from what is held in memory.

        ``audiences`` replace those its issuer is trusted for: the token must name one of them. Raises ``TokenError``; of that, ``KeyNotHeldError`` where a fetch of keys may help.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenError(Reason.TOKEN_INVALID, f"longer than {MAX_TOKEN_BYTES} bytes")
        digest = digest_of(token)
        found = self._memory.get(digest)
        if found is not None and found.good_until > self._clock() and found.keys.current() is found.key_set:
            guard = found.revocations
            if guard is not None and (guard.asks_for_age or guard.view.version is not found.revocations_seen):
                version = guard.view.version
                guard.check(found.principal, found.kid, digest)
                found.revocations_seen = version
            if audiences is None:
                if found.is_for_us:
                    return found.principal
            elif not audiences.isdisjoint(found.principal.audience):
                return found.principal
            raise TokenError(Reason.AUDIENCE_MISMATCH, "aud is for none of the method's audiences")
        return self._verify_unseen(token, digest, audiences)

    def _verify_unseen(self, token: str, digest: bytes, audiences: frozenset[str] | None) -> Principal:
        jws = parse_compact(token, typ=ACCESS_TOKEN_TYPE)
        claims = parse_claims(jws.payload)
        issuer = self._issuers.get(claims.issuer)
        if issuer is None:
            raise TokenError(Reason.ISSUER_MISMATCH, "iss is none of the trusted issuers")
        if jws.algorithm not in issuer.algorithms:
            raise TokenError(Reason.TOKEN_INVALID, "the header's alg is not allowed for this issuer")
        key_set = issuer.keys.current()
        if key_set is None:
            raise KeyNotHeldError(
                Reason.KEYS_UNAVAILABLE,
                f"no keys of {issuer.issuer} that are fresh enough are held",
                issuer=issuer.issuer,
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        try:
            verify_signature(jws, key_set)
        except TokenError as error:
            if error.reason is Reason.KEY_UNKNOWN:
                raise KeyNotHeldError(error.reason, error.detail, issuer=issuer.issuer) from None
            raise
        check_claims(
            claims,
            now_seconds=self._clock(),
            issuer=issuer.issuer,
            audiences=issuer.audiences if audiences is None else audiences,
            leeway_seconds=self._leeway_seconds,
        )
        if claims.is_bound:
            # RFC 7800, section 3: taking such a token as a bearer token would undo what binds it.
            raise TokenError(Reason.TOKEN_INVALID, "bound to a key (cnf), which is not supported here")
        principal = Principal.from_claims(claims)
        guard, version = issuer.revocations, None
        if guard is not None:
            version = guard.view.version
            guard.check(principal, jws.kid or "", digest)
        good_until = claims.expires_at_seconds + self._leeway_seconds
        self._memory.put(
            digest,
            _Remembered(
                principal,
                good_until,
                issuer.keys,
                key_set,
                jws.kid or "",
                not issuer.audiences.isdisjoint(claims.audience),
                guard,
                version,
            ),
        )
        return principal


class Verifier(TokenVerifier):
    """Verifies the tokens of these issuers, and keeps their keys and revocations fresh in the background.

    ``with`` or ``async with`` it: the block is entered when the keys of every issuer are there, and the revocations of
    those that push them, or an error says why they are not. ``verify`` never waits; ``verify_async`` and
    ``verify_waiting`` may wait for what is not held yet.

    ``name`` is how ``identity verifiers`` lists this process; it should be the same after a restart, and no other
    process may have it. ``stale_revocations`` says what happens when nothing was heard of an issuer's revocations
    for ``max_revocation_age_seconds``.
    """

    def __init__(
        self,
        *issuers: Issuer,
        leeway_seconds: float = MAX_LEEWAY_SECONDS,
        max_stale_hours: float = MAX_STALE_HOURS,
        max_revocation_age_seconds: float = MAX_REVOCATION_AGE_SECONDS,
        stale_revocations: StaleRevocations = StaleRevocations.SERVE,
        name: str | None = None,
        max_remembered: int = MAX_REMEMBERED_TOKENS,
        clock: Clock = wall_clock,
        monotonic: Clock = monotonic_clock,
    ) -> None:
        if not 0 < max_stale_hours < inf:
            raise ValueError(f"max_stale_hours is {max_stale_hours}; a number above 0 is due")
        if not 0 < max_revocation_age_seconds < inf:
            raise ValueError(
                f"max_revocation_age_seconds is {max_revocation_age_seconds}; a number above 0 is due"
            )
        self._max_revocation_age_seconds = max_revocation_age_seconds
        self.name = name or default_verifier_name()
        self.leases = Leases()
        self._caches: dict[str, KeyCache] = {}
        self._refreshers: dict[str, KeyRefresher] = {}
        self._followers: dict[str, StateFollower] = {}
        self._introspectors: dict[str, Introspector] = {}
        guards: dict[str, RevocationGuard] = {}
        for issuer in issuers:
            fetch = issuer.fetch()
            if isinstance(fetch, KeySet):
                cache = KeyCache.static(fetch, monotonic=monotonic)
            else:
                cache = KeyCache(monotonic=monotonic, max_stale_seconds=max_stale_hours * 3600)
                self._refreshers[issuer.issuer] = KeyRefresher(issuer.issuer, fetch, cache)
            self._caches[issuer.issuer] = cache
            if issuer.is_followed:
                view = RevocationView(monotonic=monotonic)
                guards[issuer.issuer] = RevocationGuard(
                    issuer.issuer,
                    view,
                    stale=stale_revocations,
                    max_age_seconds=max_revocation_age_seconds,
                    answers=self._introspector(issuer, stale_revocations, monotonic),
                )
                self._followers[issuer.issuer] = self._follower(issuer, cache, view, clock)
        super().__init__(
            [
                TrustedIssuer(
                    i.issuer,
                    i.audiences,
                    self._caches[i.issuer],
                    i.accepted_algorithms,
                    guards.get(i.issuer),
                )
                for i in issuers
            ],
            leeway_seconds=leeway_seconds,
            max_remembered=max_remembered,
            clock=clock,
        )

    @property
    def ready(self) -> bool:
        """Whether the keys of every issuer are there and fresh enough to use, and revocations where they are pushed."""
        return all(cache.current() is not None for cache in self._caches.values()) and all(
            guard.view.age_seconds < self._max_revocation_age_seconds for guard in self._guards.values()
        )

    def start(self, *, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Fetches the keys of every issuer, and revocations where they are pushed, and keeps them fresh from then on.

        Raises ``KeyFetchError`` and ``StateFeedError``.
        """
        flights = [part.start() for part in self._parts()]
        try:
            wait(flights, timeout_seconds, FIRST_EXCEPTION)
            for flight in flights:
                if flight.done():
                    flight.result()
            missing = [name for name, cache in self._caches.items() if cache.current() is None]
            if missing:
                reasons = "; ".join(f"{name}: {self._caches[name].last_error}" for name in missing)
                raise KeyFetchError(f"no keys to verify with: {reasons}")
            silent = [name for name, guard in self._guards.items() if guard.view.age_seconds == inf]
            if silent:
                reasons = "; ".join(f"{name}: {self._followers[name].last_error}" for name in silent)
                raise StateFeedError(f"nothing is heard of revocations: {reasons}")
        except GrpcIdentityError:
            self.close()
            raise

    def close(self) -> None:
        """Stops to keep things fresh. What is held stays usable for as long as it would have been."""
        for part in self._parts():
            part.stop()
        for introspector in self._introspectors.values():
            introspector.close()

    def fetch_for(self, error: NotHeldError, token: str) -> Future[None] | None:
        """Starts what may bring the missing thing, or joins it. ``None``: not now, the answer is final."""
        if isinstance(error, RevocationsNotHeldError):
            return self._introspectors[error.issuer].ask(token, digest_of(token))
        refresher = self._refreshers.get(error.issuer)
        return None if refresher is None else refresher.request()

    def lease(self, principal: Principal, token: str, on_end: Callable[[TokenError], None]) -> Lease:
        """Watches over a call that goes on: ``on_end`` is called when the token is revoked. Give it back."""
        found = self._memory.get(digest_of(token))
        lease = Lease(principal, found.kid if found else "", self._guards.get(principal.issuer), on_end)
        self.leases.add(lease)
        return lease

    def seconds_left(self, principal: Principal) -> float:
        """How long the token of a verified caller is still accepted."""
        return principal.expires_at.timestamp() + self._leeway_seconds - self._clock()

    def _parts(self) -> Sequence[KeyRefresher | StateFollower]:
        return [*self._refreshers.values(), *self._followers.values()]

    def _introspector(self, issuer: Issuer, stale: StaleRevocations, monotonic: Clock) -> Introspector | None:
        if stale is not StaleRevocations.INTROSPECT:
            return None
        from grpc_identity.introspection import Introspector

        introspector = Introspector(issuer.channel(), issuer.metadata(), monotonic=monotonic)
        self._introspectors[issuer.issuer] = introspector
        return introspector

    def _follower(self, issuer: Issuer, cache: KeyCache, view: RevocationView, clock: Clock) -> StateFollower:
        from grpc_identity.verifier_state import StateFollower

        return StateFollower(
            issuer.issuer,
            issuer.channel(),
            verifier_id=self.name,
            metadata=issuer.metadata(),
            keys=cache,
            revocations=view,
            on_change=self.leases.revoked,
            clock=clock,
        )

    async def verify_async(
        self,
        token: str,
        audiences: frozenset[str] | None = None,
        *,
        wait_seconds: float = WAIT_FOR_KEY_SECONDS,
    ) -> Principal:
        """As ``verify``; waits for a fetch of keys where that may help. Giving up never stops the fetch."""
        try:
            return self.verify(token, audiences)
        except NotHeldError as error:
            flight = self.fetch_for(error, token)
            if flight is None:
                raise
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(flight), wait_seconds)
        return self.verify(token, audiences)

    def verify_waiting(
        self,
        token: str,
        audiences: frozenset[str] | None = None,
        *,
        wait_seconds: float = WAIT_FOR_KEY_SECONDS,
    ) -> Principal:
        """As ``verify``; blocks until a fetch of keys has ended where that may help."""
        try:
            return self.verify(token, audiences)
        except NotHeldError as error:
            flight = self.fetch_for(error, token)
            if flight is None:
                raise
            with contextlib.suppress(TimeoutError):
                flight.result(wait_seconds)
        return self.verify(token, audiences)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await asyncio.to_thread(self.close)
