"""``ClaimsSource`` over gRPC: a deadline for each question, and a circuit breaker for all of them.

- A question that fails counts against the source; enough of them in a row open the circuit. From then on nobody waits:
  one question goes out as a probe when its time has come, all others are told at once that the source is away.
- Questions that were under way when the circuit opened do not open it further.
- An answer that breaks the rules is no answer, but whoever gave it is there: it leaves the circuit closed.
- The log says once that the circuit has opened and once that it has closed, and of each way in which answers are bad once
  a minute. Neither subject nor claims are logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import grpc

from grpc_identity.channels import stays_here
from grpc_identity.circuit_breaker import CircuitBreaker
from grpc_identity.v1 import claims_source_pb2 as source_pb2
from grpc_identity.v1 import claims_source_pb2_grpc as source_pb2_grpc
from identity.claims_source.answers import BadAnswerError, read_answer
from identity.claims_source.metrics import ACTIVE, DISABLED, SourceMetrics
from identity.claims_source.ports import Active, Disabled, Failure, Occasion, Question, SourceAwayError

MAX_ANSWER_BYTES = 32 * 1024
RETRY_AFTER_SECONDS = 1.0
TELL_AGAIN_SECONDS = 60.0
_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    # gRPC itself would leave a source that was away alone for up to two minutes; that is the breaker's business.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SourceTransport:
    """Where the source is. Without PEM files: TLS with the system's roots, but plain text to this machine or where allowed."""

    target: str
    ca: bytes | None = None
    certificate: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    allow_plaintext: bool = False

    def open(self) -> grpc.aio.Channel:
        """A channel, for the caller to close."""
        has_tls = self.ca is not None or self.certificate is not None
        if not has_tls and (self.allow_plaintext or stays_here(self.target)):
            return grpc.aio.insecure_channel(self.target, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials(self.ca, self.private_key, self.certificate)
        return grpc.aio.secure_channel(self.target, credentials, options=_OPTIONS)


class GrpcClaimsSource:
    """A source behind one channel. ``start`` in the loop that asks, ``close`` at the end."""

    def __init__(
        self,
        transport: SourceTransport,
        *,
        timeout_seconds: float,
        allowed_claims: Collection[str],
        breaker: CircuitBreaker,
        metrics: SourceMetrics,
        monotonic: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._timeout_seconds = timeout_seconds
        self._allowed_claims = frozenset(allowed_claims)
        self._breaker = breaker
        self._metrics = metrics
        self._monotonic = monotonic
        self._is_probing = False
        # By the rule that was broken, of which there are few.
        self._told_at: dict[str, float] = {}
        self._channel: grpc.aio.Channel | None = None
        self._get_claims: Any = None

    def start(self) -> None:
        """Opens the channel; connects when first asked."""
        self._channel = self._transport.open()
        stub = source_pb2_grpc.ClaimsSourceServiceStub(self._channel)
        self._get_claims = stub.GetClaims

    async def close(self) -> None:
        """Ends questions under way."""
        if self._channel is not None:
            await self._channel.close()

    async def ask(self, question: Question) -> Active | Disabled:
        """See ``ClaimsSource``."""
        is_probe = self._breaker.is_open
        if is_probe:
            self._raise_unless_probe_is_due(question.occasion)
            self._is_probing = True
        began = self._monotonic()
        try:
            answer = await self._get_claims(
                _request(question), timeout=self._timeout_seconds, metadata=_metadata(question)
            )
        except grpc.RpcError as error:
            raise self._away(question.occasion, error, is_probe=is_probe) from None
        finally:
            if is_probe:
                self._is_probing = False
            self._metrics.took(self._monotonic() - began)
        self._answered()
        return self._read(question.occasion, answer)

    def _raise_unless_probe_is_due(self, occasion: Occasion) -> None:
        wait_seconds = self._breaker.seconds_until_attempt()
        if wait_seconds <= 0 and not self._is_probing:
            return
        self._metrics.outcome(occasion, Failure.CIRCUIT_OPEN)
        raise SourceAwayError(
            Failure.CIRCUIT_OPEN, retry_after_seconds=max(wait_seconds, self._timeout_seconds)
        )

    def _away(self, occasion: Occasion, error: grpc.RpcError, *, is_probe: bool) -> SourceAwayError:
        # What a stub raises is a `grpc.Call` as well, which the type of `RpcError` does not tell.
        call: Any = error
        code = call.code()
        was_open = self._breaker.is_open
        if is_probe or not was_open:
            self._breaker.failed()
        if self._breaker.is_open and not was_open:
            # Without the details of the status: they are the source's, and may name whom it was asked about.
            _log.warning("the claims source at %s does not answer (%s)", self._transport.target, code.name)
            self._metrics.circuit(is_open=True)
        failure = Failure.DEADLINE if code is grpc.StatusCode.DEADLINE_EXCEEDED else Failure.UNREACHABLE
        self._metrics.outcome(occasion, failure)
        retry_after = self._breaker.seconds_until_attempt() if self._breaker.is_open else 0.0
        return SourceAwayError(failure, retry_after_seconds=max(retry_after, RETRY_AFTER_SECONDS))

    def _answered(self) -> None:
        if self._breaker.is_open:
            _log.info("the claims source at %s answers again", self._transport.target)
            self._metrics.circuit(is_open=False)
        self._breaker.succeeded()

    def _read(self, occasion: Occasion, answer: source_pb2.GetClaimsResponse) -> Active | Disabled:
        try:
            read = read_answer(answer, self._allowed_claims)
        except BadAnswerError as error:
            self._tell(str(error))
            self._metrics.outcome(occasion, Failure.BAD_ANSWER)
            raise SourceAwayError(Failure.BAD_ANSWER, retry_after_seconds=RETRY_AFTER_SECONDS) from None
        self._metrics.outcome(occasion, DISABLED if isinstance(read, Disabled) else ACTIVE)
        return read

    def _tell(self, broken_rule: str) -> None:
        told_at, now = self._told_at.get(broken_rule), self._monotonic()
        if told_at is None or now - told_at >= TELL_AGAIN_SECONDS:
            self._told_at[broken_rule] = now
            _log.warning(
                "the claims source at %s gives answers of no use: %s", self._transport.target, broken_rule
            )


def _request(question: Question) -> source_pb2.GetClaimsRequest:
    return source_pb2.GetClaimsRequest(
        subject=question.subject,
        occasion=f"CLAIMS_OCCASION_{question.occasion}",
        client_id=question.client_id,
        session_id=question.session_id,
    )


def _metadata(question: Question) -> tuple[tuple[str, str], ...]:
    return (("traceparent", question.traceparent),) if question.traceparent else ()
