"""``UsageRecorder``: uses of tokens, kept on disk until the identity service has them.

"Recorded" means: copied into a file that is mapped into memory. That survives the process, whatever ends it, and not the
machine. One thread delivers; nobody waits for it but ``close``. What cannot be recorded is counted in the same file, and told to the
identity service as soon as there is room.

After a fork the child has a spool and a thread of its own, made when it first records something.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from grpc_identity.channels import ChannelFactory
from grpc_identity.circuit_breaker import CircuitBreaker
from grpc_identity.clock import Clock, monotonic_clock, wall_clock
from grpc_identity.errors import UsageSpoolError
from grpc_identity.telemetry import observe_usage
from grpc_identity.token_grants import ClientAuthentication, authentication_of
from grpc_identity.usage.delivery import MAX_BATCH_RECORDS, UsageDelivery
from grpc_identity.usage.losses import NO_LOSSES, Losses, losses_with
from grpc_identity.usage.spool import Spool
from grpc_identity.usage.spool_directory import SpoolDirectory
from grpc_identity.usage.tally import UsageTally

if TYPE_CHECKING:
    import grpc

__all__ = ["UsageRecorder"]

DEFAULT_SPOOL_BYTES = 16 * 1024 * 1024
TIMEOUT_SECONDS = 5.0
LINGER_SECONDS = 0.2
ADOPT_EVERY_SECONDS = 30.0
FLUSH_SECONDS = 5.0
OPEN_AGAIN_SECONDS = 1.0
_LOST_SAID_EVERY = 10_000

_logger = logging.getLogger("grpc_identity.usage")


class UsageRecorder:
    """Records uses for the methods whose rules ask for it; given to an interceptor as ``usage``.

    >>> recorder = UsageRecorder(
    ...     "id.example:443", client_id="orders", client_secret="s3cret", directory="/var/lib/orders/usage"
    ... )

    The client needs ``GRANT_REPORT_USAGE``. ``directory`` is on a local disk and belongs to this service; its processes share
    it, each with a file of ``spool_bytes``, and take over what a process that died has left there. With an ``authentication``
    that has no ``client_id`` give that as well, so that the files say whose they are. Use it as a context manager, ``async
    with`` or ``with``: at the end what waits is delivered, for up to five seconds, and stays on disk otherwise.
    """

    _is_awake: bool
    _delivery: UsageDelivery
    _spool: Spool | None
    _adopted: list[Spool]
    _thread: threading.Thread | None
    _given_up: threading.Event
    _unplaced: Losses

    def __init__(
        self,
        target: str,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        authentication: ClientAuthentication | None = None,
        directory: str | os.PathLike[str],
        spool_bytes: int = DEFAULT_SPOOL_BYTES,
        credentials: grpc.ChannelCredentials | None = None,
        allow_plaintext: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS,
        linger_seconds: float = LINGER_SECONDS,
        monotonic: Clock = monotonic_clock,
        wall: Clock = wall_clock,
    ) -> None:
        self._name = f"{client_id!r} at {target}" if client_id else target
        self._spool_bytes = spool_bytes
        self._linger_seconds = linger_seconds
        self._monotonic = monotonic
        self._wall = wall
        self._channel = ChannelFactory(target, credentials, allow_plaintext)
        self._authentication = authentication_of(client_id, client_secret, authentication)
        known_id = client_id or getattr(self._authentication, "client_id", None)
        self._directory = SpoolDirectory(Path(directory), known_id if isinstance(known_id, str) else "")
        self._timeout_seconds = timeout_seconds
        self._open_again_at = monotonic()
        self._begin()
        _recorders.add(self)

    def __repr__(self) -> str:
        return f"UsageRecorder({self._name})"

    def start(self) -> None:
        """Makes the spool and starts to deliver. Raises ``UsageSpoolError``."""
        with self._lock:
            self._closed = False
            if self._spool is None:
                try:
                    self._spool = self._directory.create(size_bytes=self._spool_bytes)
                except OSError as error:
                    raise UsageSpoolError(
                        f"{self._directory.path}: no place for {self._spool_bytes} bytes of records: {error.strerror}"
                    ) from error
                self._spool.lose(self._unplaced)
                self._unplaced = NO_LOSSES
            if self._thread is None or not self._thread.is_alive():
                self._stopping.clear()
                self._given_up.clear()
                self._thread = threading.Thread(target=self._run, name="grpc_identity usage", daemon=True)
                self._thread.start()
        observe_usage(self)

    def put(self, record: bytes, *, keep_bytes: int = 0, kept_bytes: int = 0) -> bool:
        """See ``UsageSink``."""
        spool = self._spool or self._opened()
        if spool is None or not spool.append(record, keep_bytes, kept_bytes):
            self._not_kept(is_refused=keep_bytes > 0)
            return False
        if not self._is_awake:
            self._is_awake = True
            self._wake.set()
        return True

    def close(self, *, flush_seconds: float = FLUSH_SECONDS) -> None:
        """Delivers what waits, for as long as that, and ends. What is not delivered stays on disk for the next start."""
        self._stopping.set()
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(flush_seconds)
            if thread.is_alive():
                self._given_up.set()
                self._delivery.close()
                thread.join(self._timeout_seconds)
            if thread.is_alive():
                # It still reads the spool, which the next start finds.
                if self._spool is not None:
                    _say_what_is_left(self._spool)
                return
        with self._lock:
            self._closed = True
            spool, self._spool, self._thread = self._spool, None, None
        if spool is not None:
            spool.seal()
            self.tally.recorded += spool.appended
            if spool.waiting or spool.untold.records:
                _say_what_is_left(spool)
                if spool.is_deleted:
                    self._lose_all_of(spool)
                spool.close()
            else:
                self._directory.remove(spool)

    def counts(self) -> dict[str, int]:
        """What became of the records of this process, by the names of ``UsageTally``."""
        spool, tally = self._spool, self.tally
        return {
            # The spool numbers what it takes, so that a call has nothing to count.
            "recorded": tally.recorded + (spool.appended if spool is not None else 0),
            "lost": tally.lost,
            "delivered": tally.delivered,
            "refused": tally.refused,
        }

    @property
    def waiting(self) -> int:
        """How many records of this process are not delivered."""
        spool = self._spool
        return spool.waiting if spool is not None else 0

    @property
    def waiting_bytes(self) -> int:
        """How much of the spool they take."""
        spool = self._spool
        return spool.waiting_bytes if spool is not None else 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        import asyncio

        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.close)

    def reset(self) -> None:
        """For the child after a fork: what is held is the parent's."""
        held, delivery = list(self._adopted), self._delivery
        if self._spool is not None:
            held.append(self._spool)
        self._begin()
        delivery.abandon()
        for spool in held:
            spool.abandon()

    def _begin(self) -> None:
        self.tally = UsageTally()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = None
        self._spool = None
        self._adopted = []
        self._unplaced = NO_LOSSES
        self._refused_calls = 0
        self._is_awake = False
        self._given_up = threading.Event()
        self._closed = False
        self._delivery = UsageDelivery(
            self._channel,
            self._authentication,
            self.tally,
            CircuitBreaker(monotonic=self._monotonic),
            timeout_seconds=self._timeout_seconds,
            wait=self._pause,
            wall=self._wall,
        )

    def _opened(self) -> Spool | None:
        # Only where nobody has called `start`: in a forked child, for the most part.
        if self._closed or self._monotonic() < self._open_again_at:
            return None
        try:
            self.start()
        except UsageSpoolError:
            self._open_again_at = self._monotonic() + OPEN_AGAIN_SECONDS
            _logger.exception("uses of tokens cannot be recorded")
        return self._spool

    def _not_kept(self, *, is_refused: bool) -> None:
        now_ms = int(self._wall() * 1000)
        with self._lock:
            if is_refused:
                self._refused_calls += 1
            else:
                self.tally.lost += 1
                losses, spool = Losses.one(now_ms), self._spool
                if spool is None or not spool.lose(losses):
                    # Told by the spool of the next start, if this process comes to that.
                    self._unplaced = self._unplaced.and_also(losses)
            so_far = self.tally.lost + self._refused_calls
        self._wake.set()
        if so_far % _LOST_SAID_EVERY == 1:
            _logger.error(
                "a use of a token could not be recorded, %d so far: the spool of %d bytes is full, or is not there",
                so_far,
                self._spool_bytes,
            )

    def _lose_all_of(self, spool: Spool) -> None:
        # As with those that came before there was a spool: told by the next one, if this process comes to that.
        now_ms = int(self._wall() * 1000)
        losses, batch = spool.untold, spool.oldest(at_most=spool.waiting, max_bytes=spool.capacity_bytes)
        for _, record in batch.records if batch is not None else ():
            losses = losses.and_also(losses_with(record, now_ms))
        with self._lock:
            self.tally.lost += spool.waiting
            self._unplaced = self._unplaced.and_also(losses)

    def _run(self) -> None:
        adopt_at = self._monotonic()
        while True:
            if self._monotonic() >= adopt_at:
                self._adopted += self._directory.adopt()
                adopt_at = self._monotonic() + ADOPT_EVERY_SECONDS
            is_last = self._stopping.is_set()
            # In this order: what is put from here on wakes this thread again, or is seen below.
            self._wake.clear()
            self._is_awake = False
            self._deliver(is_last=is_last)
            if is_last:
                break
            if not self.waiting:
                self._wake.wait(ADOPT_EVERY_SECONDS)
            self._linger()
        self._delivery.close()
        self._let_go_of_adopted()

    def _let_go_of_adopted(self) -> None:
        # In this order: a child that is forked in between must not close again what is closed.
        while self._adopted:
            self._adopted.pop().close()

    def _linger(self) -> None:
        # Records come one by one; a call for each would cost more than all else.
        if self.waiting < MAX_BATCH_RECORDS:
            self._stopping.wait(self._linger_seconds)

    def _pause(self, seconds: float) -> bool:
        # An end is first of all a reason to try at once, and then to go on until time is up.
        if self._stopping.is_set():
            return self._given_up.wait(seconds)
        self._stopping.wait(seconds)
        return self._given_up.is_set()

    def _deliver(self, *, is_last: bool) -> None:
        try:
            while self._adopted:
                if self._delivery.deliver(self._adopted[0]):
                    self._directory.remove(self._adopted.pop(0))
                else:
                    # Others may be allowed to.
                    self._let_go_of_adopted()
            if self._spool is not None and not self._given_up.is_set():
                self._delivery.deliver(self._spool, leave=0 if is_last else MAX_BATCH_RECORDS)
        except Exception:
            # Whatever it is, the thread must go on: without it nothing is delivered any more.
            _logger.exception("delivering uses of tokens failed")
            self._stopping.wait(OPEN_AGAIN_SECONDS)


def _say_what_is_left(spool: Spool) -> None:
    if spool.is_deleted:
        _logger.error(
            "%d uses of tokens, and that %d were lost, are lost themselves: %s was deleted under this process",
            spool.waiting,
            spool.untold.records,
            spool.path,
        )
    else:
        _logger.warning(
            "%d uses of tokens, and that %d were lost, wait on disk for the next start: %s",
            spool.waiting,
            spool.untold.records,
            spool.path,
        )


_recorders: weakref.WeakSet[UsageRecorder] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for recorder in list(_recorders):
        recorder.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
