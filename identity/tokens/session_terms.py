"""What a session was granted when it started. It keeps that to its end, and many sessions are granted the same."""

from __future__ import annotations

from dataclasses import dataclass

from identity.tokens.lifetimes import ClientKind, SessionLifetime


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """``roles`` is a JSON array; a session may be given others while it lives."""

    client_id: str
    client_kind: ClientKind
    lifetime: SessionLifetime
    audience: tuple[str, ...]
    scopes: tuple[str, ...]
    roles: str = "[]"
    acr: str = ""
    amr: tuple[str, ...] = ()
