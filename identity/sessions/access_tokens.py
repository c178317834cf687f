"""Reading back our own access tokens, by the same rules by which verifiers read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from grpc_identity.claims import ACCESS_TOKEN_TYPE, check_claims, parse_claims
from grpc_identity.errors import TokenError
from grpc_identity.jwk import KeySet
from grpc_identity.jws import verify_compact
from identity.clock import Clock
from identity.store.decisions import PresentedToken
from identity.tokens.access_token import TokenId
from identity.tokens.family_id import FamilyId

# Tokens carry the store's time; it may be a little ahead of this server's.
CLOCK_SKEW_SECONDS = 5


@dataclass(frozen=True, slots=True)
class ReadAccessToken:
    """An access token of this service that has not expired."""

    subject: str
    client_id: str
    audience: tuple[str, ...]
    scopes: tuple[str, ...]
    roles: tuple[str, ...]
    family: FamilyId | None
    token_id: TokenId
    issued_at_seconds: int
    expires_at_seconds: int
    auth_time_seconds: int | None
    acr: str
    amr: tuple[str, ...]
    actors: tuple[str, ...]
    private: Mapping[str, object]

    @property
    def presented(self) -> PresentedToken:
        """The token, as the store knows it."""
        return PresentedToken(
            self.subject, self.family, self.client_id, self.token_id, self.expires_at_seconds
        )


@dataclass(frozen=True, slots=True)
class AccessTokenReader:
    """Verifies signature, issuer and times; for whom the token is, is the caller's business."""

    issuer: str
    keys: Callable[[], KeySet | None]
    clock: Clock

    def read(self, token: str) -> ReadAccessToken | None:
        """The token, or ``None`` for anything else."""
        keys = self.keys()
        if keys is None:
            return None
        try:
            claims = parse_claims(verify_compact(token, keys, typ=ACCESS_TOKEN_TYPE).payload)
            check_claims(
                claims,
                now_seconds=self.clock.now().timestamp(),
                issuer=self.issuer,
                audiences=claims.audience,
                leeway_seconds=CLOCK_SKEW_SECONDS,
            )
        except TokenError:
            return None
        token_id = TokenId.parse(claims.token_id)
        if token_id is None:
            return None
        return ReadAccessToken(
            subject=claims.subject,
            client_id=claims.client_id,
            audience=tuple(sorted(claims.audience)),
            scopes=tuple(sorted(claims.scopes)),
            roles=tuple(sorted(claims.roles)),
            family=FamilyId.parse(claims.session_id) if claims.session_id else None,
            token_id=token_id,
            issued_at_seconds=claims.issued_at_seconds,
            expires_at_seconds=claims.expires_at_seconds,
            auth_time_seconds=claims.auth_time_seconds,
            acr=claims.acr or "",
            amr=tuple(sorted(claims.amr)),
            actors=claims.actors,
            private=claims.private,
        )
