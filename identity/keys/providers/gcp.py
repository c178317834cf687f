"""What the two providers at Google Cloud share: a channel, and which failures pass.

Who the service is, google-auth finds out in its usual order (environment, workload identity, metadata server). The clients' own
retries are off, because the deadline is kept here. ``endpoint=host:port`` is for a stand-in on this machine, in plain text
and without credentials.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

from grpc_identity.channels import stays_here
from identity.keys.ports import ProviderError
from identity.keys.providers.remote import RemoteLimits, UnreachableError
from identity.keys.providers.uri import ProviderUri

OPTIONS = ("endpoint", "prefix")
_LATER = (
    exceptions.Aborted,
    exceptions.Cancelled,
    exceptions.DeadlineExceeded,
    exceptions.InternalServerError,
    exceptions.ResourceExhausted,
    exceptions.RetryError,
    exceptions.ServiceUnavailable,
    exceptions.Unknown,
)


class GcpClient:
    """One service, by its generated asynchronous client; connects when first called, in the loop that calls."""

    def __init__(
        self,
        place: str,
        make: Callable[[Any], Any],
        transport: Callable[..., Any],
        uri: ProviderUri,
        limits: RemoteLimits,
    ) -> None:
        self._endpoint = uri.options.get("endpoint", "")
        if self._endpoint and not stays_here(self._endpoint):
            raise ProviderError(f"{uri.scheme}: endpoint= is for a stand-in on this machine only")
        self.place = place
        self._make = make
        self._transport = transport
        self._timeout_seconds = limits.timeout_seconds
        self._client: Any = None

    async def call(self, method: str, **request: Any) -> Any:
        """The answer. Raises ``UnreachableError`` and ``ProviderError``, which name the error and quote nothing."""
        try:
            if self._client is None:
                self._client = self._connected()
            return await getattr(self._client, method)(
                request=request, retry=None, timeout=self._timeout_seconds
            )
        except _LATER as error:
            raise UnreachableError(type(error).__name__) from None
        except exceptions.NotFound:
            raise GcpNotThereError(f"{self.place} does not have what {method} was asked for") from None
        except exceptions.FailedPrecondition:
            raise GcpNotNowError(f"{self.place} refuses {method} in the state that it is in") from None
        except exceptions.GoogleAPICallError as error:
            raise ProviderError(f"{self.place} refuses {method}: {type(error).__name__}") from None
        except DefaultCredentialsError:
            raise ProviderError(
                f"{self.place}: google-auth finds no credentials; give the service an account"
            ) from None
        except GoogleAuthError as error:
            raise UnreachableError(type(error).__name__) from None

    async def close(self) -> None:
        """Closes the channel."""
        if self._client is not None:
            await self._client.transport.close()

    def _connected(self) -> Any:
        if not self._endpoint:
            return self._make(None)
        return self._make(self._transport(channel=grpc.aio.insecure_channel(self._endpoint)))


class GcpNotThereError(ProviderError):
    """NOT_FOUND."""


class GcpNotNowError(ProviderError):
    """FAILED_PRECONDITION."""
