"""Keys in the Transit engine of OpenBao or Vault: made there, not exportable, and used there.

``transit:https://bao.example:8200/transit?token-file=/run/secrets/bao-token``: the path is where the engine is mounted.
Each signing key is a Transit key of its own, and its private part names it with the version that was made: whoever rotates it
by hand changes nothing, and destroying one never touches another. For ES256 and RS256 only the SHA-256 of a token is sent;
Ed25519 has no such mode, the engine sees the token itself.

The token is renewed when half of its time is over, and read anew from its file each minute and when it is refused: an
agent may replace it at any time. A node that is sealed, in standby or overloaded counts as not reachable.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from grpc_identity.encoding import decode_base64url
from grpc_identity.jwk import PublicKey
from identity.keys.ports import ProviderError
from identity.keys.providers.purpose import PURPOSE
from identity.keys.providers.remote import NewPair, RemoteKeys, RemoteLimits, UnreachableError
from identity.keys.providers.uri import ProviderUri, read_secret, require_private_way, tls_context

OPTIONS = ("token-file", "namespace", "ca-file", "prefix")
WRAPPING_OPTIONS = ("token-file", "namespace", "ca-file", "key")
TOKEN_LOOK_SECONDS = 60.0
TRY_AGAIN_SECONDS = 5.0
_TYPES = {"ES256": "ecdsa-p256", "RS256": "rsa-3072", "EdDSA": "ed25519"}
_HASHED = {"prehashed": True, "hash_algorithm": "sha2-256"}
_SIGN: Mapping[str, Mapping[str, Any]] = {
    "ES256": _HASHED | {"marshaling_algorithm": "jws"},
    "RS256": _HASHED | {"signature_algorithm": "pkcs1v15"},
    "EdDSA": {},
}
# Sealed, in standby, a replica without the key, too busy: another moment or another node may do.
_LATER = frozenset({307, 308, 412, 429, 472, 473, 500, 502, 503, 504})

_log = logging.getLogger(__name__)


class TransitClient:
    """The HTTP API of one mount, with a token that is kept alive."""

    def __init__(self, uri: ProviderUri, limits: RemoteLimits) -> None:
        url = require_private_way("transit", uri.target)
        parts = urlsplit(url)
        self.mount = parts.path.strip("/")
        if not self.mount:
            raise ProviderError(
                "transit: needs the path where the engine is mounted, as in https://host/transit"
            )
        self.place = f"Transit at {parts.netloc}/{self.mount}"
        self._token_file = uri.option("token-file")
        self._token = ""
        self._keeping: asyncio.Task[None] | None = None
        self._headers = {"X-Vault-Request": "true"}
        if "namespace" in uri.options:
            self._headers["X-Vault-Namespace"] = uri.options["namespace"]
        self._base = f"{parts.scheme}://{parts.netloc}/v1/"
        self._tls = tls_context(uri) if parts.scheme == "https" else None
        self._limits = limits
        self._http: aiohttp.ClientSession | None = None

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """``data`` of the answer. Raises ``UnreachableError`` and ``ProviderError``, which never quote an answer."""
        if self._keeping is None:
            self._token = read_secret("transit", self._token_file)
            self._keeping = asyncio.create_task(self._keep_token())
        status, answer = await self._send(method, path, body)
        if status == HTTPStatus.FORBIDDEN and self._has_another_token():
            status, answer = await self._send(method, path, body)
        return _data(status, answer, path)

    async def close(self) -> None:
        """Closes the connections; the token is left to whoever made it."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        if self._http is not None:
            await self._http.close()

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, Any]:
        headers = {**self._headers, "X-Vault-Token": self._token}
        try:
            # A redirect would take the token to wherever it points.
            async with self._session().request(
                method, self._base + path, json=body, headers=headers, allow_redirects=False
            ) as response:
                text = await response.read()
                return response.status, json.loads(text) if response.ok and text else {}
        except ValueError:
            raise UnreachableError("an answer that is not JSON") from None
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(type(error).__name__) from None

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            connector = aiohttp.TCPConnector(limit=self._limits.concurrency, ssl=self._tls or True)
            self._http = aiohttp.ClientSession(
                connector=connector,
                # Whoever calls keeps the deadline: of two timers that end together, one cancellation is lost.
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._http

    def _has_another_token(self) -> bool:
        before, self._token = self._token, read_secret("transit", self._token_file)
        return self._token != before

    async def _keep_token(self) -> None:
        renew_at = time.monotonic()
        while True:
            try:
                if self._has_another_token() or time.monotonic() >= renew_at:
                    async with asyncio.timeout(self._limits.timeout_seconds):
                        renew_at = time.monotonic() + await self._renewed()
            except TimeoutError:
                _log.warning("the token for %s could not be renewed: no answer in time", self.place)
            except (UnreachableError, ProviderError) as error:
                _log.warning("the token for %s could not be renewed: %s", self.place, error)
            except Exception:
                # Without this task the token would run out.
                _log.exception("the token for %s could not be renewed", self.place)
            await asyncio.sleep(min(TOKEN_LOOK_SECONDS, max(renew_at - time.monotonic(), TRY_AGAIN_SECONDS)))

    async def _renewed(self) -> float:
        """Seconds until it is to be renewed again."""
        token = _data(*await self._send("GET", "auth/token/lookup-self", None), "auth/token/lookup-self")
        if not token.get("renewable"):
            # One that ends will be replaced by whoever has put it there, or the log says so.
            return TOKEN_LOOK_SECONDS
        status, answer = await self._send("POST", "auth/token/renew-self", {})
        _data(status, answer, "auth/token/renew-self")
        return float(answer["auth"]["lease_duration"]) / 2


class TransitBackend:
    """Keys of one mount."""

    def __init__(self, client: TransitClient, uri: ProviderUri) -> None:
        self._client = client
        self._uri = uri

    @property
    def place(self) -> str:
        """See ``Backend``."""
        return self._client.place

    async def generate(self, algorithm: str) -> NewPair:
        """See ``Backend``."""
        name = self._uri.new_name()
        body = {"type": _TYPES[algorithm], "exportable": False, "allow_plaintext_backup": False}
        made = await self._client.call("POST", f"{self._client.mount}/keys/{name}", body)
        if "keys" not in made:
            made = await self._client.call("GET", f"{self._client.mount}/keys/{name}")
        version = int(made["latest_version"])
        private_part = json.dumps({"key": name, "version": version}).encode()
        return NewPair(_public_key(made["keys"][str(version)]["public_key"]), private_part)

    async def sign(self, algorithm: str, private_part: bytes, signing_input: bytes) -> bytes:
        """See ``Backend``."""
        reference = json.loads(private_part)
        how = _SIGN[algorithm]
        data = hashlib.sha256(signing_input).digest() if "prehashed" in how else signing_input
        body = {"input": base64.b64encode(data).decode(), "key_version": reference["version"], **how}
        answer = await self._client.call("POST", f"{self._client.mount}/sign/{reference['key']}", body)
        signature = answer["signature"].rpartition(":")[2]
        return decode_base64url(signature.encode()) if algorithm == "ES256" else base64.b64decode(signature)

    async def destroy(self, private_part: bytes) -> None:
        """See ``Backend``."""
        path = f"{self._client.mount}/keys/{json.loads(private_part)['key']}"
        with contextlib.suppress(_NotThereError):
            await self._client.call("GET", path)
            await self._client.call("POST", f"{path}/config", {"deletion_allowed": True})
            await self._client.call("DELETE", path)

    async def close(self) -> None:
        """See ``Backend``."""
        await self._client.close()


class TransitWrappingKey:
    """A key of the mount that encrypts: of a type with associated data, such as aes256-gcm96."""

    def __init__(self, client: TransitClient, key: str) -> None:
        self._client = client
        self._key = key
        self._bound = {"associated_data": base64.b64encode(PURPOSE.encode()).decode()}

    @property
    def place(self) -> str:
        """See ``WrappingKey``."""
        return self._client.place

    async def wrap(self, raw: bytes) -> bytes:
        """See ``WrappingKey``."""
        body = {"plaintext": base64.b64encode(raw).decode(), **self._bound}
        answer = await self._client.call("POST", f"{self._client.mount}/encrypt/{self._key}", body)
        ciphertext: str = answer["ciphertext"]
        return ciphertext.encode()

    async def unwrap(self, wrapped: bytes) -> bytes:
        """See ``WrappingKey``."""
        body = {"ciphertext": wrapped.decode("ascii", "replace"), **self._bound}
        answer = await self._client.call("POST", f"{self._client.mount}/decrypt/{self._key}", body)
        return base64.b64decode(answer["plaintext"])

    async def close(self) -> None:
        """See ``WrappingKey``."""
        await self._client.close()


class _NotThereError(ProviderError):
    """What was asked for does not exist."""


def provider(uri: str, limits: RemoteLimits) -> RemoteKeys:
    """The provider of a URI. Raises ``ProviderError``."""
    parsed = ProviderUri.parse(uri, OPTIONS)
    backend = TransitBackend(TransitClient(parsed, limits), parsed)
    return RemoteKeys(backend, limits, time.monotonic)


def wrapping_key(uri: str, limits: RemoteLimits) -> TransitWrappingKey:
    """The key that wraps the key-encryption key. Raises ``ProviderError``."""
    parsed = ProviderUri.parse(uri, WRAPPING_OPTIONS)
    return TransitWrappingKey(TransitClient(parsed, limits), quote(parsed.option("key"), safe=""))


def _data(status: int, answer: Any, path: str) -> dict[str, Any]:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        data: dict[str, Any] = answer.get("data") or {}
        return data
    if status in _LATER:
        raise UnreachableError(f"status {status}: sealed, in standby or overloaded")
    if status == HTTPStatus.FORBIDDEN:
        raise ProviderError(f"Transit refuses {path}: the token has expired, or its policy lacks this path")
    if status == HTTPStatus.NOT_FOUND:
        raise _NotThereError(
            f"Transit has nothing at {path}; check the mount, and whether the key was deleted"
        )
    raise ProviderError(f"Transit answers {status} to {path}")


def _public_key(text: str) -> PublicKey:
    if not text.startswith("-----BEGIN"):
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text))
    key = load_pem_public_key(text.encode())
    if not isinstance(key, EllipticCurvePublicKey | RSAPublicKey):
        raise ProviderError("Transit made a key of another type than it was asked for")
    return key
