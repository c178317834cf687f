"""Follows an identity server: keys and revocations are pushed, and what was applied is reported back.

``StateFollower`` is one thread with one stream, so that it serves ``grpc.aio`` and ``grpc.server`` alike. It writes to
a ``KeyCache`` and a ``RevocationView``; nobody waits for it but the start. A broken stream is taken up again where it
was left, after a jittered pause; what is held stays in use meanwhile, and its age says how old it is.

Reports are coalesced: however many steps were applied while one report was on its way, the next names the last.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import grpc

from grpc_identity._version import __version__
from grpc_identity.channels import ChannelFactory, describe, status_code
from grpc_identity.clock import Clock, monotonic_clock, wall_clock
from grpc_identity.errors import GrpcIdentityError, KeysWithdrawnError, StateFeedError
from grpc_identity.jwks_grpc import fetched_keys
from grpc_identity.keysets import KeyCache
from grpc_identity.revocations import RevocationView, Revoked
from grpc_identity.v1.identity_service_pb2 import (
    VerifierRevocation,
    WatchVerifierStateRequest,
    WatchVerifierStateResponse,
)
from grpc_identity.v1.identity_service_pb2_grpc import IdentityServiceStub

__all__ = ["StateFollower"]

MIN_BACK_OFF_SECONDS = 0.2
MAX_BACK_OFF_SECONDS = 10.0
REFUSED_BACK_OFF_SECONDS = 30.0
JITTER_FRACTION = 0.5
SILENT_HEARTBEATS = 5
FIRST_MESSAGE_SECONDS = 15.0
MAX_HELD_KIDS = 64
_STOP_WAIT_SECONDS = 2.0
_GOODBYE_SECONDS = 1.0
# A step of many thousand revocations; docs/revocation.md says how large it gets.
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.enable_retries", 0),
)
_FOR_GOOD = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)

_logger = logging.getLogger("grpc_identity.revocations")


class _Reports:
    """The side of the stream that the verifier writes: the newest report only, until the stream ends.

    gRPC reads it in a thread of its own, which is therefore the one to notice that nothing comes any more on a
    stream whose connection looks alive; it calls ``on_silence`` then.
    """

    def __init__(
        self, first: WatchVerifierStateRequest, monotonic: Clock, on_silence: Callable[[], None]
    ) -> None:
        self._condition = threading.Condition()
        self._next: WatchVerifierStateRequest | None = first
        self._monotonic = monotonic
        self._on_silence = on_silence
        self._silent_at = monotonic() + FIRST_MESSAGE_SECONDS
        self._ended = False

    def heard(self, heartbeat_seconds: float) -> None:
        self._silent_at = self._monotonic() + heartbeat_seconds * SILENT_HEARTBEATS

    def put(self, report: WatchVerifierStateRequest) -> None:
        with self._condition:
            if not self._ended:
                self._next = report
            self._condition.notify_all()

    def end(self, last: WatchVerifierStateRequest | None = None) -> None:
        with self._condition:
            if not self._ended:
                self._next, self._ended = last, True
            self._condition.notify_all()

    def __iter__(self) -> Iterator[WatchVerifierStateRequest]:
        while True:
            with self._condition:
                while self._next is None and not self._ended:
                    left_seconds = self._silent_at - self._monotonic()
                    if left_seconds <= 0:
                        break
                    self._condition.wait(left_seconds)
                report, self._next = self._next, None
                is_silent = report is None and not self._ended
            if is_silent:
                self._on_silence()
            if report is None:
                return
            yield report


class StateFollower:
    """The thread that follows one issuer."""

    def __init__(
        self,
        issuer: str,
        channel: ChannelFactory,
        *,
        verifier_id: str,
        metadata: Sequence[tuple[str, str]],
        keys: KeyCache,
        revocations: RevocationView,
        clock: Clock = wall_clock,
    ) -> None:
        self._issuer = issuer
        self._channel = channel
        self._verifier_id = verifier_id
        self._metadata = tuple(metadata)
        self._keys = keys
        self._revocations = revocations
        self._clock = clock
        self._position = ""
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._reports: _Reports | None = None
        self._call: Any = None
        self._first_step = _flight()
        self._heard_in_stream = False
        self.last_error = "nothing has come yet"
        _followers.add(self)

    def __repr__(self) -> str:
        return f"StateFollower({self._issuer!r}, {self._verifier_id!r})"

    def start(self) -> Future[None]:
        """Starts to follow; the future is done once the first step has been applied, or has been refused for good.

        Raises through the future: ``StateFeedError``.
        """
        with self._lock:
            self._stopped.clear()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name=f"revocations of {self._issuer}", daemon=True
                )
                self._thread.start()
            return self._first_step

    def stop(self) -> None:
        """Says goodbye and ends the thread."""
        self._stopped.set()
        with self._lock:
            thread, reports, call = self._thread, self._reports, self._call
        if reports is not None:
            reports.end(self._report(goodbye=True))
        if thread is not None and thread is not threading.current_thread():
            thread.join(_GOODBYE_SECONDS)
            if call is not None and thread.is_alive():
                call.cancel()
            thread.join(_STOP_WAIT_SECONDS)

    def reset(self) -> None:
        """For the child after a fork, where the thread and its stream are gone: what is held is out of date from now on,
        until ``start`` is called again."""
        self._lock = threading.Lock()
        was_following = self._thread is not None
        self._thread, self._reports, self._call = None, None, None
        self._first_step = _flight()
        self._position = ""
        if was_following:
            self._revocations.is_complete = False
            self.last_error = "the process was forked; start the verifier after forking"
            _logger.error("revocations of %s: %s", self._issuer, self.last_error)

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            code = None
            try:
                steps = self._follow()
                failures = 0 if steps else failures
                self.last_error = "the server has ended the stream"
            except grpc.RpcError as error:
                code = status_code(error)
                failures = 0 if self._heard_in_stream else failures
                self.last_error = f"{self._channel.target}: {describe(error)}"
            except Exception as error:
                # Whatever it is, the thread must go on: without it no revocation arrives any more.
                self.last_error = f"following failed with {type(error).__name__}"
                _logger.exception("revocations of %s: following failed", self._issuer)
            if self._stopped.is_set():
                return
            self._fail_start(code)
            back_off = (
                REFUSED_BACK_OFF_SECONDS
                if code in _FOR_GOOD
                else min(MIN_BACK_OFF_SECONDS * 2 ** min(failures, 10), MAX_BACK_OFF_SECONDS)
            )
            level = logging.ERROR if code in _FOR_GOOD else logging.WARNING if failures else logging.INFO
            _logger.log(level, "revocations of %s: %s", self._issuer, self.last_error)
            failures += 1
            self._stopped.wait(back_off * (1 - JITTER_FRACTION * random.random()))

    def _follow(self) -> int:
        """One stream, from its beginning to its end; how many messages came."""
        self._heard_in_stream = False
        messages, opened = 0, list[Any]()
        reports = _Reports(self._report(), monotonic_clock, on_silence=lambda: _cancel(opened))
        with self._channel.open(_OPTIONS) as channel:
            stub: Any = IdentityServiceStub(channel)
            call = stub.WatchVerifierState(iter(reports), metadata=self._metadata)
            opened.append(call)
            with self._lock:
                self._reports, self._call = reports, call
            try:
                for message in call:
                    self._heard_in_stream = True
                    messages += 1
                    reports.heard(message.heartbeat_interval.ToSeconds() or FIRST_MESSAGE_SECONDS)
                    self._apply(message)
                    if message.position:
                        reports.put(self._report())
                    if not self._revocations.is_complete:
                        raise StateFeedError("more is revoked than this verifier may hold")
            finally:
                reports.end()
                call.cancel()
                with self._lock:
                    self._reports, self._call = None, None
        return messages

    def _apply(self, message: WatchVerifierStateResponse) -> None:
        if message.snapshot:
            self._revocations.start_over()
        if message.HasField("jwks"):
            try:
                self._keys.attempted()
                self._keys.succeeded(fetched_keys(message.jwks, self._keys.last, self._issuer))
            except KeysWithdrawnError as error:
                self._keys.withdrawn(str(error))
                _logger.warning("keys of %s: %s", self._issuer, error)
            except GrpcIdentityError as error:
                _logger.warning("keys of %s: %s", self._issuer, error)
        elif self._keys.last is not None:
            # A heartbeat confirms the keys: they would have been sent anew.
            self._keys.confirmed()
        if message.revocations:
            self._revocations.apply([_revoked(entry) for entry in message.revocations])
        self._revocations.forget(now_seconds=self._clock())
        if not message.position:
            return
        self._position = message.position if self._revocations.is_complete else ""
        self._revocations.heard()
        if not self._first_step.done():
            self._first_step.set_result(None)

    def _fail_start(self, code: grpc.StatusCode | None) -> None:
        if code in _FOR_GOOD and not self._first_step.done():
            self._first_step.set_exception(StateFeedError(self.last_error))

    def _report(self, *, goodbye: bool = False) -> WatchVerifierStateRequest:
        held = self._keys.current()
        return WatchVerifierStateRequest(
            verifier_id=self._verifier_id,
            verifier_version=__version__,
            applied_position=self._position,
            held_kids=held.kids[:MAX_HELD_KIDS] if held is not None else (),
            goodbye=goodbye,
        )


def _flight() -> Future[None]:
    flight: Future[None] = Future()
    flight.set_running_or_notify_cancel()
    return flight


def _cancel(calls: Sequence[Any]) -> None:
    for call in calls:
        call.cancel()


def _revoked(entry: VerifierRevocation) -> Revoked:
    return Revoked(
        session_id=entry.session_id,
        token_id=entry.token_id,
        subject=entry.subject,
        client_id=entry.client_id,
        kid=entry.kid,
        up_to=dict(entry.up_to_sequence),
        forget_at_seconds=entry.forget_at.ToMilliseconds() / 1000,
    )


_followers: weakref.WeakSet[StateFollower] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for follower in list(_followers):
        follower.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
