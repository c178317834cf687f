"""Waiting for libraries that block, in a few threads of their own.

The loop's default threads are for short work of everybody; a key provider that hangs must not fill them. A call that
was given up goes on in its thread until the library returns, and holds up at most that thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class WorkerThreads:
    """At most ``count`` threads, made as they are needed."""

    def __init__(self, name: str, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What ``function`` returns or raises."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))

    def close(self) -> None:
        """Takes no more; does not wait for a library that hangs."""
        self._executor.shutdown(wait=False, cancel_futures=True)
