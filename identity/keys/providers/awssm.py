"""Keys in AWS Secrets Manager: encrypted there, and fetched to sign in this process. ``awssm:eu-central-1``."""

from __future__ import annotations

from identity.keys.providers.aws import KEPT_OPTIONS, OPTIONS, AwsClient, AwsError
from identity.keys.providers.remote import RemoteLimits
from identity.keys.providers.secret_manager import KeptKek, SecretManagerKeys
from identity.keys.providers.uri import ProviderUri


class AwsSecrets:
    """Secrets Manager in one region."""

    def __init__(self, uri: ProviderUri, limits: RemoteLimits) -> None:
        self._uri = uri
        self._client = AwsClient("secretsmanager", uri, limits)

    @property
    def place(self) -> str:
        """See ``SecretPlace``."""
        return self._client.place

    async def put(self, text: str) -> str:
        """See ``SecretPlace``."""
        made = await self._client.call(
            "create_secret",
            Name=self._uri.new_name(),
            Description="A key that signs access tokens, encrypted",
            SecretString=text,
        )
        arn: str = made["ARN"]
        return arn

    async def get(self, name: str) -> str:
        """See ``SecretPlace``."""
        text: str = (await self._client.call("get_secret_value", SecretId=name))["SecretString"]
        return text

    async def delete(self, name: str) -> None:
        """See ``SecretPlace``."""
        try:
            await self._client.call("delete_secret", SecretId=name, ForceDeleteWithoutRecovery=True)
        except AwsError as error:
            if error.code != "ResourceNotFoundException":
                raise

    async def close(self) -> None:
        """See ``SecretPlace``."""
        self._client.close()


def provider(uri: str, limits: RemoteLimits) -> SecretManagerKeys:
    """The provider of a URI. Raises ``ProviderError``."""
    return SecretManagerKeys(AwsSecrets(ProviderUri.parse(uri, OPTIONS), limits), limits)


def wrapping_key(uri: str, limits: RemoteLimits) -> KeptKek:
    """The key-encryption key that lies there. Raises ``ProviderError``."""
    parsed = ProviderUri.parse(uri, KEPT_OPTIONS)
    return KeptKek(AwsSecrets(parsed, limits), parsed.option("secret"))
