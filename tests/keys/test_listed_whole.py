"""Ids that the command line prints can be copied from a narrow terminal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from grpc_identity.v1 import identity_service_pb2 as pb


@pytest.mark.parametrize("columns", ["40", "80"])
async def test_ids_are_whole_in_a_narrow_terminal(
    service: Any, new_session: Any, run_identity: Callable[..., Awaitable[tuple[int, str]]], columns: str
) -> None:
    session = await new_session()
    (key,) = (await service.identity.GetJWKS(pb.GetJWKSRequest())).keys
    listings = (
        (("keys", "list"), key.kid),
        (("keys", "plan"), key.kid),
        (("sessions", "list", "alice"), session.tokens.session_id),
        (("clients", "list"), "admin"),
    )
    for command, wanted in listings:
        code, output = await run_identity(*command, COLUMNS=columns)
        assert code == 0, output
        assert wanted in output.split(), output
