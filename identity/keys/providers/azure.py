"""What the two providers at Azure share: a client of one vault, and which failures pass.

``azurekv:https://acme.vault.azure.net``: the vault by its DNS name. Who the service is, azure-identity finds out from the
environment (a client secret or certificate), from a workload's federated token, or from the managed identity of a machine or
container; what a developer is logged in with is not looked for. The vault says in its answer to the first request which
authority gives tokens for it, and the client refuses one that is not for the vault's own domain. The clients' own retries are
off, because the deadline is kept here. ``endpoint=host:port`` is for a stand-in on this machine: connections go there
whatever name they are for, and TLS proves that name, with the certificates of ``ca-file``.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import AioHttpTransport
from azure.core.rest import HttpRequest
from azure.identity import CredentialUnavailableError
from azure.identity.aio import EnvironmentCredential, ManagedIdentityCredential

from grpc_identity.channels import stays_here
from identity.keys.ports import ProviderError
from identity.keys.providers.remote import RemoteLimits, UnreachableError
from identity.keys.providers.uri import ProviderUri, tls_context

if TYPE_CHECKING:
    from azure.keyvault.keys.aio import KeyClient
    from azure.keyvault.secrets.aio import SecretClient

COMMON_OPTIONS = ("endpoint", "ca-file")
OPTIONS = (*COMMON_OPTIONS, "prefix")
# Of the deadline of a signature. Not a half: then the second attempt to connect would end in one moment with it.
CONNECT_SHARE = 0.75
_LATER = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_SERVICE_PRINCIPAL = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH")
_CODE = re.compile(r"[A-Za-z0-9_.]{1,64}")


_ClientT = TypeVar("_ClientT", bound="KeyClient | SecretClient")
_T = TypeVar("_T")


class AzureVault(Generic[_ClientT]):
    """One vault, by one of the two client libraries; connects when first called, in the loop that calls."""

    def __init__(self, make: Callable[..., _ClientT], uri: ProviderUri, limits: RemoteLimits) -> None:
        self._url, host = _vault_url(uri)
        self._endpoint = uri.options.get("endpoint", "")
        if self._endpoint and not (
            stays_here(self._endpoint) and self._endpoint.rpartition(":")[2].isdecimal()
        ):
            raise ProviderError(
                f"{uri.scheme}: endpoint= is the host:port of a stand-in, on this machine only"
            )
        self.place = f"Azure Key Vault {host}"
        self._make = make
        self._limits = limits
        self._tls = tls_context(uri)
        self._session: aiohttp.ClientSession | None = None
        self._credential: EnvironmentCredential | ManagedIdentityCredential | None = None
        self._client: _ClientT | None = None

    async def call(self, what: str, operation: Callable[[_ClientT], Awaitable[_T]]) -> _T:
        """The answer. Raises ``UnreachableError`` and ``ProviderError``, which name the error and quote nothing."""
        try:
            return await operation(self._connected())
        except (ServiceRequestError, ServiceResponseError) as error:
            raise UnreachableError(type(error.inner_exception or error).__name__) from None
        except CredentialUnavailableError as error:
            if isinstance(error.__cause__, ServiceRequestError | ServiceResponseError):
                raise UnreachableError("no managed identity answers") from None
            raise ProviderError(
                f"{self.place}: azure-identity finds no credentials; give the service a managed identity, "
                "or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
            ) from None
        except HttpResponseError as error:
            raise self._refusal(what, error) from None
        except AzureError as error:
            raise ProviderError(f"{self.place} cannot {what}: {type(error).__name__}") from None
        except ValueError:
            # Of a challenge that would have a token sent to another domain than it is for.
            raise ProviderError(f"{self.place} does not answer like a vault of that name") from None

    async def delete(self, path: str) -> None:
        """Deletes softly, as far as the vault has it; success where it is gone.

        The clients' own methods wait until what was deleted shows up among the deleted, which takes seconds and other rights.
        """

        async def send(client: _ClientT) -> None:
            response = await client.send_request(HttpRequest("DELETE", path))
            if response.status_code != HTTPStatus.NOT_FOUND:
                response.raise_for_status()

        await self.call("delete", send)

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.close()
        if self._credential is not None:
            await self._credential.close()
        if self._session is not None:
            await self._session.close()

    def _connected(self) -> _ClientT:
        if self._client is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._limits.concurrency,
                    ssl=self._tls,
                    resolver=_AlwaysThere(self._endpoint) if self._endpoint else None,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=not self._endpoint,
                auto_decompress=False,
            )
            settings: dict[str, Any] = {
                "transport": AioHttpTransport(
                    session=self._session,
                    session_owner=False,
                    connection_timeout=self._limits.timeout_seconds * CONNECT_SHARE,
                ),
                "retry_total": 0,
            }
            self._credential = _credential(settings)
            self._client = self._make(self._url, self._credential, permit_redirects=False, **settings)
        return self._client

    def _refusal(self, what: str, error: HttpResponseError) -> Exception:
        status = error.status_code or 0
        if status in _LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return UnreachableError(f"status {status}")
        if isinstance(error, ClientAuthenticationError):
            if error.response is None:
                return UnreachableError("azure-identity gets no token for it; its log says why")
            if not _url_of(error.response).startswith(f"{self._url}/"):
                return ProviderError(
                    f"{self.place}: the credentials of the service are refused; the log of azure-identity says why"
                )
        if isinstance(error, ResourceNotFoundError):
            return ProviderError(f"{self.place} does not have what it was asked to {what}")
        code = getattr(error.error, "code", None) or ""
        reason = code if _CODE.fullmatch(code) else f"status {status}"
        return ProviderError(f"{self.place} refuses to {what}: {reason}")


class _AlwaysThere(AbstractResolver):
    """Resolves every name to one address."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See ``AbstractResolver``."""
        del port
        return [
            ResolveResult(
                hostname=host,
                host=self._host,
                port=self._port,
                family=family,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """See ``AbstractResolver``."""


def _url_of(response: Any) -> str:
    return str(response.request.url)


def _credential(settings: dict[str, Any]) -> EnvironmentCredential | ManagedIdentityCredential:
    if any(os.environ.get(name) for name in _SERVICE_PRINCIPAL):
        return EnvironmentCredential(**settings)
    # It takes a workload's federated token as well, where the environment names one.
    return ManagedIdentityCredential(client_id=os.environ.get("AZURE_CLIENT_ID") or None, **settings)


def _vault_url(uri: ProviderUri) -> tuple[str, str]:
    """With its host. Raises ``ProviderError``."""
    try:
        parts = urlsplit(uri.target)
        host = parts.hostname or ""
        is_plain = not (parts.username or parts.password or parts.path.strip("/") or parts.fragment)
        url = f"https://{host}:{parts.port}" if parts.port else f"https://{host}"
    except ValueError:
        host = ""
    if not (host and is_plain and parts.scheme == "https"):
        raise ProviderError(
            f"{uri.scheme}: needs the URL of a vault, as in {uri.scheme}:https://acme.vault.azure.net"
        )
    return url, host
