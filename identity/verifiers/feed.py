"""Follows the store's revocations and this server's keys, and wakes whoever waits for news.

While the store is away nothing is said to be current: verifiers then notice by the silence, and their own policy
decides what that means.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from identity.errors import IdentityError
from identity.verifiers.ports import FeedStep, Question, RevocationFeed
from identity.verifiers.position import Position
from identity.verifiers.revocations import RevocationLog

READ_WAIT_MS = 1000
RETRY_SECONDS = 0.5
INCOMPLETE_PAUSE_SECONDS = 0.1
CURRENT_FOR_SECONDS = 3.0

_log = logging.getLogger(__name__)


class VerifierFeed:
    """What verifiers of this server are told. ``on_question`` is told of questions, once all that was recorded
    before them is in the log."""

    def __init__(self, source: RevocationFeed, instance_id: str, *, keys_version: Callable[[], str]) -> None:
        self.instance_id = instance_id
        self.log = RevocationLog()
        self.on_question: Callable[[Question], None] = _ignore
        self.closing = False
        self._source = source
        self._keys_version = keys_version
        self._known_keys = ""
        self._epoch = ""
        self._last_question = ""
        self._read_at = float("-inf")
        self._changed = asyncio.Event()

    @property
    def is_current(self) -> bool:
        """Whether the store was read lately, so that no news means that there is none."""
        return asyncio.get_running_loop().time() - self._read_at < CURRENT_FOR_SECONDS

    @property
    def position(self) -> Position:
        """The end of the log."""
        return Position(self.instance_id, self.log.last_number, self._epoch, dict(self.log.places))

    def can_resume(self, position: Position) -> bool:
        """Whether the places of a position still mean what they meant when it was written."""
        return bool(self._epoch) and position.epoch == self._epoch

    async def run(self) -> None:
        """Follows until cancelled."""
        while True:
            try:
                await self._follow()
            except IdentityError:
                _log.warning("the feed of revocations cannot be read; verifiers are told nothing meanwhile")
            except Exception:
                # Whatever it was, the next attempt may succeed; without this loop no revocation arrives any more.
                _log.exception("the feed of revocations cannot be read")
            await asyncio.sleep(RETRY_SECONDS)

    @property
    def changed(self) -> asyncio.Event:
        """Is set at the next change, and never again."""
        return self._changed

    def keys_changed(self) -> None:
        """Wakes those who wait: this server's keys are others now."""
        self._known_keys = self._keys_version()
        self._wake()

    def close(self) -> None:
        """Asks everyone who waits to end."""
        self.closing = True
        self._wake()

    async def _follow(self) -> None:
        self._last_question = self._last_question or await self._source.last_question()
        wait_ms = 0
        while True:
            step = await self._source.read(self.log.places, self._last_question, wait_ms=wait_ms)
            wait_ms = READ_WAIT_MS if step.epoch == self._epoch else 0
            if self._epoch and step.epoch != self._epoch:
                # The question that was read last may be lost, and its place be ahead of those to come: places go by a clock.
                newest = await self._source.last_question()
                self._last_question = min(self._last_question, newest, key=_place_of)
            self._take(step)
            if not step.is_complete:
                await asyncio.sleep(INCOMPLETE_PAUSE_SECONDS)

    def _take(self, step: FeedStep) -> None:
        for revocation in step.revocations:
            self.log.add(revocation)
        self.log.forget(step.now_ms)
        is_to_be_read_again = bool(self._epoch) and step.epoch != self._epoch
        self._epoch = step.epoch
        if is_to_be_read_again:
            # Places of the old epoch may be taken by other entries now; what is in the log stays revoked.
            self.log.places.clear()
        elif step.is_complete:
            self._read_at = asyncio.get_running_loop().time()
        keys_version = self._keys_version()
        if step.revocations or keys_version != self._known_keys:
            self._known_keys = keys_version
            self._wake()
        for question in () if is_to_be_read_again else step.questions:
            self._last_question = question.question_id
            self.on_question(question)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _place_of(question_id: str) -> tuple[int, ...]:
    return tuple(map(int, question_id.split("-")))


def _ignore(question: Question) -> None:
    del question
