"""Which verifiers are connected to this server, and how far each has got.

A verifier that says goodbye is gone. One whose connection broke stays on the list as lost for a while: it may still
accept what has been revoked since, unless it turns up again, here or at another server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

LOST_FOR_SECONDS = 30.0
MAX_LOST = 10_000


@dataclass(slots=True, eq=False)
class ConnectedVerifier:
    """One stream of one verifier. ``applied_number`` is a number of this server's log."""

    client_id: str
    verifier_id: str
    verifier_version: str
    last_seen: float
    applied_number: int = -1
    applied_position: str = ""
    held_kids: tuple[str, ...] = ()
    lost_at: float | None = None


class Roster:
    """The verifiers of this server. ``monotonic`` counts seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._verifiers: dict[int, ConnectedVerifier] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._verifiers)

    @property
    def changed(self) -> asyncio.Event:
        """Is set at the next change, and never again."""
        return self._changed

    def join(self, client_id: str, verifier_id: str, verifier_version: str) -> ConnectedVerifier:
        """A verifier has connected; what was lost under its name is found again."""
        for key, known in list(self._verifiers.items()):
            if known.lost_at is not None and (known.client_id, known.verifier_id) == (client_id, verifier_id):
                del self._verifiers[key]
        verifier = ConnectedVerifier(client_id, verifier_id, verifier_version, self._monotonic())
        self._verifiers[id(verifier)] = verifier
        self._wake()
        return verifier

    def report(
        self, verifier: ConnectedVerifier, *, number: int, position: str, held_kids: Sequence[str]
    ) -> None:
        """A verifier says how far it has got."""
        verifier.last_seen = self._monotonic()
        verifier.applied_number = max(verifier.applied_number, number)
        verifier.applied_position = position
        verifier.held_kids = tuple(held_kids)
        self._wake()

    def leave(self, verifier: ConnectedVerifier, *, said_goodbye: bool) -> None:
        """A stream has ended."""
        if said_goodbye or len(self._verifiers) > MAX_LOST:
            self._verifiers.pop(id(verifier), None)
        else:
            verifier.lost_at = self._monotonic()
        self._wake()

    def verifiers(self) -> Sequence[ConnectedVerifier]:
        """Those that are connected, or were until lately."""
        horizon = self._monotonic() - LOST_FOR_SECONDS
        for key, verifier in list(self._verifiers.items()):
            if verifier.lost_at is not None and verifier.lost_at < horizon:
                del self._verifiers[key]
        return list(self._verifiers.values())

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
