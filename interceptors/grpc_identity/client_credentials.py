"""A service's tokens in its own name: what ``ServiceGrant`` asks, kept fresh."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from grpc_identity.channels import ChannelFactory
from grpc_identity.clock import Clock, monotonic_clock, wall_clock
from grpc_identity.token_grants import ClientAuthentication, Connection, ServiceGrant, authentication_of
from grpc_identity.token_source import ASK_TIMEOUT_SECONDS, TokenSource

if TYPE_CHECKING:
    import grpc

__all__ = ["ClientCredentials"]


class ClientCredentials(TokenSource):
    """Tokens of a service's own: for calls it makes in nobody's name.

    >>> ClientCredentials("id.example:443", client_id="billing", client_secret="s3cret", audience="orders")
    ClientCredentials('billing' at id.example:443)
    """

    def __init__(
        self,
        target: str,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        authentication: ClientAuthentication | None = None,
        audience: str | Collection[str],
        scopes: Collection[str] = (),
        credentials: grpc.ChannelCredentials | None = None,
        allow_plaintext: bool = False,
        timeout_seconds: float = ASK_TIMEOUT_SECONDS,
        clock: Clock = wall_clock,
        monotonic: Clock = monotonic_clock,
    ) -> None:
        connection = Connection(
            ChannelFactory(target, credentials, allow_plaintext),
            authentication_of(client_id, client_secret, authentication),
            timeout_seconds,
        )
        audiences = (audience,) if isinstance(audience, str) else tuple(audience)
        grant = ServiceGrant(connection, audience=audiences, scopes=tuple(scopes), wall=clock)
        name = f"{client_id!r} at {target}" if client_id else target
        super().__init__(grant, name=name, clock=clock, monotonic=monotonic)
