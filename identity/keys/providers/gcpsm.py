"""Keys in Google Secret Manager: encrypted there, and fetched to sign in this process. ``gcpsm:projects/P``."""

from __future__ import annotations

import contextlib
import re

from google.cloud.secretmanager_v1 import SecretManagerServiceAsyncClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceGrpcAsyncIOTransport,
)

from identity.keys.ports import ProviderError
from identity.keys.providers.gcp import OPTIONS, GcpClient, GcpNotThereError
from identity.keys.providers.remote import RemoteLimits
from identity.keys.providers.secret_manager import KeptKek, SecretManagerKeys
from identity.keys.providers.uri import ProviderUri


class GcpSecrets:
    """The secrets of one project."""

    def __init__(self, uri: ProviderUri, limits: RemoteLimits) -> None:
        if not re.fullmatch(r"projects/[^/]+", uri.target):
            raise ProviderError("gcpsm: needs a project, as in gcpsm:projects/P")
        self._uri = uri
        self._client = GcpClient(
            f"Google Secret Manager ({uri.target})",
            lambda transport: SecretManagerServiceAsyncClient(transport=transport),
            SecretManagerServiceGrpcAsyncIOTransport,
            uri,
            limits,
        )

    @property
    def place(self) -> str:
        """See ``SecretPlace``."""
        return self._client.place

    async def put(self, text: str) -> str:
        """See ``SecretPlace``."""
        secret = await self._client.call(
            "create_secret",
            parent=self._uri.target,
            secret_id=self._uri.new_name(),
            secret={"replication": {"automatic": {}}},
        )
        version = await self._client.call(
            "add_secret_version", parent=secret.name, payload={"data": text.encode()}
        )
        name: str = version.name
        return name

    async def get(self, name: str) -> str:
        """See ``SecretPlace``."""
        answer = await self._client.call("access_secret_version", name=name)
        data: bytes = answer.payload.data
        return data.decode("utf-8", "replace")

    async def delete(self, name: str) -> None:
        """See ``SecretPlace``."""
        with contextlib.suppress(GcpNotThereError):
            await self._client.call("delete_secret", name=name.partition("/versions/")[0])

    async def close(self) -> None:
        """See ``SecretPlace``."""
        await self._client.close()


def wrapping_key(uri: str, limits: RemoteLimits) -> KeptKek:
    """The key-encryption key that lies there. Raises ``ProviderError``."""
    parsed = ProviderUri.parse(uri, ("endpoint", "secret"))
    name = f"{parsed.target}/secrets/{parsed.option('secret')}/versions/latest"
    return KeptKek(GcpSecrets(parsed, limits), name)


def provider(uri: str, limits: RemoteLimits) -> SecretManagerKeys:
    """The provider of a URI. Raises ``ProviderError``."""
    return SecretManagerKeys(GcpSecrets(ProviderUri.parse(uri, OPTIONS), limits), limits)
