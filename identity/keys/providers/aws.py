"""What the two providers at AWS share: a client that does not wait for long, and which failures pass.

Who the service is, boto3 finds out in its usual order (environment, files, container or instance role); nothing of it is
in the URI. boto3 blocks, so it runs in threads; its own retries are off, because the deadline is kept here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from identity.keys.ports import ProviderError
from identity.keys.providers.remote import RemoteLimits, UnreachableError
from identity.keys.providers.threads import WorkerThreads
from identity.keys.providers.uri import ProviderUri, require_private_way

OPTIONS = ("endpoint", "prefix")
WRAPPING_OPTIONS = ("endpoint", "key")
KEPT_OPTIONS = ("endpoint", "secret")
# https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html, and those of the two services.
_LATER = frozenset(
    {
        "DependencyTimeoutException",
        "InternalFailure",
        "InternalServiceError",
        "KMSInternalException",
        "KeyUnavailableException",
        "RequestTimeout",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


class AwsClient:
    """One service in one region."""

    def __init__(self, service: str, uri: ProviderUri, limits: RemoteLimits) -> None:
        if not uri.target:
            raise ProviderError(f"{uri.scheme}: needs a region, as in {uri.scheme}:eu-central-1")
        endpoint = uri.options.get("endpoint")
        self.place = f"AWS {service} in {uri.target}"
        self._threads = WorkerThreads(uri.scheme, limits.concurrency)
        self._client = boto3.session.Session().client(
            service,
            region_name=uri.target,
            endpoint_url=require_private_way(uri.scheme, endpoint) if endpoint else None,
            config=Config(
                connect_timeout=limits.timeout_seconds,
                read_timeout=limits.timeout_seconds,
                retries={"total_max_attempts": 1},
                max_pool_connections=limits.concurrency,
            ),
        )

    async def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """The answer. Raises ``UnreachableError`` and ``ProviderError``, which name the error and quote nothing."""
        return await self._threads.run(self.call_blocking, operation, **arguments)

    def call_blocking(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """The same in the caller's thread."""
        method: Callable[..., dict[str, Any]] = getattr(self._client, operation)
        try:
            return method(**arguments)
        except ClientError as error:
            response: Any = error.response
            code, status = response["Error"]["Code"], response["ResponseMetadata"].get("HTTPStatusCode", 0)
            if code in _LATER or status >= 500:
                raise UnreachableError(code) from None
            raise AwsError(code, f"{self.place} refuses {operation}: {code}") from None
        except (NoCredentialsError, PartialCredentialsError):
            raise ProviderError(
                f"{self.place}: boto3 finds no credentials; give the service a role, or set AWS_PROFILE"
            ) from None
        except BotoCoreError as error:
            raise UnreachableError(type(error).__name__) from None

    def close(self) -> None:
        """Takes no more calls."""
        self._threads.close()
        self._client.close()


class AwsError(ProviderError):
    """A refusal, with the code that AWS gives it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
