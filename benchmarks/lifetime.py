"""No process of a run outlives it, however the run ends."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable

__all__ = ["end_with_parent"]


def end_with_parent(last_act: Callable[[], object] = lambda: None) -> None:
    """Ends this process when the one that started it is gone; ``last_act`` ends what this one has started."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        last_act()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
