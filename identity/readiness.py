"""What keeps the service from being ready, in words an operator can act on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """``name`` is stable (``store_evicts``); ``message`` says what is wrong and what to do."""

    name: str
    message: str
