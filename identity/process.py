"""What every long-lived process of the service does alike: it runs tasks in the background, and ends when a signal asks it to."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

CANCEL_AGAIN_SECONDS = 0.2

_log = logging.getLogger(__name__)


class BackgroundTasks:
    """Tasks that run until the process ends. One that ends before is a defect, and is logged."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *coroutines: Coroutine[Any, Any, None]) -> None:
        """Runs them."""
        for coroutine in coroutines:
            task = asyncio.create_task(coroutine)
            task.add_done_callback(_log_crash)
            self._tasks.append(task)

    async def end(self) -> None:
        """Cancels them, and waits until they are done."""
        await cancelled(self._tasks)


@contextmanager
def end_signals() -> Iterator[asyncio.Event]:
    """Set by SIGTERM or SIGINT. Outside of the block a signal ends the process without waiting."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, asked.set)
    try:
        yield asked
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def done_before(coroutine: Coroutine[Any, Any, object], asked_to_end: asyncio.Event) -> bool:
    """Whether it was done before the process was asked to end; then it is cancelled."""
    doing, ending = asyncio.create_task(coroutine), asyncio.create_task(asked_to_end.wait())
    try:
        await asyncio.wait({doing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
        return doing.done()
    finally:
        await cancelled([doing, ending])


async def cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancels until all are done: before Python 3.12, ``asyncio.wait_for`` (which the store's client uses) loses a
    cancellation that comes in the moment in which what it waits for is there."""
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)


def _log_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.critical("a background task ended; restart the service", exc_info=task.exception())
