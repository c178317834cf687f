"""Asks every server which verifiers it has and how far they have got.

A question goes to all servers through the store, after what is asked about was recorded there. Each server first
reads its feed up to the question, then answers with its verifiers, and answers anew when they have got further,
until all have or the time is over. Whoever asked counts what the servers that live have answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from identity.errors import IdentityError
from identity.verifiers.feed import VerifierFeed
from identity.verifiers.ports import InstanceBoard, Question
from identity.verifiers.roster import Roster

BEAT_SECONDS = 2.0
POLL_SECONDS = 0.01
POLL_SLOWER_FACTOR = 1.5
MAX_POLL_SECONDS = 0.1
GATHER_SECONDS = 0.01
LIST_WAIT_SECONDS = 2.0
ANSWER_GRACE_SECONDS = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class VerifierState:
    """A verifier, as its server sees it. ``has_applied``: all that was revoked before the question was asked."""

    client_id: str
    verifier_id: str
    verifier_version: str
    applied_position: str
    held_kids: Sequence[str]
    silent_seconds: float
    behind: int
    has_applied: bool
    is_connected: bool

    @property
    def name(self) -> str:
        """For people, and to tell verifiers apart."""
        return f"{self.client_id}/{self.verifier_id}"


@dataclass(frozen=True, slots=True)
class Roll:
    """What the servers have answered: their verifiers, and the keys that each publishes and can use. ``silent`` have not."""

    verifiers: Sequence[VerifierState]
    silent: frozenset[str]
    ready_keys: Mapping[str, Collection[str]]

    def lacking(self, kid: str) -> Sequence[str]:
        """The verifiers that do not hold a key, the servers that have not answered, and those that are not ready for it."""
        unready = {server for server, kids in self.ready_keys.items() if kid not in kids}
        lacking = sorted({state.name for state in self.verifiers if kid not in state.held_kids})
        return [*lacking, *_server_names(self.silent | unready)]

    def holding(self, kid: str) -> Sequence[str]:
        """The verifiers that hold a key."""
        return sorted({state.name for state in self.verifiers if kid in state.held_kids})


@dataclass(frozen=True, slots=True)
class Count:
    """How far a revocation has got."""

    applied: int
    connected: int
    pending: Sequence[str]


class Census:
    """Asks, and answers. ``ready_keys``: the ids of the keys that this server publishes and can use."""

    def __init__(
        self,
        board: InstanceBoard,
        feed: VerifierFeed,
        roster: Roster,
        *,
        ready_keys: Callable[[], Collection[str]],
    ) -> None:
        self._board = board
        self._feed = feed
        self._roster = roster
        self._ready_keys = ready_keys
        self._answering: set[asyncio.Task[None]] = set()
        feed.on_question = self._on_question

    async def run(self) -> None:
        """Keeps this server on the board until cancelled."""
        while True:
            with contextlib.suppress(IdentityError):
                await self._board.beat(self._feed.instance_id)
            await asyncio.sleep(BEAT_SECONDS)

    async def close(self) -> None:
        """Takes this server off the board."""
        for task in list(self._answering):
            task.cancel()
        with contextlib.suppress(IdentityError):
            await self._board.leave(self._feed.instance_id)

    async def wait_until_applied(self, wait_seconds: float) -> Count:
        """Returns once every verifier has applied all that was recorded up to now, or when the time is over."""
        roll = await self._ask(wait_seconds, until_applied=True)
        states = roll.verifiers
        pending = sorted({state.name for state in states if not state.has_applied})
        pending += _server_names(roll.silent)
        return Count(sum(state.has_applied for state in states), len(states), pending)

    async def verifiers(self) -> Sequence[VerifierState]:
        """The verifiers of all servers."""
        return sorted((await self.roll()).verifiers, key=lambda state: state.name)

    async def roll(self) -> Roll:
        """The verifiers of all servers, and which keys each server is ready for."""
        return await self._ask(LIST_WAIT_SECONDS, until_applied=False)

    async def lacking(self, kid: str) -> Sequence[str]:
        """See ``identity.keys.ports.Uptake``."""
        return (await self.roll()).lacking(kid)

    async def _ask(self, wait_seconds: float, *, until_applied: bool) -> Roll:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds
        wait_ms = int(wait_seconds * 1000) if until_applied else 0
        # This server is there, whether or not its last beat has been seen.
        asked = await self._board.instances() | {self._feed.instance_id}
        question_id = await self._board.ask(wait_ms)
        pause = POLL_SECONDS
        while True:
            answers = {
                instance_id: json.loads(answer)
                for instance_id, answer in (await self._board.answers(question_id)).items()
            }
            states = _merged(state for answer in answers.values() for state in _states(answer))
            ready_keys = {instance_id: answer["ready_keys"] for instance_id, answer in answers.items()}
            silent = asked - answers.keys()
            roll = Roll(states, silent, ready_keys)
            if not silent and (not until_applied or all(state.has_applied for state in states)):
                return roll
            # The last answers are written when the time is over, and should be among those that count.
            if loop.time() >= deadline + ANSWER_GRACE_SECONDS * until_applied:
                return roll
            await asyncio.sleep(pause)
            pause = min(pause * POLL_SLOWER_FACTOR, MAX_POLL_SECONDS)

    def _on_question(self, question: Question) -> None:
        task = asyncio.create_task(self._answer(question))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, question: Question) -> None:
        number = self._feed.log.last_number
        loop = asyncio.get_running_loop()
        deadline = loop.time() + question.wait_ms / 1000
        try:
            while True:
                changed = self._roster.changed
                states = self._states_at(number)
                answer = _serialised(states, self._ready_keys())
                await self._board.answer(question.question_id, self._feed.instance_id, answer)
                left_seconds = deadline - loop.time()
                if left_seconds <= 0 or all(state.has_applied for state in states):
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left_seconds):
                        await changed.wait()
                        # Verifiers apply at about the same time; one answer speaks for many.
                        await asyncio.sleep(GATHER_SECONDS)
        except IdentityError:
            _log.warning("a question about verifiers could not be answered: the store is away")

    def _states_at(self, number: int) -> Sequence[VerifierState]:
        now = asyncio.get_running_loop().time()
        last_number = self._feed.log.last_number
        return [
            VerifierState(
                client_id=verifier.client_id,
                verifier_id=verifier.verifier_id,
                verifier_version=verifier.verifier_version,
                applied_position=verifier.applied_position,
                held_kids=verifier.held_kids,
                silent_seconds=round(now - verifier.last_seen, 3),
                behind=last_number - max(verifier.applied_number, 0),
                has_applied=verifier.applied_number >= number and verifier.lost_at is None,
                is_connected=verifier.lost_at is None,
            )
            for verifier in self._roster.verifiers()
        ]


def _merged(states: Iterable[VerifierState]) -> Sequence[VerifierState]:
    """Without those that were lost at one server and have turned up at another."""
    all_states = list(states)
    found = {state.name for state in all_states if state.is_connected}
    return [state for state in all_states if state.is_connected or state.name not in found]


def _server_names(instance_ids: Iterable[str]) -> Sequence[str]:
    return [f"server:{instance_id}" for instance_id in sorted(instance_ids)]


def _serialised(states: Sequence[VerifierState], ready_keys: Collection[str]) -> bytes:
    answer = {"verifiers": [asdict(state) for state in states], "ready_keys": sorted(ready_keys)}
    return json.dumps(answer, separators=(",", ":")).encode()


def _states(answer: Mapping[str, Any]) -> Sequence[VerifierState]:
    return [VerifierState(**row) for row in answer["verifiers"]]
