"""What the log has at each level."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest

from identity.cli.logs import configure_logging

GRPC = logging.getLogger("grpc._cython.cygrpc")


async def test_at_debug_the_log_is_not_buried_under_what_grpc_says_of_its_event_loop(
    written_log: Any, service: Any, new_session: Any
) -> None:
    session = await new_session()
    for _ in range(10):
        await session.refresh()
    assert written_log.of("identity.auth") == []
    assert [line for line in written_log.of(GRPC.name) if line["level"] == "DEBUG"] == []
    assert written_log.text
    GRPC.info("worth it")
    assert [line["message"] for line in written_log.of(GRPC.name)] == ["worth it"]


@pytest.mark.parametrize(
    ("level", "told"), [("DEBUG", True), ("INFO", True), ("WARNING", False), ("ERROR", False)]
)
def test_grpc_is_no_louder_than_asked_for(level: str, told: bool, written_log: Any) -> None:
    del written_log
    stream = io.StringIO()
    configure_logging(level, "console", stream)
    GRPC.debug("chatter")
    GRPC.info("worth it")
    assert ("worth it" in stream.getvalue(), "chatter" in stream.getvalue()) == (told, False)
