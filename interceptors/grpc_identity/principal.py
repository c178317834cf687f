"""Who is calling: what a verified token says, without the token.

The principal of a call is held in a context variable that the interceptors set. It is there in the handler, in
coroutines and tasks started from it, and not in threads a handler starts by itself (copy the context for those).
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from grpc_identity.claims import AccessTokenClaims
from grpc_identity.errors import NoPrincipalError

__all__ = ["Principal", "current_principal", "current_principal_or_none"]

MAX_KNOWN_MOMENTS = 1024


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller.

    ``subject`` is the person or service the token speaks for; ``client_id`` is the program that was given it;
    ``actors`` are those who act for the subject, if any, the present one first.
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

    @classmethod
    def from_claims(cls, claims: AccessTokenClaims) -> Principal:
        """The caller that verified and checked claims describe."""
        (
            issuer, subject, audience, client_id, token_id, issued_at, expires_at, _,
            scopes, session_id, roles, auth_time, acr, amr, actors, _,
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
        )


class BearerToken:
    """The token a caller was verified with; for forwarding alone, so nothing but ``reveal`` shows it.

    >>> BearerToken("eyJhbGciOiJFUzI1NiJ9...")
    BearerToken(...)
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "BearerToken(...)"

    def __reduce__(self) -> str:
        raise TypeError("a BearerToken stays in its process")

    def reveal(self) -> str:
        """The token, to be sent on and never to be written down."""
        return self._text


@lru_cache(MAX_KNOWN_MOMENTS)
def _moment(seconds: int) -> datetime:
    """Tokens that come in together were issued in the same few seconds."""
    return datetime.fromtimestamp(seconds, UTC)


# Set by the interceptors alone, which is why they are not in `__all__`.
CURRENT_BEARER: ContextVar[BearerToken | None] = ContextVar("grpc_identity.bearer", default=None)
CURRENT_PRINCIPAL: ContextVar[Principal | None] = ContextVar("grpc_identity.principal", default=None)


def current_principal() -> Principal:
    """The caller of the RPC that is being handled.

    >>> current_principal()
    Traceback (most recent call last):
    ...
    grpc_identity.errors.NoPrincipalError: no verified caller here: ...
    """
    principal = CURRENT_PRINCIPAL.get()
    if principal is None:
        raise NoPrincipalError(
            "no verified caller here: the method is public and was called without a token, the server has no "
            "AuthInterceptor, or this is a thread or task that was not started from the handler"
        )
    return principal


def current_principal_or_none() -> Principal | None:
    """The caller, or ``None`` in a public method that was called without a token, and outside of calls."""
    return CURRENT_PRINCIPAL.get()
