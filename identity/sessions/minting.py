"""Turning a recorded decision into tokens. Nothing here decides; what is minted has been recorded before."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from identity.errors import IdentityError, Reason
from identity.keys.ports import NoActiveKeyError, Signer
from identity.tokens.access_token import (
    AccessTokenAssembler,
    TokenTooLargeError,
    compact,
)
from identity.tokens.lifetimes import refresh_after_ms


@dataclass(frozen=True, slots=True)
class MintedTokens:
    """What a caller gets. Times in milliseconds since the epoch; no session: no refresh token."""

    access_token: str = field(repr=False)
    access_token_expires_at_ms: int
    refresh_after_ms: int
    scopes: Sequence[str]
    refresh_token: str = field(default="", repr=False)
    refresh_token_expires_at_ms: int = 0
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class AccessTokenMint:
    """Signs access tokens with whatever key is active."""

    assembler: AccessTokenAssembler
    active_signer: Callable[[], Signer]

    def signer(self) -> Signer:
        """The key that signs now. Raises ``SIGNER_UNAVAILABLE`` when there is none."""
        try:
            return self.active_signer()
        except NoActiveKeyError as error:
            raise IdentityError(
                Reason.SIGNER_UNAVAILABLE, "No signing key is active.", retry_after_seconds=5.0
            ) from error

    def check_size(
        self, signer: Signer, session_claims: str, audience: Sequence[str], scope: str, token_id: str
    ) -> None:
        """Raises ``TOKEN_TOO_LARGE`` for claims that will not fit, before anything is recorded."""
        self._signing_input(signer, session_claims, audience, scope, 10**10, 0, token_id)

    async def mint(
        self,
        signer: Signer,
        *,
        session_claims: str,
        audience: Sequence[str],
        scope: str,
        now_ms: int,
        ttl_seconds: int,
        token_id: str,
    ) -> str:
        """A signed token, issued at ``now_ms``."""
        signing_input = self._signing_input(
            signer, session_claims, audience, scope, now_ms // 1000, ttl_seconds, token_id
        )
        return compact(signing_input, await signer.sign(signing_input))

    def _signing_input(
        self,
        signer: Signer,
        session_claims: str,
        audience: Sequence[str],
        scope: str,
        issued_at_seconds: int,
        ttl_seconds: int,
        token_id: str,
    ) -> bytes:
        try:
            return self.assembler.signing_input(
                algorithm=signer.algorithm,
                kid=signer.kid,
                session_claims=session_claims,
                audience=audience,
                scope=scope,
                issued_at_seconds=issued_at_seconds,
                ttl_seconds=ttl_seconds,
                token_id=token_id,
            )
        except TokenTooLargeError as error:
            raise IdentityError(
                Reason.TOKEN_TOO_LARGE, f"{error}; ask for fewer or shorter audiences, scopes and roles."
            ) from error


def jittered_refresh_after_ms(now_ms: int, ttl_seconds: int) -> int:
    """When the client should come back; a little different every time."""
    return refresh_after_ms(now_ms, ttl_seconds, random.random())
