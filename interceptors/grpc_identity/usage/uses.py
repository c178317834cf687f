"""From a call to records of it: who used which session and token, on which method, from where, with what outcome.

A record is a ``grpc_identity.v1.UsageRecord`` that is put together from parts: those of a token, of a peer, of a user agent are
made once and remembered, so that a call costs little more than the joining. Texts that are too long are cut off, since what
the identity service refuses would be lost.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import struct
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from urllib.parse import unquote

from grpc_identity.clock import Clock, wall_clock
from grpc_identity.principal import Principal
from grpc_identity.telemetry import current_span, report_use, traceparent_of
from grpc_identity.usage.ports import UsageSink
from grpc_identity.v1 import identity_service_pb2 as pb

__all__ = ["Use", "Uses", "address_of"]

MAX_TEXT_BYTES = 256
MAX_USER_AGENT_BYTES = 512
MAX_REMEMBERED = 4096
# An ended use has more to say than one that has begun.
_ENDING_BYTES = 256
_FRAME_BYTES = 64
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

# As protobuf writes them: a field's number and kind, then its value.
_BEGUN = b"\x10\x01"
_ENDED = b"\x10\x02"
_ENDED_WELL = _ENDED + b"\x62\x02OK"
_OCCURRED = struct.Struct("<BQ")
_OCCURRED_TAG = 0x19
_TRACE = b"\x72\x37"

_logger = logging.getLogger("grpc_identity.usage")

_Key = TypeVar("_Key")


class _Remembered(dict[_Key, bytes]):
    """Parts of records, by what they are made from."""

    def __init__(self, make: Callable[[_Key], bytes]) -> None:
        self._make = make

    def __missing__(self, key: _Key) -> bytes:
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        part = self[key] = self._make(key)
        return part


class Uses:
    """Makes records for one interceptor, and puts them in the sink."""

    def __init__(self, sink: UsageSink, *, wall: Clock = wall_clock) -> None:
        self._put = sink.put
        self._wall = wall
        self._remembered: dict[tuple[str, str, str, str], tuple[Principal, bytes]] = {}
        self._of_tokens: dict[str, tuple[Principal, bytes]] = {}
        self._of_methods = _Remembered[str](lambda method: _field("method", method))
        self._of_peers = _Remembered[str](lambda peer: _field("ip_address", address_of(peer)))
        self._of_agents = _Remembered[str](
            lambda agent: _field("user_agent", agent, max_bytes=MAX_USER_AGENT_BYTES)
        )
        self._of_endings = _Remembered[str](lambda code: _ENDED + _field("status_code", code))

    def begin(
        self,
        method: str,
        principal: Principal,
        metadata: Iterable[tuple[str, Any]] | None,
        peer: str,
        *,
        must: bool,
    ) -> Use | None:
        """Records that a handler is about to run. If it ``must`` be: with room for how it ends, and ``None`` where that cannot be."""
        use = Use(self, method, principal, metadata, peer)
        try:
            record = self._record(_BEGUN, method, principal, metadata, peer, current_span())
            keep_bytes = 2 * (len(record) + _ENDING_BYTES + _FRAME_BYTES) if must else 0
            if self._put(record, keep_bytes=keep_bytes):
                use.kept_bytes = keep_bytes
                return use
        except Exception:
            _logger.exception("a use of a token could not be recorded")
        return None if must else use

    def ended(
        self,
        method: str,
        principal: Principal,
        metadata: Iterable[tuple[str, Any]] | None,
        peer: str,
        code: str,
        reason: str = "",
    ) -> None:
        """Records how a call ended, or was refused. Never raises: the call has its answer."""
        try:
            # The way of most calls, in as few steps as there are: what a server does between two calls makes each dear.
            if code == "OK" and (span := current_span()) is None:
                self._put(self._record(_ENDED_WELL, method, principal, metadata, peer, span))
            else:
                self._end(method, principal, metadata, peer, code, reason, 0)
        except Exception:
            _logger.exception("a use of a token could not be recorded")

    def _end(
        self,
        method: str,
        principal: Principal,
        metadata: Iterable[tuple[str, Any]] | None,
        peer: str,
        code: str,
        reason: str,
        kept_bytes: int,
    ) -> None:
        status = _ENDED_WELL if code == "OK" else self._of_endings[code] + _field("reason", reason)
        span = current_span()
        record = self._record(status, method, principal, metadata, peer, span)
        self._put(record, kept_bytes=kept_bytes)
        if span is not None:
            report_use(span, method, principal, code)

    def _record(
        self,
        step: bytes,
        method: str,
        principal: Principal,
        metadata: Iterable[tuple[str, Any]] | None,
        peer: str,
        span: Any,
    ) -> bytes:
        agent, trace = "", b""
        for name, value in metadata or ():
            if name == "user-agent":
                agent = value
            elif name == "traceparent" and span is None and _TRACEPARENT.fullmatch(value):
                trace = _TRACE + value.encode()
        if span is not None:
            trace = _TRACE + traceparent_of(span).encode()
        key = (principal.token_id, method, peer, agent)
        remembered = self._remembered.get(key)
        if remembered is None or remembered[0] is not principal:
            remembered = self._remember(key, principal)
        return b"".join((step, _OCCURRED.pack(_OCCURRED_TAG, int(self._wall() * 1000)), remembered[1], trace))

    def _remember(self, key: tuple[str, str, str, str], principal: Principal) -> tuple[Principal, bytes]:
        _, method, peer, agent = key
        of_token = self._of_tokens.get(principal.token_id)
        if of_token is None or of_token[0] is not principal:
            if len(self._of_tokens) >= MAX_REMEMBERED:
                self._of_tokens.clear()
            of_token = self._of_tokens[principal.token_id] = (principal, _of_token(principal))
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        part = self._of_methods[method] + of_token[1] + self._of_peers[peer] + self._of_agents[agent]
        remembered = self._remembered[key] = (principal, part)
        return remembered


class Use:
    """One call. It ends once, whoever says so first."""

    __slots__ = ("_uses", "code", "kept_bytes", "metadata", "method", "peer", "principal")

    def __init__(
        self,
        uses: Uses,
        method: str,
        principal: Principal,
        metadata: Iterable[tuple[str, Any]] | None,
        peer: str,
    ) -> None:
        self._uses = uses
        self.method = method
        self.principal = principal
        self.metadata = metadata
        self.peer = peer
        self.kept_bytes = 0
        self.code = ""

    def end(self, code: str, reason: str = "") -> None:
        """The call has ended with this status. Never raises."""
        if not self.code:
            self.code = code
            try:
                self._uses._end(  # noqa: SLF001 - one module
                    self.method, self.principal, self.metadata, self.peer, code, reason, self.kept_bytes
                )
            except Exception:
                _logger.exception("a use of a token could not be recorded")


def address_of(peer: str) -> str:
    """The address of a peer as gRPC names it; empty for one that has none.

    >>> address_of("ipv6:%5B::1%5D:50051")
    '::1'
    """
    kind, _, rest = peer.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return ""
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        return ipaddress.ip_address(host).compressed
    except ValueError:
        return ""


def _of_token(principal: Principal) -> bytes:
    return b"".join(
        (
            _field("subject", principal.subject),
            _field("session_id", principal.session_id or ""),
            _field("token_id", principal.token_id),
            _field("client_id", principal.client_id),
            _field("issuer", principal.issuer),
        )
    )


def _field(name: str, value: str, *, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    # A claim may hold half of a surrogate pair, which no message can.
    encoded = value.encode(errors="replace")
    value = encoded[:max_bytes].decode(errors="ignore")
    if not value.isprintable():
        value = "".join(character if character.isprintable() else "?" for character in value)
    fields: dict[str, Any] = {name: value}
    return pb.UsageRecord(**fields).SerializeToString()
