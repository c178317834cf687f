"""The servers and relays that ``identity top`` looks at: one round of looks after the other, and what came of each.

What cannot be reached is shown as such and asked again in the next round. Pages are bounded, redirects not followed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from identity.cli.top_metrics import Interval, Look, NotMetricsError

if TYPE_CHECKING:
    import aiohttp

METRICS_PATH = "/metrics"
READY_PATH = "/readyz"
LOOK_TIMEOUT_SECONDS = 2.0
MAX_PAGE_BYTES = 8 * 1024 * 1024
MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the last round found of one process.

    ``problem``: why it could not be looked at, empty where it could. ``interval``: its last two looks, where there are two.
    ``ready`` is ``None`` where that is not known; ``impairments`` are the names of what ``/readyz`` names.
    """

    url: str
    problem: str
    look: Look | None = None
    interval: Interval | None = None
    ready: bool | None = None
    impairments: Sequence[str] = ()


class _PageError(Exception):
    """Why a page is none."""


class Watched:
    """Several processes, looked at together. ``url``: of the HTTP side, as ``base_url`` gives it."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = list(dict.fromkeys(urls))
        self._last: dict[str, Look] = {}

    async def look(self, http: aiohttp.ClientSession) -> Sequence[ServerState]:
        """One round, all at once, in the order of the urls."""
        return await asyncio.gather(*(self._look_at(http, url) for url in self._urls))

    async def _look_at(self, http: aiohttp.ClientSession, url: str) -> ServerState:
        try:
            status, body = await _get(http, url + METRICS_PATH)
            if status != 200:
                return ServerState(url, f"HTTP {status} at {METRICS_PATH}")
            look = Look.read(body.decode(), asyncio.get_running_loop().time())
        except (NotMetricsError, UnicodeDecodeError):
            return ServerState(url, f"no metrics at {METRICS_PATH}")
        except _PageError as error:
            return ServerState(url, str(error))
        before, self._last[url] = self._last.get(url), look
        ready, impairments = await _readiness(http, url)
        interval = Interval(before, look) if before else None
        return ServerState(url, "", look, interval, ready, impairments)


def base_url(text: str) -> str:
    """``host:port``, or a URL with or without ``/metrics``, as a URL. Raises ``ValueError`` where it is none.

    >>> base_url("id.example:8080"), base_url("https://id.example/metrics")
    ('http://id.example:8080', 'https://id.example')
    """
    url = (text if "://" in text else f"http://{text}").removesuffix("/").removesuffix(METRICS_PATH)
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is no address of a server's HTTP side, like http://127.0.0.1:8080")
    if parts.username is not None or parts.port == 0:
        raise ValueError("an address has no credentials, and a port other than 0")
    return url


def url_of_listener(listen: str) -> str:
    """Where to reach what listens on ``host:port``; a listener on every address is reached on this machine's loopback.

    >>> url_of_listener("0.0.0.0:8080")
    'http://127.0.0.1:8080'
    """
    host, _, port = listen.rpartition(":")
    loopback = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - to call, not to listen
    return base_url(f"http://{loopback.get(host, host)}:{port}")


async def _get(http: aiohttp.ClientSession, url: str) -> tuple[int, bytes]:
    import aiohttp

    try:
        async with asyncio.timeout(LOOK_TIMEOUT_SECONDS):
            async with http.get(url, allow_redirects=False) as answer:
                body = b""
                async for chunk in answer.content.iter_chunked(65_536):
                    body += chunk
                    if len(body) > MAX_PAGE_BYTES:
                        raise _PageError("its page of metrics is too large")
                return answer.status, body
    except TimeoutError:
        raise _PageError(f"no answer within {LOOK_TIMEOUT_SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _PageError(_why(error)) from None


def _why(error: Exception) -> str:
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.strerror:
        # "Connect call failed ('127.0.0.1', 8080)" says nothing that the address does not.
        refused = isinstance(error.os_error, ConnectionRefusedError)
        return "connection refused" if refused else error.os_error.strerror[:MAX_TEXT]
    if isinstance(error, aiohttp.ClientResponseError):
        return "no HTTP"
    return (str(error) or type(error).__name__)[:MAX_TEXT]


async def _readiness(http: aiohttp.ClientSession, url: str) -> tuple[bool | None, Sequence[str]]:
    try:
        status, body = await _get(http, url + READY_PATH)
        answer: Any = json.loads(body)
        problems: Sequence[Mapping[str, Any]] = answer["problems"]
        return status == 200, [str(problem["name"])[:MAX_TEXT] for problem in problems]
    except (_PageError, ValueError, TypeError, KeyError):
        return None, ()
