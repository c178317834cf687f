"""Bringing records to the identity service: oldest first, in batches, until each is acknowledged.

One attempt at a time, by the one thread of ``recorder``. A batch that is not answered is sent again from its first record on; the
service knows what it has recorded already. What a batch is refused for as such (``FIELD_INVALID``) is found by halving it: one
record that the service will never take is named in the log and left out, holds up no other, and counts as lost. What was lost is told
by records of its own; a service that does not know such yet leaves it in the spool for a later start.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from enum import Enum
from typing import Any

import grpc

from grpc_identity.channels import ChannelFactory, describe
from grpc_identity.circuit_breaker import CircuitBreaker
from grpc_identity.clock import Clock
from grpc_identity.token_grants import ClientAuthentication, error_reason, retry_after_seconds
from grpc_identity.usage.losses import is_report_of_losses, losses_with
from grpc_identity.usage.spool import MAX_RECORD_BYTES, Batch, Spool
from grpc_identity.usage.tally import UsageTally
from grpc_identity.v1.identity_service_pb2 import RecordUsageResponse

__all__ = ["MAX_BATCH_BYTES", "MAX_BATCH_RECORDS", "UsageDelivery", "request_of"]

MAX_BATCH_RECORDS = 256
# The service takes requests of 65,536 bytes unless it is told otherwise.
MAX_BATCH_BYTES = 56_000
# As gRPC says itself. Of another who stands before the service and has too much to do, the same code means: later.
_TOO_LARGE = "larger than max"
_METHOD = "/grpc_identity.v1.IdentityService/RecordUsage"
_OPTIONS = (("grpc.enable_retries", 0),)
_SPOOL_ID = b"\x0a"
_RECORD = b"\x12"
_SEQUENCE = struct.Struct("<BQ")
_SEQUENCE_TAG = 0x09
_REFUSALS = frozenset({grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED})

_logger = logging.getLogger("grpc_identity.usage")


class _Answer(Enum):
    TAKEN = "taken"
    LATER = "later"
    REFUSED = "refused"
    TOO_MUCH = "too much"
    NEVER = "never"


class UsageDelivery:
    """The way of one host's records. ``wait`` pauses for so many seconds and says whether to stop instead."""

    def __init__(
        self,
        channel: ChannelFactory,
        authentication: ClientAuthentication,
        tally: UsageTally,
        breaker: CircuitBreaker,
        *,
        timeout_seconds: float,
        wait: Callable[[float], bool],
        wall: Clock,
    ) -> None:
        self._factory = channel
        self._authentication = authentication
        self._tally = tally
        self._breaker = breaker
        self._timeout_seconds = timeout_seconds
        self._wait = wait
        self._wall = wall
        self._tells_losses = True
        self._channel: grpc.Channel | None = None
        self._at_most = MAX_BATCH_RECORDS
        self._is_failing = False

    def deliver(self, spool: Spool, *, leave: int = 0) -> bool:
        """Whether the spool was delivered, up to fewer than ``leave`` records that may still wait for others: tries until it
        is, or until the wait says to stop. One that is left over is given up where the service refuses this client."""
        self._tell_losses(spool)
        while (batch := spool.oldest(at_most=self._at_most, max_bytes=MAX_BATCH_BYTES)) is not None:
            match self._send(spool.spool_id, batch):
                case _Answer.TAKEN:
                    self._tally.delivered += len(batch.records)
                    # In small steps: doubled, every other attempt would be too much again.
                    self._at_most = min(self._at_most + self._at_most // 8 + 1, MAX_BATCH_RECORDS)
                    self._let_go(spool, batch)
                    self._tell_losses(spool)
                    # What fills a batch has no others to wait for.
                    if spool.waiting < min(leave, self._at_most):
                        return True
                case _Answer.TOO_MUCH | _Answer.NEVER if len(batch.records) > 1:
                    self._at_most = len(batch.records) // 2
                case _Answer.TOO_MUCH | _Answer.NEVER:
                    self._tally.refused += 1
                    self._lose(spool, batch.records[0][1])
                    self._let_go(spool, batch)
                    self._tell_losses(spool)
                case answer:
                    if self._gives_up(spool, answer):
                        return False
        return self._report_losses(spool)

    def close(self) -> None:
        """Closes the channel."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def abandon(self) -> None:
        """For the child after a fork, where a channel must not be touched."""
        self._channel = None

    def _tell_losses(self, spool: Spool) -> None:
        if self._tells_losses:
            spool.tell_losses()

    def _report_losses(self, spool: Spool) -> bool:
        while self._tells_losses and (report := spool.report_of_losses()) is not None:
            match self._send(*report):
                case _Answer.TAKEN:
                    self._tally.delivered += 1
                    spool.losses_told()
                case _Answer.TOO_MUCH | _Answer.NEVER:
                    self._keep_losses()
                case answer:
                    if self._gives_up(spool, answer):
                        return False
        return True

    def _gives_up(self, spool: Spool, answer: _Answer) -> bool:
        if answer is _Answer.REFUSED and spool.is_left_over:
            return True
        return self._wait(self._breaker.seconds_until_attempt())

    def _let_go(self, spool: Spool, batch: Batch) -> None:
        spool.acknowledge(batch)
        if batch.unreadable:
            self._tally.lost += batch.unreadable
            _logger.error(
                "%d uses of tokens are lost, up to number %d: %s is damaged",
                batch.unreadable,
                batch.last_number,
                spool.path,
            )

    def _lose(self, spool: Spool, record: bytes) -> None:
        if is_report_of_losses(record) and self._tells_losses:
            self._keep_losses()
        spool.lose(losses_with(record, int(self._wall() * 1000)))

    def _keep_losses(self) -> None:
        self._tells_losses = False
        _logger.error(
            "%s does not take reports of lost uses; they wait on disk for a start after it was updated",
            self._factory.target,
        )

    def _send(self, spool_id: bytes, batch: Batch) -> _Answer:
        try:
            self._call(request_of(spool_id, batch))
        except grpc.RpcError as error:
            return self._failed(error, batch)
        except Exception as error:
            # What authenticates may be anybody's code; the thread must go on.
            self._breaker.failed()
            self._say(f"reporting failed with {type(error).__name__}", batch)
            return _Answer.LATER
        self._breaker.succeeded()
        if self._is_failing:
            self._is_failing = False
            _logger.info("uses of tokens are delivered to %s again", self._factory.target)
        return _Answer.TAKEN

    def _call(self, request: bytes) -> None:
        if self._channel is None:
            self._channel = self._factory.open(_OPTIONS)
        call: Any = self._channel.unary_unary(_METHOD, None, RecordUsageResponse.FromString)
        metadata = tuple(self._authentication.metadata())
        call(request, timeout=self._timeout_seconds, metadata=metadata)

    def _failed(self, error: Any, batch: Batch) -> _Answer:
        code, reason = error.code(), error_reason(error)
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            if len(batch.records) == 1:
                _logger.error(
                    "the use with the number %d will never be recorded: %s",
                    batch.last_number,
                    describe(error),
                )
            return _Answer.NEVER
        if (
            code is grpc.StatusCode.RESOURCE_EXHAUSTED
            and not reason
            and _TOO_LARGE in (error.details() or "")
        ):
            return _Answer.TOO_MUCH
        self._breaker.failed(retry_after_seconds=retry_after_seconds(error))
        self._say(describe(error), batch)
        return _Answer.REFUSED if code in _REFUSALS else _Answer.LATER

    def _say(self, what: str, batch: Batch) -> None:
        level = logging.DEBUG if self._is_failing else logging.WARNING
        self._is_failing = True
        _logger.log(
            level,
            "uses of tokens wait, from number %d: %s: %s",
            batch.records[0][0],
            self._factory.target,
            what,
        )


def request_of(spool_id: bytes, batch: Batch) -> bytes:
    """A ``RecordUsageRequest``, put together from records that are serialised already."""
    parts = [_SPOOL_ID, _LENGTHS[len(spool_id)], spool_id]
    for number, record in batch.records:
        parts += (
            _RECORD,
            _LENGTHS[_SEQUENCE.size + len(record)],
            _SEQUENCE.pack(_SEQUENCE_TAG, number),
            record,
        )
    return b"".join(parts)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


_LENGTHS = [_varint(length) for length in range(MAX_RECORD_BYTES + _SEQUENCE.size + 1)]
