"""Keys in the secrets of Azure Key Vault: encrypted there, and fetched to sign in this process.

``azuresecrets:https://acme.vault.azure.net``: the vault.
"""

from __future__ import annotations

from azure.keyvault.secrets.aio import SecretClient

from identity.keys.ports import ProviderError
from identity.keys.providers.azure import COMMON_OPTIONS, OPTIONS, AzureVault
from identity.keys.providers.remote import RemoteLimits
from identity.keys.providers.secret_manager import KeptKek, SecretManagerKeys
from identity.keys.providers.uri import ProviderUri

KEPT_OPTIONS = (*COMMON_OPTIONS, "secret")
_CONTENT_TYPE = "application/pkcs8-encrypted"  # RFC 8351


class AzureSecrets:
    """The secrets of one vault."""

    def __init__(self, uri: ProviderUri, limits: RemoteLimits) -> None:
        self._uri = uri
        self._vault = AzureVault(SecretClient, uri, limits)

    @property
    def place(self) -> str:
        """See ``SecretPlace``."""
        return self._vault.place

    async def put(self, text: str) -> str:
        """See ``SecretPlace``."""
        name = self._uri.new_name()
        await self._vault.call(
            "keep a secret", lambda secrets: secrets.set_secret(name, text, content_type=_CONTENT_TYPE)
        )
        return name

    async def get(self, name: str) -> str:
        """See ``SecretPlace``."""
        secret = await self._vault.call("give a secret", lambda secrets: secrets.get_secret(name))
        if secret.value is None:
            raise ProviderError(f"{self.place} gives a secret without a value")
        return secret.value

    async def delete(self, name: str) -> None:
        """See ``SecretPlace``."""
        await self._vault.delete(f"/secrets/{name}")

    async def close(self) -> None:
        """See ``SecretPlace``."""
        await self._vault.close()


def provider(uri: str, limits: RemoteLimits) -> SecretManagerKeys:
    """The provider of a URI. Raises ``ProviderError``."""
    return SecretManagerKeys(AzureSecrets(ProviderUri.parse(uri, OPTIONS), limits), limits)


def wrapping_key(uri: str, limits: RemoteLimits) -> KeptKek:
    """The key-encryption key that lies there. Raises ``ProviderError``."""
    parsed = ProviderUri.parse(uri, KEPT_OPTIONS)
    return KeptKek(AzureSecrets(parsed, limits), parsed.option("secret"))
