"""Calls, refreshes and revocations, counted. A call costs a dictionary look-up and an addition or two."""

from __future__ import annotations

import time
from collections.abc import Callable
from time import perf_counter
from typing import TypeAlias

from prometheus_client import Histogram

from identity.audit.event import Outcome
from identity.sessions.caller import Caller
from identity.sessions.revoke import (
    AccessTokensTarget,
    ClientTarget,
    OthersTarget,
    SessionTarget,
    SubjectTarget,
    Target,
    TokenTarget,
)
from identity.store.decisions import SPEND_SUCCEEDED, SpendVerdict
from identity.telemetry.instruments import (
    CALL_DURATION,
    CLIENT_REFRESHES,
    HIGHEST_ADDRESS_FAILURES,
    MAX_CLIENTS,
    OTHER_CLIENTS,
    REFRESHES,
    REVOCATIONS,
)
from identity.telemetry.meters import Meters
from identity.telemetry.most_frequent import MostFrequent

RPC_SYSTEM = "grpc"
OK, CANCELLED = "OK", "CANCELLED"

Answered: TypeAlias = Callable[[Caller | None, str, str, float], None]
"""Notes an answered call: who called, as far as that is known, the name of its status, the reason where it was refused, and when it
began (``perf_counter``)."""

Counting: TypeAlias = Callable[[], None]

_KINDS: dict[type[Target], str] = {
    TokenTarget: "token",
    SessionTarget: "session",
    OthersTarget: "other_sessions",
    SubjectTarget: "subject",
    AccessTokensTarget: "access_tokens",
    ClientTarget: "client",
}
_THEFTS = {SpendVerdict.REUSED: "reuse", SpendVerdict.WRONG_CLIENT: "wrong_client"}
CLIENT_DISABLED, ERASURE = "client_disabled", "erasure"


class CallMetrics:
    """Answered calls, by method, status and reason."""

    def __init__(self, meters: Meters) -> None:
        self._calls = meters.histogram(CALL_DURATION)

    def of(self, method: str) -> Answered:
        """For the calls of one method; its name begins with a slash, as gRPC has it."""
        children: dict[tuple[str, str], Histogram] = {}
        named = method.removeprefix("/")

        def answered(caller: Caller | None, code: str, reason: str, began: float) -> None:
            del caller
            child = children.get((code, reason))
            if child is None:
                child = children[code, reason] = self._calls.labels(RPC_SYSTEM, named, code, reason)
            child.observe(perf_counter() - began)

        return answered


class RefreshMetrics:
    """What became of presented refresh tokens."""

    def __init__(self, meters: Meters, monotonic: Callable[[], float] = time.monotonic) -> None:
        counter = meters.counter(REFRESHES)
        # All of them from the start: a rate needs a zero to rise from.
        self._verdicts = {verdict: counter.labels(verdict.value) for verdict in SpendVerdict}
        revocations = meters.counter(REVOCATIONS)
        kinds = (*_KINDS.values(), CLIENT_DISABLED, ERASURE, *_THEFTS.values())
        self._revocations = {kind: revocations.labels(kind) for kind in kinds}
        self._clients = meters.counter(CLIENT_REFRESHES)
        self._by_client: dict[tuple[str, bool], Counting] = {}
        self._by_others: dict[bool, Counting] = {}
        self._failing = MostFrequent(monotonic)
        meters.observe_one(HIGHEST_ADDRESS_FAILURES, self._failing.highest)

    def refreshed(self, verdict: SpendVerdict, client_id: str, address: str) -> None:
        """One more of these. ``address``: the end user's, as far as the client is believed; empty where it is not known."""
        self._verdicts[verdict].inc()
        succeeded = verdict in SPEND_SUCCEEDED
        count = self._by_client.get((client_id, succeeded)) or self._of_client(client_id, succeeded)
        count()
        if succeeded:
            return
        if address:
            self._failing.add(address)
        if kind := _THEFTS.get(verdict):
            self._revocations[kind].inc()

    def revoked(self, target: Target) -> None:
        """Something was taken away, on demand; or was gone already."""
        self._revocations[_KINDS[type(target)]].inc()

    def client_disabled(self) -> None:
        """All sessions of a client were, with itself."""
        self._revocations[CLIENT_DISABLED].inc()

    def erased(self) -> None:
        """All sessions of a subject were, with what was stored of it."""
        self._revocations[ERASURE].inc()

    def _of_client(self, client_id: str, succeeded: bool) -> Counting:
        if len(self._by_client) < 2 * MAX_CLIENTS:
            # Both from the start, for the rate's sake.
            for outcome in (True, False):
                self._by_client[client_id, outcome] = self._counting(client_id, outcome)
            return self._by_client[client_id, succeeded]
        if succeeded not in self._by_others:
            self._by_others[succeeded] = self._counting(OTHER_CLIENTS, succeeded)
        return self._by_others[succeeded]

    def _counting(self, client_id: str, succeeded: bool) -> Counting:
        outcome = Outcome.SUCCESS if succeeded else Outcome.REFUSED
        count: Counting = self._clients.labels(client_id, outcome.value).inc
        return count
