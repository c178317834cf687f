"""How long after Revoke is called the first refusal comes, at every one of twenty verifiers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from grpc_identity import Reason, TokenError, Verifier
from grpc_identity.v1 import identity_service_pb2 as pb

VERIFIERS = 20
REVOCATIONS = 25
PROMISED_SECONDS = 1.0


async def test_a_revoked_session_is_refused_by_twenty_verifiers_within_a_second(
    service: Any, second_service: Any, new_session: Any, new_verifier: Any
) -> None:
    verifiers: list[Verifier] = [
        await new_verifier(at=(service, second_service)[number % 2], name=f"orders-{number}")
        for number in range(VERIFIERS)
    ]
    loop = asyncio.get_running_loop()
    latencies_seconds: list[float] = []

    async def told(verifier: Verifier, token: str) -> float:
        """The moment at which this verifier learns of it; an event, whoever's thread it comes from."""
        moment: asyncio.Future[float] = loop.create_future()

        def on_end(error: TokenError) -> None:
            assert error.reason is Reason.TOKEN_REVOKED
            loop.call_soon_threadsafe(moment.set_result, time.monotonic())

        lease = verifier.lease(verifier.verify(token), token, on_end)
        try:
            return await moment
        finally:
            verifier.leases.remove(lease)

    for number in range(REVOCATIONS):
        session = await new_session()
        token = session.tokens.access_token
        waiting = [asyncio.create_task(told(verifier, token)) for verifier in verifiers]
        await asyncio.sleep(0)  # lets each take its lease
        began = time.monotonic()
        by = (service, second_service)[number % 2]
        request = pb.RevokeRequest(session_id=session.tokens.session_id)
        await by.identity.Revoke(request, metadata=service.login)
        async with asyncio.timeout(30):
            moments = await asyncio.gather(*waiting)
        latencies_seconds += [moment - began for moment in moments]
        for verifier in verifiers:
            with pytest.raises(TokenError) as caught:
                verifier.verify(token)
            assert caught.value.reason is Reason.TOKEN_REVOKED
    latencies_seconds.sort()
    p99 = latencies_seconds[int(len(latencies_seconds) * 0.99)]
    assert p99 < PROMISED_SECONDS, f"p99 {p99:.3f} s, slowest {latencies_seconds[-1]:.3f} s"
