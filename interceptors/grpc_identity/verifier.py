"""A ``TokenVerifier`` that keeps what it verifies by fresh: keys, revocations, and waiting for what is not held yet."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from math import inf
from secrets import token_hex
from typing import TYPE_CHECKING, Self

from grpc_identity.claims import MAX_LEEWAY_SECONDS
from grpc_identity.clock import Clock, monotonic_clock, wall_clock
from grpc_identity.errors import (
    GrpcIdentityError,
    KeyFetchError,
    KeyNotHeldError,
    NotHeldError,
    RevocationsNotHeldError,
    StateFeedError,
    TokenError,
)
from grpc_identity.issuer import Issuer
from grpc_identity.jwk import KeySet
from grpc_identity.keysets import KeyCache, KeyRefresher
from grpc_identity.leases import Lease, Leases
from grpc_identity.principal import Principal
from grpc_identity.remembered import digest_of
from grpc_identity.revocation_guard import RevocationGuard
from grpc_identity.revocations import RevocationView, StaleRevocations
from grpc_identity.telemetry import observe
from grpc_identity.token_verifier import MAX_REMEMBERED_TOKENS, TokenVerifier, TrustedIssuer

if TYPE_CHECKING:
    from grpc_identity.introspection import Introspector
    from grpc_identity.verifier_state import StateFollower

__all__ = ["Issuer", "Verifier", "default_verifier_name"]

MAX_STALE_HOURS = 24.0
MAX_REVOCATION_AGE_SECONDS = 60.0
START_TIMEOUT_SECONDS = 15.0
WAIT_FOR_KEY_SECONDS = 5.0


def default_verifier_name() -> str:
    """Host, process, and enough to tell it from another process of that number."""
    return f"{socket.gethostname()[:80]}-{os.getpid()}-{token_hex(2)}"


class Verifier(TokenVerifier):
    """Verifies the tokens of these issuers, and keeps their keys and revocations fresh in the background.

    ``with`` or ``async with`` it: the block is entered when the keys of every issuer are there, and the revocations of
    those that push them, or an error says why they are not. ``verify`` never waits: a token whose key is not held yet is
    refused, and the key is asked for in the background. ``verify_async`` and ``verify_waiting`` may wait for it.

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
            view = issuer.revocations
            if issuer.is_followed:
                view = RevocationView(monotonic=monotonic)
                self._followers[issuer.issuer] = self._follower(issuer, cache, view, clock)
            if view is not None:
                view.subscribe(self.leases.revoked)
                guards[issuer.issuer] = RevocationGuard(
                    issuer.issuer,
                    view,
                    # Revocations that are given do not grow old.
                    stale=stale_revocations if issuer.is_followed else StaleRevocations.SERVE,
                    max_age_seconds=max_revocation_age_seconds,
                    answers=self._introspector(issuer, stale_revocations, monotonic),
                )
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
        observe(self)

    def held_kids(self, issuer: str) -> tuple[str, ...]:
        """The ids of the keys that are held of an issuer, and fresh enough to use."""
        key_set = self._caches[issuer].current()
        return () if key_set is None else key_set.kids

    def key_ages_seconds(self) -> dict[str, float]:
        """How long ago the keys of each issuer were last confirmed."""
        return {name: cache.age_seconds for name, cache in self._caches.items() if cache.age_seconds < inf}

    def revocation_ages_seconds(self) -> dict[str, float]:
        """How long ago each issuer that pushes its revocations was last heard of."""
        ages = {name: self._guards[name].view.age_seconds for name in self._followers}
        return {name: age for name, age in ages.items() if age < inf}

    @property
    def ready(self) -> bool:
        """Whether the keys of every issuer are there and fresh enough to use, and revocations where they are pushed."""
        return all(cache.current() is not None for cache in self._caches.values()) and all(
            self._guards[name].view.age_seconds < self._max_revocation_age_seconds for name in self._followers
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
            silent = [name for name in self._followers if self._guards[name].view.age_seconds == inf]
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
        flight = None if refresher is None else refresher.request()
        if flight is None and isinstance(error, KeyNotHeldError) and self._has_other_keys(error):
            # The fetch has ended between the look and the question.
            flight = Future()
            flight.set_result(None)
        return flight

    def lease(self, principal: Principal, token: str, on_end: Callable[[TokenError], None]) -> Lease:
        """Watches over a call that goes on: ``on_end`` is called when the token is revoked. Give it back."""
        found = self._memory.get(digest_of(token))
        lease = Lease(principal, found.kid if found else "", self._guards.get(principal.issuer), on_end)
        self.leases.add(lease)
        return lease

    def seconds_left(self, principal: Principal) -> float:
        """How long the token of a verified caller is still accepted."""
        return principal.expires_at.timestamp() + self._leeway_seconds - self._clock()

    def _look_for_key(self, error: KeyNotHeldError) -> None:
        # Who only ever calls ``verify`` would refuse the tokens of a new key until the set is next renewed.
        refresher = self._refreshers.get(error.issuer)
        if refresher is not None:
            refresher.request()

    def _has_other_keys(self, error: KeyNotHeldError) -> bool:
        issuer = self._issuers.get(error.issuer)
        return issuer is not None and issuer.keys.current() is not error.key_set

    def _parts(self) -> Sequence[KeyRefresher | StateFollower]:
        return [*self._refreshers.values(), *self._followers.values()]

    def _introspector(self, issuer: Issuer, stale: StaleRevocations, monotonic: Clock) -> Introspector | None:
        if stale is not StaleRevocations.INTROSPECT or not issuer.is_followed:
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
