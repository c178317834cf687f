"""The loops that tests run on: asyncio's, and for those that ask for it uvloop as well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A hook, for the ``conftest`` that imports it: those marked with ``loop_factories`` run on the ones they name."""
    marker = item.get_closest_marker("asyncio")
    named = marker.kwargs.get("loop_factories", ()) if marker is not None else ()
    return LOOPS if named else {"asyncio": LOOPS["asyncio"]}
