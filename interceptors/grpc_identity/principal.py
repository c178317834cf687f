"""Who is calling: what a verified token says, without the token.

The principal of a call is held in a context variable that the interceptors set. It is there in the handler, in
coroutines and tasks started from it, and not in threads a handler starts by itself (copy the context for those).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from grpc_identity.claims import AccessTokenClaims
from grpc_identity.errors import NoPrincipalError
from grpc_identity.private_claims import NO_PRIVATE_CLAIMS, PrivateClaims

__all__ = ["Principal", "current_principal", "current_principal_or_none"]

MAX_KNOWN_MOMENTS = 1024


class Principal(NamedTuple):
    """A verified caller. Read it by name: fields may be added. (A tuple, because a frozen dataclass of this many fields takes
    as long to make as reading the claims does.)

    ``subject`` is the person or service the token speaks for; ``client_id`` is the program that was given it;
    ``actors`` are those who act for the subject, if any, the present one first. ``claims`` are the token's further claims,
    which have a meaning between issuer and service only: ``principal.claims["tenant"]``.
    """

    issuer: str
    subject: str
    client_id: str
    audience: frozenset[str]
    scopes: frozenset[str]
    roles: frozenset[str]
    session_id: str | None
    token_id: str
    issued_at: datetime
    expires_at: datetime
    auth_time: datetime | None = None
    acr: str | None = None
    amr: frozenset[str] = frozenset()
    actors: tuple[str, ...] = ()
    claims: PrivateClaims = NO_PRIVATE_CLAIMS

    @classmethod
    def from_claims(cls, claims: AccessTokenClaims) -> Principal:
        """The caller that verified and checked claims describe."""
        (
            issuer, subject, audience, client_id, token_id, issued_at, expires_at, _,
            scopes, session_id, roles, auth_time, acr, amr, actors, _, private,
        ) = claims  # fmt: skip
        return cls(
            issuer,
            subject,
            client_id,
            audience,
            scopes,
            roles,
            session_id,
            token_id,
            _moment(issued_at),
            _moment(expires_at),
            None if auth_time is None else _moment(auth_time),
            acr,
            amr,
            actors,
            private,
        )


class Caller:
    """A verified caller with the token it came with, which is for forwarding alone: nothing but ``reveal_token``
    shows it. ``metadata`` is that of the call, where its use is recorded."""

    __slots__ = ("_token", "metadata", "principal")

    def __init__(self, principal: Principal, token: str) -> None:
        self.principal = principal
        self.metadata: Iterable[tuple[str, Any]] | None = None
        self._token = token

    def __repr__(self) -> str:
        return f"Caller({self.principal!r})"

    def __reduce__(self) -> str:
        raise TypeError("a Caller stays in its process; send its principal")

    def reveal_token(self) -> str:
        """The token, to be sent on and never to be written down."""
        return self._token


@lru_cache(MAX_KNOWN_MOMENTS)
def _moment(seconds: int) -> datetime:
    """Tokens that come in together were issued in the same few seconds."""
    return datetime.fromtimestamp(seconds, UTC)


# Set by the interceptors alone, which is why it is not in `__all__`. One variable and not two: setting one costs more
# than all of what is compared to admit a call.
CURRENT_CALLER: ContextVar[Caller | None] = ContextVar("grpc_identity.caller", default=None)


def current_principal() -> Principal:
    """The caller of the RPC that is being handled.

    >>> current_principal()
    Traceback (most recent call last):
    ...
    grpc_identity.errors.NoPrincipalError: no verified caller here: ...
    """
    caller = CURRENT_CALLER.get()
    if caller is None:
        raise NoPrincipalError(
            "no verified caller here: the method is public and was called without a token, the server has no "
            "AuthInterceptor, or this is a thread or task that was not started from the handler"
        )
    return caller.principal


def current_principal_or_none() -> Principal | None:
    """The caller, or ``None`` in a public method that was called without a token, and outside of calls."""
    caller = CURRENT_CALLER.get()
    return None if caller is None else caller.principal
