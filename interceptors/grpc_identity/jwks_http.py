"""A JWK set from a URL, with nothing but the standard library.

Rules: https, except from loopback or where plain text is allowed; no redirects, because they would choose an address
we were not given; at most 256 KiB; one time limit for the whole exchange. Understands ``ETag`` and
``Cache-Control: max-age`` (RFC 9110, RFC 9111).
"""

from __future__ import annotations

import re
import ssl
from email.message import Message
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from grpc_identity.clock import monotonic_clock
from grpc_identity.errors import KeyFetchError
from grpc_identity.jwk import MAX_JWKS_BYTES, KeySet
from grpc_identity.keysets import FetchedKeys

__all__ = ["HttpJwks", "is_loopback"]

_CHUNK_BYTES = 16 * 1024
_MAX_VERSION_CHARS = 256
_MAX_AGE = re.compile(r"(?:^|[\s,])max-age=(\d{1,9})(?:$|[\s,])", re.IGNORECASE)
_LOOPBACK_HOSTS = frozenset({"localhost", "::1"})
_LOOPBACK_V4 = re.compile(r"127(?:\.\d{1,3}){3}")


def is_loopback(host: str) -> bool:
    """Whether what is sent to this host stays on this machine.

    >>> is_loopback("127.0.0.1"), is_loopback("127.0.0.1.example.com")
    (True, False)
    """
    return host in _LOOPBACK_HOSTS or _LOOPBACK_V4.fullmatch(host) is not None


class HttpJwks:
    """Asks one URL for keys."""

    def __init__(self, url: str, *, allow_plaintext: bool, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in {"http", "https"} or not host:
            raise ValueError(f"{url!r} is not the URL of a JWK set")
        if parts.scheme == "http" and not (allow_plaintext or is_loopback(host)):
            raise ValueError(
                f"{url}: keys over plain http can be exchanged on the way; use https or allow_plaintext"
            )
        if parts.username is not None:
            raise ValueError("the URL of a JWK set must not carry credentials")
        self._url = url
        self._timeout_seconds = timeout_seconds
        handlers = [_NoRedirects(), HTTPSHandler(context=ssl.create_default_context())]
        # A proxy of the environment is for the world outside.
        self._opener = build_opener(*handlers, *([ProxyHandler({})] if is_loopback(host) else []))

    def __call__(self, last: FetchedKeys | None) -> FetchedKeys:
        headers = {"Accept": "application/jwk-set+json, application/json"}
        if last is not None and last.version:
            headers["If-None-Match"] = last.version
        # The scheme was checked above.
        request = Request(self._url, headers=headers)  # noqa: S310
        deadline = monotonic_clock() + self._timeout_seconds
        try:
            with self._opener.open(request, timeout=self._timeout_seconds) as response:
                document = self._read(response, deadline)
                return FetchedKeys(
                    KeySet.from_json(document),
                    version=_version(response.headers),
                    max_age_seconds=_max_age(response.headers),
                )
        except HTTPError as error:
            with error:
                if error.code == 304 and last is not None:
                    return FetchedKeys(last.key_set, last.version, _max_age(error.headers))
                raise KeyFetchError(f"{self._url} answered {error.code}") from None
        except URLError as error:
            raise KeyFetchError(f"{self._url} cannot be reached: {error.reason}") from None
        except (OSError, HTTPException) as error:
            raise KeyFetchError(f"{self._url}: {type(error).__name__}: {error}") from None

    def _read(self, response: HTTPResponse, deadline: float) -> bytes:
        # The time limit of a socket starts anew with each byte; this one does not.
        document = bytearray()
        while chunk := response.read1(_CHUNK_BYTES):
            document += chunk
            if len(document) > MAX_JWKS_BYTES:
                raise KeyFetchError(f"{self._url} answered with more than {MAX_JWKS_BYTES} bytes")
            if monotonic_clock() > deadline:
                raise KeyFetchError(f"{self._url} was not done after {self._timeout_seconds} seconds")
        return bytes(document)


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, req: Request, *answer: Any) -> None:
        response, code = answer[:2]
        response.close()
        raise KeyFetchError(f"{req.full_url} answered with a redirect ({code}); name the final address")


def _version(headers: Message) -> str:
    etag = headers.get("ETag", "")
    return etag if len(etag) <= _MAX_VERSION_CHARS else ""


def _max_age(headers: Message) -> float | None:
    found = _MAX_AGE.search(headers.get("Cache-Control", ""))
    return None if found is None else float(found[1])
