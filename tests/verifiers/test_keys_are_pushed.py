"""New keys reach verifiers at once, and keys that are withdrawn leave them, without a poll."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from grpc_identity import Issuer, Reason, TokenError, Verifier
from identity.app import IdentityServer

DAY = timedelta(days=1)


class MovableClock:
    """The server's clock, ahead of the machine's by as much as a test says."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead  # noqa: TID251 - moved by the test


async def test_keys_come_and_go_with_the_schedule_and_no_verifier_polls(
    service: Any, orders_client: None, new_session: Any, wait_until: Any
) -> None:
    clock = MovableClock()
    server = IdentityServer(service.settings, clock=clock)
    addresses = await server.start()
    verifier = Verifier(
        Issuer(
            "https://id.example",
            target=addresses.grpc_target,
            audience="orders",
            client_id="orders",
            client_secret=service.secrets["orders"],
        )
    )
    await asyncio.to_thread(verifier.start)
    try:
        first = verifier.held_kids("https://id.example")
        token = (await new_session()).tokens.access_token
        assert verifier.verify(token).subject == "alice"

        clock.ahead = 90 * DAY
        await server.keys.tick()
        await wait_until(lambda: len(verifier.held_kids("https://id.example")) == 2)
        assert set(first) < set(verifier.held_kids("https://id.example"))
        # A token that was remembered before the keys changed is still good: its key is.
        assert verifier.verify(token).subject == "alice"

        for _ in range(4):
            clock.ahead += DAY
            await server.keys.tick()
        await wait_until(lambda: set(first).isdisjoint(verifier.held_kids("https://id.example")))
        with pytest.raises(TokenError) as caught:
            verifier.verify(token)
        assert caught.value.reason is Reason.KEY_UNKNOWN
    finally:
        await asyncio.to_thread(verifier.close)
        await server.stop(0)
