"""Who knows what is true of a subject now, and what each answer means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Occasion(StrEnum):
    """Why the source is asked. The same names as in the proto."""

    ISSUE = "ISSUE"
    REFRESH = "REFRESH"


class Failure(StrEnum):
    """Why there is no answer."""

    DEADLINE = "deadline"
    UNREACHABLE = "unreachable"
    BAD_ANSWER = "bad_answer"
    CIRCUIT_OPEN = "circuit_open"


@dataclass(frozen=True, slots=True)
class Question:
    """Whom it is about, and for whose logs: client, session and trace."""

    subject: str
    occasion: Occasion
    client_id: str
    session_id: str
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Active:
    """The subject may have tokens. ``roles`` are sorted, ``None`` leaves them as they are; ``private`` is serialised."""

    roles: tuple[str, ...] | None
    private: str


@dataclass(frozen=True, slots=True)
class Disabled:
    """The subject may have no tokens."""


class SourceAwayError(Exception):
    """There is no answer that could be used. Asking again may help after ``retry_after_seconds``."""

    def __init__(self, failure: Failure, *, retry_after_seconds: float) -> None:
        super().__init__(f"the claims source is away: {failure}")
        self.failure = failure
        self.retry_after_seconds = retry_after_seconds


class ClaimsSource(Protocol):
    """Asks the owner of user data."""

    async def ask(self, question: Question) -> Active | Disabled:
        """What is true now. Takes no longer than its deadline. Raises ``SourceAwayError``."""
        ...
