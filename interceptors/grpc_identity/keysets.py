"""What is held of an issuer's keys, and when to ask again.

``KeyCache`` decides and knows neither network nor threads; its times are seconds of a monotonic clock that is
handed in. ``KeyRefresher`` is the one thread that asks, so that no call ever does: callers read the cache, and those
that need a key that is not there wait for the thread, each for as long as it likes.

Rules:

- asked again at 80 % of the lifetime the issuer names (1 minute to 24 hours; 1 hour unless it names one), with 10 %
  of jitter, so that a fleet does not ask in one wave;
- an attempt that fails changes nothing that is held; the next follows after 1, 2, 4 … 30 seconds, jittered;
- keys that the identity service says it has withdrawn are dropped at once; an answer that is faulty or empty otherwise is a
  failed attempt;
- keys are used for 24 hours (``max_stale_hours``) after they were last confirmed, then no more;
- a key that is not held causes an attempt only if the last one, whatever came of it, is 30 seconds old; callers
  meanwhile share the attempt that is under way.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from math import inf

from grpc_identity.clock import Clock
from grpc_identity.errors import GrpcIdentityError, KeysWithdrawnError
from grpc_identity.jwk import KeySet

__all__ = ["Fetch", "FetchedKeys", "KeyCache", "KeyRefresher"]

DEFAULT_LIFETIME_SECONDS = 3600.0
MIN_LIFETIME_SECONDS = 60.0
MAX_LIFETIME_SECONDS = 24 * 3600.0
REFRESH_AT_FRACTION = 0.8
JITTER_FRACTION = 0.1
COOL_DOWN_SECONDS = 30.0
MIN_BACK_OFF_SECONDS = 1.0
MAX_BACK_OFF_SECONDS = 30.0
_STOP_WAIT_SECONDS = 1.0

_logger = logging.getLogger("grpc_identity.keys")


@dataclass(frozen=True, slots=True)
class FetchedKeys:
    """An answer of an issuer; ``version`` is sent back with the next question."""

    key_set: KeySet
    version: str = ""
    max_age_seconds: float | None = None


Fetch = Callable[[FetchedKeys | None], FetchedKeys]
"""Asks the issuer, given the last answer; blocks, with a time limit of its own. If nothing has changed it returns the
last answer's key set. Raises ``KeyFetchError``,
``KeysWithdrawnError`` or ``KeyRefusedError``."""


class KeyCache:
    """The keys of one issuer, and the schedule of asking for them."""

    __slots__ = (
        "_attempted_at",
        "_confirmed_at",
        "_failures",
        "_jitter",
        "_kept_until",
        "_key_set",
        "_last",
        "_max_stale_seconds",
        "_monotonic",
        "_refresh_at",
        "_usable_until",
        "_wake",
        "last_error",
    )

    def __init__(
        self, *, monotonic: Clock, max_stale_seconds: float, jitter: Callable[[], float] = random.random
    ) -> None:
        self._monotonic = monotonic
        self._max_stale_seconds = max_stale_seconds
        self._jitter = jitter
        self._key_set: KeySet | None = None
        self._last: FetchedKeys | None = None
        self._confirmed_at = -inf
        self._usable_until = -inf
        self._refresh_at = -inf
        self._attempted_at = -inf
        self._failures = 0
        self._kept_until = -inf
        self._wake: Callable[[], object] | None = None
        self.last_error = "no attempt to fetch them was made"

    @classmethod
    def static(cls, key_set: KeySet, *, monotonic: Clock) -> KeyCache:
        """Keys that are given once and stay."""
        cache = cls(monotonic=monotonic, max_stale_seconds=inf)
        cache._key_set, cache._usable_until, cache._refresh_at = key_set, inf, inf
        return cache

    def current(self) -> KeySet | None:
        """The keys to verify with, or ``None`` if there are none or they are too old.

        The very same object as long as the keys are the same, which is what remembered tokens are bound to.
        """
        if self._monotonic() < self._usable_until:
            return self._key_set
        wake = self._wake
        if wake is not None:
            # Another thread may be here, too; both then see that the keys are usable.
            self._usable_until = max(self._usable_until, self._kept_until)
            self._wake = None
            wake()
        return self._key_set if self._monotonic() < self._usable_until else None

    def wake_when_used(self, wake: Callable[[], object]) -> None:
        """Calls ``wake`` when the keys are next asked for; costs nothing until then, nor afterwards."""
        if self._wake is None:
            self._kept_until, self._usable_until = self._usable_until, -inf
        self._wake = wake

    @property
    def last(self) -> FetchedKeys | None:
        """The last answer of the issuer, to ask with."""
        return self._last

    @property
    def age_seconds(self) -> float:
        """How long ago the issuer last confirmed the keys; infinite if it never has, as with keys that are given."""
        return self._monotonic() - self._confirmed_at

    def seconds_until_refresh(self) -> float:
        """How long until the issuer should be asked again; zero when it is time."""
        return max(0.0, self._refresh_at - self._monotonic())

    def may_ask_for_unknown(self) -> bool:
        """Whether a key that is not held is a reason to ask now."""
        return self._monotonic() - self._attempted_at >= COOL_DOWN_SECONDS

    def attempted(self) -> None:
        """An attempt begins."""
        self._attempted_at = self._monotonic()

    def succeeded(self, fetched: FetchedKeys) -> None:
        """The issuer has answered."""
        now = self._monotonic()
        if fetched.key_set != self._key_set:
            self._key_set = fetched.key_set
        lifetime = DEFAULT_LIFETIME_SECONDS if fetched.max_age_seconds is None else fetched.max_age_seconds
        lifetime = min(max(lifetime, MIN_LIFETIME_SECONDS), MAX_LIFETIME_SECONDS)
        early = 1 - JITTER_FRACTION * self._jitter()
        self._last = fetched
        self._failures = 0
        self._confirmed_at = now
        self._usable_until = now + self._max_stale_seconds
        self._refresh_at = now + lifetime * REFRESH_AT_FRACTION * early

    def confirmed(self) -> None:
        """The issuer has said that the keys are still these, without being asked."""
        if self._last is not None:
            self.succeeded(self._last)

    def withdrawn(self, error: str) -> None:
        """The issuer has said that no key is good any more."""
        self._key_set = self._last = None
        self._usable_until = self._kept_until = -inf
        self.failed(error)

    def failed(self, error: str) -> None:
        """The attempt has failed; what is held stays."""
        self.last_error = error
        back_off = min(MIN_BACK_OFF_SECONDS * 2 ** min(self._failures, 10), MAX_BACK_OFF_SECONDS)
        self._failures += 1
        self._refresh_at = self._monotonic() + back_off * (1 - JITTER_FRACTION * self._jitter())


class KeyRefresher:
    """The thread that keeps one ``KeyCache`` fresh.

    It is a daemon, started by ``start`` or by the first ``request``. After a fork the child has none until it verifies
    something: the parent's keys are good in the child, and are kept fresh there from then on.
    """

    def __init__(self, issuer: str, fetch: Fetch, cache: KeyCache) -> None:
        self.issuer = issuer
        self._fetch = fetch
        self._cache = cache
        self._stopped = False
        self.reset()
        _refreshers.add(self)

    def start(self) -> Future[None]:
        """Starts the thread and one attempt; the future ends with it and never fails. See ``KeyCache``."""
        with self._wake:
            self._stopped = False
            return self._take_off()

    def request(self) -> Future[None] | None:
        """The attempt that is under way, else a new one, else ``None`` because the last was too recent."""
        with self._wake:
            if self._stopped:
                return None
            if self._flight is None and not self._cache.may_ask_for_unknown():
                self._run_thread()
                return None
            return self._take_off()

    def stop(self) -> None:
        """Ends the thread; an attempt under way is left to its time limit."""
        with self._wake:
            self._stopped = True
            self._wake.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_STOP_WAIT_SECONDS)

    def reset(self) -> None:
        """Forgets a thread that is gone, and a lock that it may hold."""
        self._wake = threading.Condition()
        self._flight: Future[None] | None = None
        self._thread: threading.Thread | None = None

    def reset_after_fork(self) -> None:
        """For the child, which has no thread any more; it gets one when it first uses the keys."""
        was_running = self._thread is not None and not self._stopped
        self.reset()
        if was_running:
            self._cache.wake_when_used(self._resume)

    def _resume(self) -> None:
        with self._wake:
            if not self._stopped:
                self._run_thread()

    def _take_off(self) -> Future[None]:
        if self._flight is None:
            self._flight = Future()
            # A caller that gives up cancels its own waiting, never the attempt that others wait for.
            self._flight.set_running_or_notify_cancel()
            self._wake.notify_all()
        self._run_thread()
        return self._flight

    def _run_thread(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name=f"keys of {self.issuer}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._wake:
                while self._flight is None and not self._stopped:
                    due_in = self._cache.seconds_until_refresh()
                    if due_in <= 0:
                        self._take_off()
                    else:
                        self._wake.wait(min(due_in, threading.TIMEOUT_MAX))
                if self._stopped:
                    self._land()
                    return
            self._attempt()
            with self._wake:
                self._land()

    def _attempt(self) -> None:
        self._cache.attempted()
        try:
            fetched = self._fetch(self._cache.last)
        except KeysWithdrawnError as error:
            self._cache.withdrawn(str(error))
            _logger.warning("keys of %s: %s", self.issuer, error)
        except GrpcIdentityError as error:
            self._cache.failed(str(error))
            _logger.warning("keys of %s: %s", self.issuer, error)
        except Exception as error:
            # Whatever it is, the thread must go on: without it the keys would only get older.
            self._cache.failed(f"fetching failed with {type(error).__name__}")
            _logger.exception("keys of %s: fetching failed", self.issuer)
        else:
            self._cache.succeeded(fetched)
            _logger.debug("keys of %s: %d held", self.issuer, len(fetched.key_set))
            for ignored in fetched.key_set.ignored:
                _logger.info("keys of %s: left out %s", self.issuer, ignored)

    def _land(self) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.set_result(None)


_refreshers: weakref.WeakSet[KeyRefresher] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for refresher in list(_refreshers):
        refresher.reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
