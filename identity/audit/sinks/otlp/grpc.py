"""OTLP over gRPC; one channel, which stays open."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio

from identity.audit.sinks.otlp.answers import Answer, NotNow, of_grpc_status, of_grpc_success
from identity.audit.sinks.otlp.http import MAX_ANSWER_BYTES
from identity.audit.sinks.otlp.settings import Target

_METHODS = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
_DETAILS = "grpc-status-details-bin"
_BROKEN = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class GrpcTransport:
    """Sends requests to one target."""

    def __init__(self, target: Target, *, user_agent: str) -> None:
        self.target = target
        self._options = [
            ("grpc.primary_user_agent", user_agent),
            ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
            # A channel of its own connects at once; the relay is who waits between tries.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
        ]
        self._channel: grpc.aio.Channel | None = None

    async def send(self, request: bytes) -> Answer:
        """What the backend says; ``NotNow`` where it says nothing."""
        target = self.target
        try:
            if self._channel is None:
                self._channel = await self._opened()
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
                _METHODS[target.signal]
            )
            answer: bytes = await call(request, timeout=target.timeout_seconds, metadata=target.headers)
        except grpc.aio.AioRpcError as error:
            if error.code() in _BROKEN:
                # The next try reads certificates anew: those of short life are replaced on disk.
                await self.close()
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return NotNow(
                    f"no answer in {target.timeout_seconds:g} s (OTEL_EXPORTER_OTLP_TIMEOUT, in ms)"
                )
            trailing = error.trailing_metadata()
            details = trailing.get(_DETAILS) if trailing is not None else None
            return of_grpc_status(
                target, error.code(), error.details() or "", details if isinstance(details, bytes) else None
            )
        except OSError as error:
            return NotNow(f"cannot read a certificate: {error.strerror}")
        return of_grpc_success(target, answer)

    async def close(self) -> None:
        """Closes the channel; another ``send`` opens one again."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _opened(self) -> grpc.aio.Channel:
        target = self.target
        compression = grpc.Compression.Gzip if target.compressed else grpc.Compression.NoCompression
        if not target.encrypted:
            return grpc.aio.insecure_channel(target.endpoint, options=self._options, compression=compression)
        ca, key, certificate = await asyncio.to_thread(
            lambda: tuple(map(_content, (target.ca_file, target.key_file, target.certificate_file)))
        )
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        return grpc.aio.secure_channel(
            target.endpoint, credentials, options=self._options, compression=compression
        )


def _content(file: Path | None) -> bytes | None:
    return file.read_bytes() if file is not None else None
