"""Where a session's refresh token is kept. Behind ``RefreshTokenStorage``; memory unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["MemoryStorage", "RefreshTokenStorage", "StoredSession"]


@dataclass(frozen=True, slots=True)
class StoredSession:
    """What has to survive: the newest refresh token, and the seed of the session's idempotency keys.

    The key of a refresh follows from the seed and the token it spends. So it is the same on every repetition, after
    a crash between question and answer as well, and whoever has copied the token alone does not know it.
    """

    refresh_token: str = field(repr=False)
    key_seed: bytes = field(repr=False)


class RefreshTokenStorage(Protocol):
    """Keeps one session. Called by one thread at a time, which may block; errors may be of any type.

    If ``save`` fails the session goes on from memory, and is saved again after the next refresh.
    """

    def load(self) -> StoredSession | None:
        """What was saved last; ``None`` if nothing was, or it was cleared."""

    def save(self, session: StoredSession) -> None:
        """Replaces what was saved."""

    def clear(self) -> None:
        """Forgets it: the session is over. Nothing stored is no error."""


class MemoryStorage:
    """Keeps the session as long as the process lives.

    >>> storage = MemoryStorage()
    >>> storage.save(StoredSession("gidr_secret", b"seed"))
    >>> storage.load()
    StoredSession()
    """

    __slots__ = ("_session",)

    def __init__(self) -> None:
        self._session: StoredSession | None = None

    def load(self) -> StoredSession | None:
        """See ``RefreshTokenStorage``."""
        return self._session

    def save(self, session: StoredSession) -> None:
        """See ``RefreshTokenStorage``."""
        self._session = session

    def clear(self) -> None:
        """See ``RefreshTokenStorage``."""
        self._session = None
