"""No test of a sink sees the environment that it runs in; those that ask for it run on both loops."""

from __future__ import annotations

import asyncio
import os
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
    """Tests run on asyncio's loop; those marked with ``loop_factories`` on the ones they name."""
    marker = item.get_closest_marker("asyncio")
    named = marker.kwargs.get("loop_factories", ()) if marker is not None else ()
    return LOOPS if named else {"asyncio": LOOPS["asyncio"]}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
