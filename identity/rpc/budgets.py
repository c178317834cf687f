"""What one client may have under way, and how often it may call: answered early, not slowly."""

from __future__ import annotations

import asyncio
from collections import Counter

from identity.clients.client import Client
from identity.errors import IdentityError, Reason

CONCURRENCY_RETRY_SECONDS = 0.2


class ClientBudgets:
    """Counts per client of this instance. Rate: a burst of one second's calls, then an even pace."""

    def __init__(self) -> None:
        self._under_way: Counter[str] = Counter()
        self._arrivals: dict[str, float] = {}

    @property
    def under_way(self) -> int:
        """Calls of all clients that are being answered."""
        return self._under_way.total()

    def start(self, client: Client) -> None:
        """Counts a call as under way until ``end``. Raises ``RATE_LIMITED``; then nothing was counted."""
        client_id, policy = client.client_id, client.policy
        now = asyncio.get_running_loop().time()
        arrival = max(self._arrivals.get(client_id, 0.0), now)
        interval = 1.0 / policy.calls_per_second
        wait = arrival - now - (1.0 - interval)
        if wait > 0:
            raise IdentityError(Reason.RATE_LIMITED, "This client calls too often.", retry_after_seconds=wait)
        if self._under_way[client_id] >= policy.concurrent_calls:
            raise IdentityError(
                Reason.RATE_LIMITED,
                "This client has too many calls under way.",
                retry_after_seconds=CONCURRENCY_RETRY_SECONDS,
            )
        self._arrivals[client_id] = arrival + interval
        self._under_way[client_id] += 1

    def end(self, client: Client) -> None:
        """The call is over."""
        self._under_way[client.client_id] -= 1
