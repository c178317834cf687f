"""OTLP over HTTP, in protobuf; one connection, which stays open."""

from __future__ import annotations

import asyncio
import gzip
import io
import ssl

import aiohttp

from identity.audit.sinks.otlp.answers import Answer, NotNow, of_http
from identity.audit.sinks.otlp.settings import Target
from identity.audit.sinks.otlp.unreachable import why_not_over_http

MAX_ANSWER_BYTES = 64 * 1024
GZIP_LEVEL = 1  # half the size for a tenth of the time of the default
_PROTOBUF = "application/x-protobuf"


class HttpTransport:
    """Sends requests to one target."""

    def __init__(self, target: Target, *, user_agent: str) -> None:
        self.target = target
        self._headers = {**dict(target.headers), "Content-Type": _PROTOBUF, "User-Agent": user_agent}
        if target.compressed:
            self._headers["Content-Encoding"] = "gzip"
        self._http: aiohttp.ClientSession | None = None

    async def send(self, request: bytes) -> Answer:
        """What the backend says; ``NotNow`` where it says nothing."""
        body = gzip.compress(request, GZIP_LEVEL, mtime=0) if self.target.compressed else request
        answer: Answer
        try:
            async with asyncio.timeout(self.target.timeout_seconds):
                answer = await self._post(body)
        except TimeoutError:
            answer = NotNow(
                f"no answer in {self.target.timeout_seconds:g} s (OTEL_EXPORTER_OTLP_TIMEOUT, in ms)"
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            answer = NotNow(f"cannot be reached: {why_not_over_http(self.target, error)}")
        else:
            return answer
        # The next try reads certificates anew: those of short life are replaced on disk.
        await self.close()
        return answer

    async def close(self) -> None:
        """Closes the connection; another ``send`` opens one again."""
        session, self._http = self._http, None
        if session is not None:
            await session.close()

    async def _post(self, body: bytes) -> Answer:
        if self._http is None:
            self._http = await self._opened()
        # A redirect would take the headers to wherever it points.
        async with self._http.post(
            self.target.endpoint, data=io.BytesIO(body), headers=self._headers, allow_redirects=False
        ) as response:
            content = bytearray()
            async for part in response.content.iter_any():
                content += part
                if len(content) > MAX_ANSWER_BYTES:
                    # What is left is not read, and with it the connection is not used again.
                    response.close()
                    return of_http(self.target, response.status, response.headers, None)
            return of_http(self.target, response.status, response.headers, bytes(content))

    async def _opened(self) -> aiohttp.ClientSession:
        tls = await asyncio.to_thread(_tls, self.target) if self.target.encrypted else True
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1, ssl=tls),
            # The deadline is kept in one place: of two timers that end together, one cancellation is lost.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            trust_env=True,  # HTTPS_PROXY and NO_PROXY, as every exporter has it
        )


def _tls(target: Target) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=target.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if target.certificate_file is not None:
        context.load_cert_chain(target.certificate_file, target.key_file)
    return context
