"""From a token to a ``Principal``, or to a ``TokenError`` that says why not. Knows nothing of gRPC, and never waits.

Order: form, header, form of the claims, issuer (exact), key, signature, audience, times, revocations. Of several
issuers only the keys of the one that the token names are tried.

A token that was verified is remembered until it expires or the keys of its issuer change, whichever is first. What is
revoked is looked up anew whenever that may have changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from grpc_identity.claims import (
    ACCESS_TOKEN_TYPE,
    MAX_LEEWAY_SECONDS,
    AccessTokenClaims,
    check_claims,
    parse_claims,
)
from grpc_identity.clock import Clock, wall_clock
from grpc_identity.errors import KeyNotHeldError, Reason, TokenError
from grpc_identity.jwk import Algorithm
from grpc_identity.jws import ALL_ALGORITHMS, MAX_TOKEN_BYTES, UnverifiedJws, parse_compact, verify_signature
from grpc_identity.principal import Principal
from grpc_identity.remembered import HeldKeys, Remembered, RememberedTokens, digest_of
from grpc_identity.revocation_guard import RevocationGuard
from grpc_identity.tally import Tally

__all__ = ["TokenVerifier", "TrustedIssuer"]

MAX_REMEMBERED_TOKENS = 10_000
_RETRY_AFTER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer, whose tokens are accepted if they name one of ``audiences``."""

    issuer: str
    audiences: frozenset[str]
    keys: HeldKeys
    algorithms: frozenset[Algorithm] = ALL_ALGORITHMS
    revocations: RevocationGuard | None = None


class TokenVerifier:
    """Verifies tokens with the keys that are held; safe to use from several threads.

    >>> from grpc_identity.testing import InMemoryIssuer
    >>> issuer = InMemoryIssuer(audience="orders")
    >>> Verifier(issuer.trusted()).verify(issuer.mint(subject="alice")).subject
    'alice'
    """

    def __init__(
        self,
        issuers: Sequence[TrustedIssuer],
        *,
        leeway_seconds: float = MAX_LEEWAY_SECONDS,
        max_remembered: int = MAX_REMEMBERED_TOKENS,
        clock: Clock = wall_clock,
    ) -> None:
        if not issuers:
            raise ValueError("name at least one issuer")
        if not 0 <= leeway_seconds <= MAX_LEEWAY_SECONDS:
            raise ValueError(f"leeway_seconds is {leeway_seconds}; 0 to {MAX_LEEWAY_SECONDS} are allowed")
        self._guards = {
            issuer.issuer: issuer.revocations for issuer in issuers if issuer.revocations is not None
        }
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        if len(self._issuers) != len(issuers):
            raise ValueError("an issuer is named twice; give it several audiences instead")
        self._leeway_seconds = leeway_seconds
        self._clock = clock
        self.tally = Tally()
        self._memory = RememberedTokens(max_remembered)

    def verify(self, token: str, audiences: frozenset[str] | None = None) -> Principal:
        """The caller whose token this is, from what is held in memory.

        ``audiences`` replace those its issuer is trusted for: the token must name one of them. Raises ``TokenError``; of
        that, ``NotHeldError`` where waiting may help.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenError(Reason.TOKEN_INVALID, f"longer than {MAX_TOKEN_BYTES} bytes")
        digest = digest_of(token)
        memory = self._memory
        found = memory.young.get(digest) or memory.get(digest)
        if found is not None and found.good_until > self._clock() and found.keys.current() is found.key_set:
            self.tally.remembered += 1
            guard = found.revocations
            if guard is not None and (guard.asks_for_age or guard.view.version is not found.revocations_seen):
                version = guard.view.version
                guard.check(found.principal, found.kid, digest)
                found.revocations_seen = version
            if audiences is None:
                if found.is_for_us:
                    return found.principal
            elif not audiences.isdisjoint(found.principal.audience):
                return found.principal
            raise TokenError(Reason.AUDIENCE_MISMATCH, "aud is for none of the method's audiences")
        began = perf_counter()
        principal = self._verify_unseen(token, digest, audiences)
        self.tally.verified(perf_counter() - began)
        return principal

    def _verify_unseen(self, token: str, digest: bytes, audiences: frozenset[str] | None) -> Principal:
        jws = parse_compact(token, typ=ACCESS_TOKEN_TYPE)
        claims = parse_claims(jws.payload)
        try:
            return self._verify_claims(jws, claims, digest, audiences)
        except TokenError as error:
            error.attempted_subject = claims.subject
            if isinstance(error, KeyNotHeldError):
                self._look_for_key(error)
            raise

    def _look_for_key(self, error: KeyNotHeldError) -> None:
        """For verifiers that can get keys: called before the refusal, and must not wait."""

    def _verify_claims(
        self, jws: UnverifiedJws, claims: AccessTokenClaims, digest: bytes, audiences: frozenset[str] | None
    ) -> Principal:
        issuer = self._issuers.get(claims.issuer)
        if issuer is None:
            raise TokenError(Reason.ISSUER_MISMATCH, "iss is none of the trusted issuers")
        if jws.algorithm not in issuer.algorithms:
            raise TokenError(Reason.TOKEN_INVALID, "the header's alg is not allowed for this issuer")
        key_set = issuer.keys.current()
        if key_set is None:
            raise KeyNotHeldError(
                Reason.KEYS_UNAVAILABLE,
                f"no keys of {issuer.issuer} that are fresh enough are held",
                issuer=issuer.issuer,
                key_set=None,
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        try:
            verify_signature(jws, key_set)
        except TokenError as error:
            if error.reason is Reason.KEY_UNKNOWN:
                raise KeyNotHeldError(
                    error.reason, error.detail, issuer=issuer.issuer, key_set=key_set
                ) from None
            raise
        check_claims(
            claims,
            now_seconds=self._clock(),
            issuer=issuer.issuer,
            audiences=issuer.audiences if audiences is None else audiences,
            leeway_seconds=self._leeway_seconds,
        )
        if claims.is_bound:
            # RFC 7800, section 3: taking such a token as a bearer token would undo what binds it.
            raise TokenError(Reason.TOKEN_INVALID, "bound to a key (cnf), which is not supported here")
        principal = Principal.from_claims(claims)
        guard, version = issuer.revocations, None
        if guard is not None:
            version = guard.view.version
            guard.check(principal, jws.kid or "", digest)
        good_until = claims.expires_at_seconds + self._leeway_seconds
        self._memory.put(
            digest,
            Remembered(
                principal,
                good_until,
                issuer.keys,
                key_set,
                jws.kid or "",
                not issuer.audiences.isdisjoint(claims.audience),
                guard,
                version,
            ),
        )
        return principal
