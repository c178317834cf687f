"""Decides about one issuer's tokens by what is revoked, and by how old that knowledge is."""

from __future__ import annotations

from typing import Protocol

from grpc_identity.errors import Reason, RevocationsNotHeldError, TokenError
from grpc_identity.principal import Principal
from grpc_identity.revocations import RevocationView, StaleRevocations

__all__ = ["AnswersAboutTokens", "RevocationGuard"]

_RETRY_AFTER_SECONDS = 1.0


class AnswersAboutTokens(Protocol):
    """Knows what the issuer has said about single tokens lately."""

    def answer(self, digest: bytes) -> tuple[bool, bool | None]:
        """Whether the issuer was asked lately, and whether the token is active; ``None``: it did not answer."""


class RevocationGuard:
    """``asks_for_age`` says whether ``check`` depends on the time, and not only on what is revoked."""

    __slots__ = ("_answers", "_issuer", "_max_age_seconds", "_stale", "asks_for_age", "view")

    def __init__(
        self,
        issuer: str,
        view: RevocationView,
        *,
        stale: StaleRevocations = StaleRevocations.SERVE,
        max_age_seconds: float = 0.0,
        answers: AnswersAboutTokens | None = None,
    ) -> None:
        self.view = view
        self.asks_for_age = stale is not StaleRevocations.SERVE
        self._issuer = issuer
        self._stale = stale
        self._max_age_seconds = max_age_seconds
        self._answers = answers

    def check(self, principal: Principal, kid: str, digest: bytes) -> None:
        """Raises ``TOKEN_REVOKED``, ``REVOCATIONS_UNAVAILABLE``, or that waiting for an answer may help."""
        why = self.view.why_revoked(principal, kid)
        if why is not None:
            raise TokenError(Reason.TOKEN_REVOKED, why)
        if self.asks_for_age and self.view.age_seconds > self._max_age_seconds:
            self._check_stale(digest)

    def _check_stale(self, digest: bytes) -> None:
        if self._answers is not None:
            was_asked, is_active = self._answers.answer(digest)
            if is_active:
                return
            if is_active is False:
                raise TokenError(Reason.TOKEN_REVOKED, "the issuer says that it is not active")
            if not was_asked:
                raise RevocationsNotHeldError(
                    Reason.REVOCATIONS_UNAVAILABLE,
                    f"the issuer {self._issuer} was not asked about this token yet",
                    issuer=self._issuer,
                    retry_after_seconds=_RETRY_AFTER_SECONDS,
                )
        raise TokenError(
            Reason.REVOCATIONS_UNAVAILABLE,
            f"nothing was heard of revocations of {self._issuer} for more than {self._max_age_seconds:g} s",
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        )
