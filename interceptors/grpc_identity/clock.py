"""The only place of the package that reads a clock. Everything else takes the time as an argument."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Clock", "monotonic_clock", "wall_clock"]

Clock = Callable[[], float]
"""Seconds, since the epoch (``wall_clock``) or since some fixed moment (``monotonic_clock``)."""

wall_clock: Clock = time.time  # noqa: TID251 - the clock of the package
monotonic_clock: Clock = time.monotonic
