"""What keeps the service from being ready, in words an operator can act on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """``name`` is stable (``store_evicts``); ``message`` says what is wrong and what to do. Unless it ``blocks``, the
    service is ready all the same, since most of what it is asked for it can do."""

    name: str
    message: str
    blocks: bool = True
