"""Sending on the token of the call that is being handled: the next service sees the same caller.

The token is kept in the context of the call by the server interceptor, like ``current_principal()``, and nowhere
else. The next service has to be one of the token's audiences. There is no second token, so a call that is refused is
not made again.
"""

from __future__ import annotations

from grpc_identity.errors import NoPrincipalError
from grpc_identity.principal import CURRENT_CALLER

__all__ = ["ForwardedToken"]


class ForwardedToken:
    """For ``client_interceptors``, in a handler or what it awaits.

    >>> import grpc
    >>> from grpc_identity.sync import client_interceptors
    >>> channel = grpc.intercept_channel(
    ...     grpc.insecure_channel("127.0.0.1:1"), *client_interceptors(ForwardedToken(), target="127.0.0.1:1")
    ... )
    """

    def token(self, *, timeout_seconds: float = 0) -> str:
        """The token of the call being handled. Raises ``NoPrincipalError`` where there is none."""
        del timeout_seconds
        caller = CURRENT_CALLER.get()
        if caller is None:
            raise NoPrincipalError(
                "no token to send on: this is not the handling of a call with a verified caller, or it is a thread "
                "or task that was not started from the handler"
            )
        return caller.reveal_token()

    async def token_async(self, *, timeout_seconds: float = 0) -> str:
        """As ``token``."""
        return self.token(timeout_seconds=timeout_seconds)

    def invalidate(self, access_token: str, *, certain: bool = True) -> None:
        """Nothing: there is no other token."""
