"""One vault of Azure Key Vault and Microsoft Entra ID, as far as the providers use them: HTTPS, for the clients as they are.

Made from the API's documentation (learn.microsoft.com/rest/api/keyvault, learn.microsoft.com/azure/key-vault/general/rest-error-codes and
authentication-requests-and-responses, learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow): the challenge of
the first request, the scope of its token, versions, soft deletion, digests that are signed as they come, what errors look like.
Both names answer on one port of this machine, with certificates of an authority of its own.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web
from certificates import Authority
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256

from grpc_identity.encoding import decode_base64url, encode_base64url

VAULT = "acme.vault.azure.net"
AUTHORITY = "login.microsoftonline.com"
TENANT = "3c5c1e4d-72d1-4a0f-9f2b-0d5b8e1a7c11"
CLIENT = "8a4f4c1e-1b0e-4f58-8c2a-6f1d3e9b2d47"
CLIENT_SECRET = "CANARY-q8Q~Vm0n5kXb"
TOKEN_PREFIX = "CANARY-token-"
SCOPE = "https://vault.azure.net/.default"
CHALLENGE = f'Bearer authorization="https://{AUTHORITY}/{TENANT}", resource="https://vault.azure.net"'
CLAIMS = '{"access_token":{"nbf":{"essential":true,"value":"1700000000"}}}'
NEWER_TOKEN = (
    f'Bearer realm="", authorization_uri="https://{AUTHORITY}/common/oauth2/authorize", '
    f'error="insufficient_claims", claims="{base64.b64encode(CLAIMS.encode()).decode()}"'
)
OAEP = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)
COORDINATE_BYTES = 32
TOKEN_SECONDS = 3600
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class KeyVaultError(Exception):
    """What is answered instead: the body of an error as Key Vault has it."""

    def __init__(self, status: int, code: str, message: str = "", challenge: str = "") -> None:
        super().__init__(code)
        self.challenge = challenge or CHALLENGE
        self.status = status
        self.body = {"error": {"code": code, "message": message or code}}


class Azure:
    """The server, in a thread of its own. What it keeps outlives ``kill``."""

    def __init__(self, folder: Path) -> None:
        os.environ.pop("AZURE_CLIENT_CERTIFICATE_PATH", None)
        os.environ["AZURE_TENANT_ID"] = TENANT
        os.environ["AZURE_CLIENT_ID"] = CLIENT
        os.environ["AZURE_CLIENT_SECRET"] = CLIENT_SECRET
        authority = Authority(folder, "ca")
        self.ca_file = authority.file
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(*authority.issue("azure", (VAULT, AUTHORITY)))
        self.keys: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, dict[str, Any]]] = {}
        self._deleted: set[str] = set()
        self._tokens: dict[str, float] = {}
        self.asked: list[str] = []
        """Of the vault, method and path; the requests that only elicit a challenge as well."""
        self.tokens_given = 0
        self.fault: KeyVaultError | None = None
        """Answered by the vault to whoever has a token."""
        self.entra_fault: Callable[[], web.Response] | None = None
        """Answered instead of a token."""
        self.makes_exportable = False
        """Whoever asks for a key gets one that can be taken out."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="azure")
        self._thread.start()
        self._answers = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._port = 0
        self.bring_back()

    @property
    def uri(self) -> str:
        """Of the provider of keys."""
        return self.uri_of("azurekv")

    def uri_of(self, place: str) -> str:
        """As the setting has it."""
        return f"{place}:https://{VAULT}?endpoint=127.0.0.1:{self._port}&ca-file={self.ca_file}"

    def make_wrapping_key(self, name: str) -> str:
        """A new version of an RSA key, as its owner makes it. Its URI."""
        operations = ["wrapKey", "unwrapKey"]
        self._put_key(name, rsa.generate_private_key(65537, 2048), "RSA", operations)
        return f"{self.uri}&key={name}"

    def rotate(self, name: str) -> None:
        """A new version of a key, as a policy of the vault makes it."""
        newest = list(self.keys[name].values())[-1]["jwk"]
        self._put_key(name, ec.generate_private_key(ec.SECP256R1()), newest["kty"], newest["key_ops"])

    def put_secret(self, name: str, value: str) -> dict[str, Any]:
        """A new version of a secret."""
        version = secrets.token_hex(16)
        made = {
            "value": value,
            "id": f"https://{VAULT}/secrets/{name}/{version}",
            "attributes": _attributes(),
        }
        self.secrets.setdefault(name, {})[version] = made
        return made

    def revoke_tokens(self) -> None:
        """The vault takes them no more, and asks for newer ones: continuous access evaluation."""
        self._tokens = dict.fromkeys(self._tokens, 0.0)

    def kill(self) -> None:
        """Ends all connections in the middle of what they do, and closes the port."""

        async def end() -> None:
            runner, self._runner = self._runner, None
            if runner is not None and runner.server is not None:
                for site in list(runner.sites):
                    await site.stop()
                for connection in runner.server.connections:
                    if connection.transport is not None:
                        connection.transport.abort()
                await runner.cleanup()

        self._done(end())

    def hang(self) -> None:
        """Keeps it from answering, with its port open."""
        self._loop.call_soon_threadsafe(self._answers.clear)

    def bring_back(self) -> None:
        """After ``kill``, on the same port with what it had, and after ``hang``."""

        async def start() -> None:
            self._answers.set()
            if self._runner is None:
                self._runner = web.AppRunner(self._application(), shutdown_timeout=0)
                await self._runner.setup()
                site = web.TCPSite(
                    self._runner, "127.0.0.1", self._port, ssl_context=self._tls, reuse_address=True
                )
                await site.start()
                self._port = self._runner.addresses[0][1]

        self._done(start())

    def stop(self) -> None:
        """Ends it."""
        self.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _done(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard()])
        application.add_routes(
            [
                web.post("/{tenant}/oauth2/v2.0/token", self._token),
                web.post("/keys/{name}/create", self._create),
                web.get("/keys/{name}/{version:[^/]*}", self._get_key),
                web.post("/keys/{name}/{version}/{operation:sign|wrapkey|unwrapkey}", self._operate),
                web.delete("/keys/{name}", self._delete_key),
                web.put("/secrets/{name}", self._set_secret),
                web.get("/secrets/{name}/{version:[^/]*}", self._get_secret),
                web.delete("/secrets/{name}", self._delete_secret),
            ]
        )
        return application

    def _guard(self) -> Any:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            await self._answers.wait()
            if request.host == AUTHORITY:
                return await handler(request)
            try:
                self._check(request)
                return await handler(request)
            except KeyVaultError as error:
                headers = {"WWW-Authenticate": error.challenge} if error.status == 401 else {}
                return web.json_response(error.body, status=error.status, headers=headers)

        return guard

    def _check(self, request: web.Request) -> None:
        assert request.host == VAULT
        self.asked.append(f"{request.method} {request.path}")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and self._tokens.get(token) == 0:
            raise KeyVaultError(401, "Unauthorized", "AKV10146: The token was revoked.", NEWER_TOKEN)
        if scheme != "Bearer" or self._tokens.get(token, 0) < time.monotonic():
            raise KeyVaultError(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.")
        if "api-version" not in request.query:
            raise KeyVaultError(400, "BadParameter", "api-version must be specified")
        if self.fault is not None:
            raise self.fault

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert request.match_info["tenant"] == TENANT
        assert (form["grant_type"], form["client_id"], form["scope"]) == ("client_credentials", CLIENT, SCOPE)
        if self.entra_fault is not None:
            return self.entra_fault()
        if form["client_secret"] != CLIENT_SECRET:
            body = {
                "error": "invalid_client",
                "error_description": "AADSTS7000215: Invalid client secret provided.",
                "error_codes": [7000215],
            }
            return web.json_response(body, status=401)
        token = f"{TOKEN_PREFIX}{secrets.token_urlsafe(32)}"
        self._tokens[token] = time.monotonic() + TOKEN_SECONDS
        self.tokens_given += 1
        return web.json_response(
            {
                "token_type": "Bearer",
                "expires_in": TOKEN_SECONDS,
                "ext_expires_in": TOKEN_SECONDS,
                "access_token": token,
            }
        )

    async def _create(self, request: web.Request) -> web.Response:
        body, name = await request.json(), request.match_info["name"]
        if f"keys/{name}" in self._deleted:
            raise KeyVaultError(
                409, "Conflict", f"Key {name} is currently in a deleted but recoverable state"
            )
        match body["kty"].removesuffix("-HSM"):
            case "EC" if body["crv"] == "P-256":
                key: Any = ec.generate_private_key(ec.SECP256R1())
            case "RSA" if body["key_size"] in {2048, 3072, 4096}:
                key = await asyncio.to_thread(rsa.generate_private_key, 65537, body["key_size"])
            case _:
                raise KeyVaultError(400, "BadParameter", "Property has invalid value")
        made = self._put_key(name, key, body["kty"], body["key_ops"])
        made["attributes"]["exportable"] = self.makes_exportable or body.get("attributes", {}).get(
            "exportable", False
        )
        return web.json_response({**_bundle(made), "tags": body.get("tags", {})})

    def _put_key(self, name: str, key: Any, kty: str, operations: list[str]) -> dict[str, Any]:
        version = secrets.token_hex(16)
        kid = f"https://{VAULT}/keys/{name}/{version}"
        numbers = key.public_key().public_numbers()
        members = (
            {"crv": "P-256", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}
            if isinstance(key, ec.EllipticCurvePrivateKey)
            else {"n": _number(numbers.n), "e": _number(numbers.e)}
        )
        jwk = {"kid": kid, "kty": kty, "key_ops": operations, **members}
        made = {"private": key, "jwk": jwk, "attributes": _attributes()}
        self.keys.setdefault(name, {})[version] = made
        return made

    def _found(self, kept: dict[str, dict[str, Any]], kind: str, request: web.Request) -> Any:
        name, version = request.match_info["name"], request.match_info["version"]
        versions = kept.get(name, {})
        # Without a version it is the newest.
        if not versions or (version and version not in versions):
            raise KeyVaultError(
                404, f"{kind}NotFound", f"A {kind.lower()} with (name/id) {name}/{version} was not found."
            )
        return versions[version or list(versions)[-1]]

    async def _get_key(self, request: web.Request) -> web.Response:
        return web.json_response(_bundle(self._found(self.keys, "Key", request)))

    async def _operate(self, request: web.Request) -> web.Response:
        found, body = self._found(self.keys, "Key", request), await request.json()
        operation, key = request.match_info["operation"], found["private"]
        value = decode_base64url(body["value"].encode())
        if operation not in (name.lower() for name in found["jwk"]["key_ops"]):
            raise KeyVaultError(403, "Forbidden", f"Operation {operation} is not permitted on this key.")
        try:
            result = _OPERATIONS[operation, body["alg"]](key, value)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise KeyVaultError(400, "BadParameter", "Property has invalid value") from None
        return web.json_response({"kid": found["jwk"]["kid"], "value": encode_base64url(result)})

    async def _delete_key(self, request: web.Request) -> web.Response:
        found = self.keys.pop(request.match_info["name"], None)
        if found is None:
            raise KeyVaultError(404, "KeyNotFound")
        return self._deleted_answer("keys", request, _bundle(list(found.values())[-1]))

    async def _set_secret(self, request: web.Request) -> web.Response:
        body, name = await request.json(), request.match_info["name"]
        if f"secrets/{name}" in self._deleted:
            raise KeyVaultError(409, "Conflict", f"Secret {name} is currently in a deleted state")
        made = self.put_secret(name, body["value"])
        return web.json_response({**made, "contentType": body.get("contentType")})

    async def _get_secret(self, request: web.Request) -> web.Response:
        return web.json_response(self._found(self.secrets, "Secret", request))

    async def _delete_secret(self, request: web.Request) -> web.Response:
        found = self.secrets.pop(request.match_info["name"], None)
        if found is None:
            raise KeyVaultError(404, "SecretNotFound")
        newest = list(found.values())[-1]
        return self._deleted_answer(
            "secrets", request, {"id": newest["id"], "attributes": newest["attributes"]}
        )

    def _deleted_answer(self, kind: str, request: web.Request, body: dict[str, Any]) -> web.Response:
        name = request.match_info["name"]
        self._deleted.add(f"{kind}/{name}")
        return web.json_response({**body, "recoveryId": f"https://{VAULT}/deleted{kind}/{name}"})


def _sign_es256(key: Any, digest: bytes) -> bytes:
    numbers = utils.decode_dss_signature(key.sign(digest, ec.ECDSA(utils.Prehashed(SHA256()))))
    return b"".join(number.to_bytes(COORDINATE_BYTES) for number in numbers)


def _sign_rs256(key: Any, digest: bytes) -> bytes:
    signature: bytes = key.sign(digest, padding.PKCS1v15(), utils.Prehashed(SHA256()))
    return signature


_OPERATIONS: dict[tuple[str, str], Callable[[Any, bytes], bytes]] = {
    ("sign", "ES256"): _sign_es256,
    ("sign", "RS256"): _sign_rs256,
    ("wrapkey", "RSA-OAEP-256"): lambda key, value: key.public_key().encrypt(value, OAEP),
    ("unwrapkey", "RSA-OAEP-256"): lambda key, value: key.decrypt(value, OAEP),
}


def _bundle(found: dict[str, Any]) -> dict[str, Any]:
    return {"key": found["jwk"], "attributes": found["attributes"]}


def _attributes() -> dict[str, Any]:
    return {
        "enabled": True,
        "created": 1_700_000_000,
        "updated": 1_700_000_000,
        "recoveryLevel": "Recoverable+Purgeable",
        "recoverableDays": 90,
    }


def _coordinate(number: int) -> str:
    return encode_base64url(number.to_bytes(COORDINATE_BYTES))


def _number(number: int) -> str:
    return encode_base64url(number.to_bytes((number.bit_length() + 7) // 8))
