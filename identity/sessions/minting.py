"""Turning a recorded decision into tokens. Nothing here decides; what is minted has been recorded before."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from identity.errors import IdentityError, Reason, no_signing_key
from identity.keys.ports import NoActiveKeyError, Signer, SignerUnavailableError
from identity.tokens.access_token import (
    EVENT_ID_BYTES,
    AccessTokenAssembler,
    TokenId,
    TokenTooLargeError,
    compact,
)
from identity.tokens.lifetimes import refresh_after_ms

# Every jti has the same length.
_ANY_TOKEN_ID = str(TokenId(0, 0, bytes(EVENT_ID_BYTES)))


@dataclass(frozen=True, slots=True)
class Recording:
    """Where and when the store has recorded the decision to give tokens."""

    bucket: int
    sequence: int
    event_id: bytes
    now_ms: int


@dataclass(frozen=True, slots=True)
class SessionTokens:
    """What belongs to a session and not to an access token."""

    session_id: str
    refresh_token: str = field(repr=False)
    refresh_token_expires_at_ms: int


@dataclass(frozen=True, slots=True)
class MintedTokens:
    """What a caller gets. Times in milliseconds since the epoch; ``session`` is ``None`` for a service token."""

    access_token: str = field(repr=False)
    access_token_expires_at_ms: int
    refresh_after_ms: int
    scopes: Sequence[str]
    session: SessionTokens | None


def _unseen(session_id: str) -> None:
    del session_id


@dataclass(frozen=True, slots=True)
class AccessTokenMint:
    """Signs access tokens with whatever key is active. ``saw_session`` hears of every session that gets one."""

    assembler: AccessTokenAssembler
    active_signer: Callable[[], Signer]
    saw_session: Callable[[str], None] = _unseen

    def signer(self) -> Signer:
        """The key that signs now. Raises ``SIGNER_UNAVAILABLE`` when there is none, or none that can be reached.

        Asked for before anything is recorded: a refresh token that is spent for an answer nobody gets is one whose
        owner may come back too late.
        """
        try:
            signer = self.active_signer()
            signer.check()
        except NoActiveKeyError as error:
            raise no_signing_key() from error
        except SignerUnavailableError as error:
            raise _unreachable(error) from error
        return signer

    def check_size(
        self, signer: Signer, session_claims: str, audience: Sequence[str], scopes: Sequence[str]
    ) -> None:
        """Raises ``TOKEN_TOO_LARGE`` for claims that will not fit, before anything is recorded."""
        scope = " ".join(scopes)
        self._signing_input(signer, session_claims, audience, scope, 10**10, 0, _ANY_TOKEN_ID)

    async def mint(
        self,
        signer: Signer,
        recording: Recording,
        *,
        session_claims: str,
        audience: Sequence[str],
        scopes: Sequence[str],
        ttl_seconds: int,
        session: SessionTokens | None,
    ) -> MintedTokens:
        """The tokens of a recorded decision, issued at the moment of it.

        Raises ``SIGNER_UNAVAILABLE``; the same call with its idempotency key finds the decision again.
        """
        if session is not None:
            self.saw_session(session.session_id)
        issued_at_seconds = recording.now_ms // 1000
        token_id = TokenId(recording.bucket, recording.sequence, recording.event_id)
        signing_input = self._signing_input(
            signer, session_claims, audience, " ".join(scopes), issued_at_seconds, ttl_seconds, str(token_id)
        )
        return MintedTokens(
            access_token=compact(signing_input, await _signature(signer, signing_input)),
            access_token_expires_at_ms=(issued_at_seconds + ttl_seconds) * 1000,
            refresh_after_ms=refresh_after_ms(recording.now_ms, ttl_seconds, random.random()),
            scopes=scopes,
            session=session,
        )

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


async def _signature(signer: Signer, signing_input: bytes) -> bytes:
    try:
        return await signer.sign(signing_input)
    except SignerUnavailableError as error:
        raise _unreachable(error) from error


def _unreachable(error: SignerUnavailableError) -> IdentityError:
    return IdentityError(
        Reason.SIGNER_UNAVAILABLE,
        "The signing key cannot be reached; retry with the same idempotency key.",
        retry_after_seconds=error.retry_after_seconds,
    )
