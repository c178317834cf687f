"""What following revocations, and asking the other servers, needs of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from identity.verifiers.revocations import FeedPlace, Revocation


@dataclass(frozen=True, slots=True)
class Question:
    """A server asks all servers about their verifiers, and waits this long for the answers."""

    question_id: str
    wait_ms: int


@dataclass(frozen=True, slots=True)
class FeedStep:
    """What is new. Every revocation that was recorded before a question was asked is in the step of the question
    or before it. ``now_ms`` is the store's time.

    ``epoch`` changes when places in the feeds may have changed their meaning, so that this step may have left something out.
    Not ``is_complete``: a part of the store did not answer, and the other parts' revocations are here.
    """

    revocations: Sequence[Revocation]
    questions: Sequence[Question]
    now_ms: int
    epoch: str
    is_complete: bool = True


class RevocationFeed(Protocol):
    """The feed of every bucket, and the questions. Raises ``IdentityError`` when the store is away."""

    async def read(self, places: Mapping[int, FeedPlace], last_question: str, *, wait_ms: int) -> FeedStep:
        """What stands after these places; empty when nothing came within ``wait_ms``."""
        ...

    async def last_question(self) -> str:
        """The id of the newest question; older ones are not this server's business."""
        ...

    async def close(self) -> None:
        """Ends following."""
        ...


class InstanceBoard(Protocol):
    """Where servers find each other. Raises ``IdentityError`` when the store is away."""

    async def beat(self, instance_id: str) -> None:
        """Says that this server lives."""
        ...

    async def leave(self, instance_id: str) -> None:
        """Says that this server has ended."""
        ...

    async def instances(self) -> frozenset[str]:
        """The servers that live, as far as they have said so lately."""
        ...

    async def ask(self, wait_ms: int) -> str:
        """Puts a question to all servers, and returns its id."""
        ...

    async def answer(self, question_id: str, instance_id: str, answer: bytes) -> None:
        """Answers, or replaces the answer."""
        ...

    async def answers(self, question_id: str) -> Mapping[str, bytes]:
        """The answers so far, by server."""
        ...
