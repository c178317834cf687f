"""Metrics and refusals for the host's OpenTelemetry, through its API package and only where the host has that.

Nothing here costs a call that is admitted anything but an addition: instruments are observed, they are not driven.
Names follow the semantic conventions for RPC, client and user agent; own names are ``identity.*``. Never a token, nor
a part of one.

================================== ========== =========================================================
metric                             unit       attributes
================================== ========== =========================================================
``identity.decisions``             ``{call}`` ``identity.reason``: ``ADMITTED``, or why it was refused
``identity.verifications``         ``{token}`` ``identity.remembered``: whether the token was seen before
``identity.verification.duration`` ``s``      of tokens not seen before
``identity.keys.age``              ``s``      ``identity.issuer``
``identity.revocations.age``       ``s``      ``identity.issuer``
``identity.usage.records``         ``{record}`` ``identity.state``: ``recorded``, ``lost``, ``delivered``, ``refused``
``identity.usage.waiting``         ``{record}`` records that are not delivered yet
================================== ========== =========================================================

A refusal is the event ``identity.call_refused`` on the current span, or a span of that name where there is none. A use of a
token that is recorded is the event ``identity.token_used`` on the current span, where that is sampled; what must not be lost
goes another way (``grpc_identity.usage``).
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from grpc_identity._version import __version__
from grpc_identity.errors import TokenError

if TYPE_CHECKING:
    from grpc_identity.principal import Principal
    from grpc_identity.usage.recorder import UsageRecorder
    from grpc_identity.verifier import Verifier

__all__ = ["current_span", "observe", "observe_usage", "report_refusal", "report_use", "traceparent_of"]

REFUSED = "identity.call_refused"
USED = "identity.token_used"
MAX_TEXT_CHARS = 256
_SCOPE = "grpc_identity"
_DURATION_BOUNDS_SECONDS = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 5e-2)

_lock = threading.Lock()
_observed: weakref.WeakSet[Verifier] = weakref.WeakSet()
_observed_usage: weakref.WeakSet[UsageRecorder] = weakref.WeakSet()


def observe(verifier: Verifier) -> None:
    """Has a verifier counted, for as long as it lives."""
    with _lock:
        duration = _instruments()
        _observed.add(verifier)
    if duration is not None:
        verifier.tally.on_verified = duration.record


def observe_usage(recorder: UsageRecorder) -> None:
    """Has a recorder of uses counted, for as long as it lives."""
    with _lock:
        _usage_instruments()
        _observed_usage.add(recorder)


def current_span() -> Any:
    """The span of the call on this server, where the host traces; else ``None``."""
    current, none = _tracing()
    if current is None or (span := current()) is none:
        return None
    return span if span.get_span_context().is_valid else None


def traceparent_of(span: Any) -> str:
    """Its W3C trace context."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"


def report_use(span: Any, method: str, principal: Principal, code: str) -> None:
    """Tells the host's tracing who used which session and token, and how the call ended."""
    if not span.is_recording():
        return
    attributes = {
        "rpc.method": method.removeprefix("/")[:MAX_TEXT_CHARS],
        "rpc.response.status_code": code,
        "user.id": principal.subject[:MAX_TEXT_CHARS],
        "identity.client.id": principal.client_id[:MAX_TEXT_CHARS],
        "identity.token.id": principal.token_id[:MAX_TEXT_CHARS],
    }
    if principal.session_id is not None:
        attributes["session.id"] = principal.session_id[:MAX_TEXT_CHARS]
    span.add_event(USED, attributes)


@cache
def _tracing() -> tuple[Any, Any]:
    """What gives the current span, and what it gives where there is none."""
    trace = _api("trace")
    return (None, None) if trace is None else (trace.get_current_span, trace.INVALID_SPAN)


def report_refusal(
    method: str, error: Exception, *, peer: str, metadata: Iterable[tuple[str, Any]] | None
) -> None:
    """Tells the host's tracing why a call was refused, who called from where, and in whose name it tried."""
    trace = _api("trace")
    if trace is None:
        return
    attributes = dict(_attributes(method, error, peer, metadata))
    span = trace.get_current_span()
    if span.is_recording():
        span.add_event(REFUSED, attributes)
    else:
        tracer = trace.get_tracer(_SCOPE, __version__)
        tracer.start_span(REFUSED, attributes=attributes, kind=trace.SpanKind.SERVER).end()


def _attributes(
    method: str, error: Exception, peer: str, metadata: Iterable[tuple[str, Any]] | None
) -> Iterator[tuple[str, str]]:
    service, _, name = method.removeprefix("/").rpartition("/")
    yield "rpc.system", "grpc"
    yield "rpc.service", service[:MAX_TEXT_CHARS]
    yield "rpc.method", name[:MAX_TEXT_CHARS]
    # As gRPC names a peer: ipv4:127.0.0.1:50051, ipv6:%5B::1%5D:50051, unix:/path.
    yield "client.address", peer[:MAX_TEXT_CHARS]
    for key, value in metadata or ():
        if key == "user-agent" and isinstance(value, str):
            yield "user_agent.original", value[:MAX_TEXT_CHARS]
    if isinstance(error, TokenError):
        yield "error.type", error.reason.value
        yield "identity.detail", error.detail[:MAX_TEXT_CHARS]
        if error.attempted_subject is not None:
            yield "identity.attempted_subject", error.attempted_subject[:MAX_TEXT_CHARS]
    else:
        yield "error.type", type(error).__name__


def _api(name: str) -> Any:
    try:
        return import_module(f"opentelemetry.{name}")
    except ImportError:
        return None


@cache
def _instruments() -> Any:
    """Creates the instruments, once a process, and returns the one that is driven; ``None`` without the API."""
    metrics = _api("metrics")
    if metrics is None:
        return None
    meter = metrics.get_meter(_SCOPE, __version__)

    def observation(value: float, **attributes: Any) -> Any:
        return metrics.Observation(value, {f"identity.{name}": said for name, said in attributes.items()})

    def decisions(_: Any) -> Iterable[Any]:
        total: Counter[str] = Counter()
        for verifier in list(_observed):
            total["ADMITTED"] += verifier.tally.admitted
            total.update(verifier.tally.refused)
        return [observation(count, reason=reason) for reason, count in total.items()]

    def verifications(_: Any) -> Iterable[Any]:
        tallies = [verifier.tally for verifier in list(_observed)]
        return [
            observation(sum(tally.remembered for tally in tallies), remembered=True),
            observation(sum(tally.unseen for tally in tallies), remembered=False),
        ]

    def key_ages(_: Any) -> Iterable[Any]:
        return [
            observation(age, issuer=issuer)
            for verifier in list(_observed)
            for issuer, age in verifier.key_ages_seconds().items()
        ]

    def revocation_ages(_: Any) -> Iterable[Any]:
        return [
            observation(age, issuer=issuer)
            for verifier in list(_observed)
            for issuer, age in verifier.revocation_ages_seconds().items()
        ]

    meter.create_observable_counter("identity.decisions", [decisions], "{call}", "Calls, by what was decided")
    meter.create_observable_counter("identity.verifications", [verifications], "{token}", "Tokens looked at")
    meter.create_observable_gauge("identity.keys.age", [key_ages], "s", "Since the keys were confirmed")
    meter.create_observable_gauge(
        "identity.revocations.age", [revocation_ages], "s", "Since revocations were heard of"
    )
    return meter.create_histogram(
        "identity.verification.duration",
        "s",
        "Verifying a token that was not seen before",
        explicit_bucket_boundaries_advisory=_DURATION_BOUNDS_SECONDS,
    )


@cache
def _usage_instruments() -> None:
    """Creates the instruments of recorders, once a process."""
    metrics = _api("metrics")
    if metrics is None:
        return
    meter = metrics.get_meter(_SCOPE, __version__)

    def records(_: Any) -> Iterable[Any]:
        total: Counter[str] = Counter()
        for recorder in list(_observed_usage):
            total.update(recorder.counts())
        return [metrics.Observation(count, {"identity.state": state}) for state, count in total.items()]

    def waiting(_: Any) -> Iterable[Any]:
        return [metrics.Observation(sum(recorder.waiting for recorder in list(_observed_usage)))]

    meter.create_observable_counter("identity.usage.records", [records], "{record}", "Uses of tokens")
    meter.create_observable_gauge("identity.usage.waiting", [waiting], "{record}", "Uses to deliver")
