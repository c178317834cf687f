"""The tokens of a session: what ``SessionGrant`` asks, kept fresh for a person's calls."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from grpc_identity.channels import ChannelFactory
from grpc_identity.clock import Clock, monotonic_clock, wall_clock
from grpc_identity.errors import SessionEndedError
from grpc_identity.token_grants import (
    ClientAuthentication,
    Connection,
    SessionGrant,
    authentication_of,
    held_token,
)
from grpc_identity.token_source import ASK_TIMEOUT_SECONDS, TokenSource, land
from grpc_identity.token_state import TokenState
from grpc_identity.token_storage import MemoryStorage, RefreshTokenStorage

if TYPE_CHECKING:
    import grpc

    from grpc_identity.v1.tokens_pb2 import TokenSet

__all__ = ["SessionTokens"]

_logger = logging.getLogger("grpc_identity.tokens")


class SessionTokens(TokenSource):
    """The tokens of a person's session, as a login service has started it.

    >>> from grpc_identity.v1.tokens_pb2 import TokenSet
    >>> tokens = SessionTokens(
    ...     "id.example:443", client_id="bff", client_secret="s3cret", tokens=TokenSet(refresh_token="gidr_...")
    ... )
    >>> tokens
    SessionTokens(session at id.example:443)

    Give the ``TokenSet`` of ``IssueTokens``, or nothing to go on with what ``storage`` holds. When the session is over,
    ``on_session_ended`` is called once, from a thread, and every ``token()`` raises the same ``SessionEndedError``, until
    ``begin`` is given the tokens of a new one.
    """

    _grant: SessionGrant

    def __init__(
        self,
        target: str,
        *,
        client_id: str | None = None,
        client_secret: str | None = None,
        authentication: ClientAuthentication | None = None,
        tokens: TokenSet | None = None,
        storage: RefreshTokenStorage | None = None,
        on_session_ended: Callable[[SessionEndedError], None] | None = None,
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
        grant = SessionGrant(connection, MemoryStorage() if storage is None else storage, wall=clock)
        super().__init__(grant, name=f"session at {target}", clock=clock, monotonic=monotonic)
        self._on_session_ended = on_session_ended
        if tokens is not None:
            self.begin(tokens)
        elif not grant.resume():
            raise ValueError("the storage holds no session; give the tokens of one")

    def begin(self, tokens: TokenSet) -> None:
        """Goes on with the session of these tokens, in place of the one before."""
        if not tokens.refresh_token:
            raise ValueError("these tokens are of no session: they have no refresh token")
        with self._wake:
            self._grant.begin(tokens.refresh_token, session_id=tokens.session_id)
            self._state = TokenState(monotonic=self._monotonic, wall=self._wall)
            if tokens.access_token:
                now = self._wall()
                held = held_token(tokens, now=now, given=True)
                self._state.obtained(held, monotonic_start=self._monotonic(), wall_start=now)
            flight = self._take_flight()
        land(flight)

    def adopt(self) -> None:
        """Says, after a fork, that this process is the one that goes on with the session."""
        self._grant.adopt()

    def _session_ended(self, error: SessionEndedError) -> None:
        _logger.warning("%s: %s", self._name, error)
        if self._on_session_ended is not None:
            try:
                self._on_session_ended(error)
            except Exception:
                _logger.exception("on_session_ended failed")
