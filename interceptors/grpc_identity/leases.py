"""Calls that go on for longer than their token may: each long-lived call holds a lease, which ends when the token expires
or is revoked. Neither stack is known here; who takes a lease says what is to happen at its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from grpc_identity.errors import Reason, TokenError
from grpc_identity.principal import Principal
from grpc_identity.revocation_guard import RevocationGuard

__all__ = ["Lease", "Leases"]


class Lease:
    """One call. ``on_end`` is called at most once, by any thread, with the reason."""

    __slots__ = ("_on_end", "ended", "guard", "kid", "principal")

    def __init__(
        self,
        principal: Principal,
        kid: str,
        guard: RevocationGuard | None,
        on_end: Callable[[TokenError], None],
    ) -> None:
        self.principal = principal
        self.kid = kid
        self.guard = guard
        self.ended: TokenError | None = None
        self._on_end = on_end

    def end(self, error: TokenError) -> None:
        """Ends the lease."""
        if self.ended is None:
            self.ended = error
            self._on_end(error)

    def expire(self) -> None:
        """The token has expired."""
        self.end(TokenError(Reason.TOKEN_EXPIRED, "expired while the call went on"))


class Leases:
    """The leases of one verifier."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._leases: set[Lease] = set()

    def __len__(self) -> int:
        return len(self._leases)

    def add(self, lease: Lease) -> None:
        """Starts to watch over a lease, which ends at once if its token was revoked meanwhile."""
        with self._lock:
            self._leases.add(lease)
        self._look_at(lease)

    def remove(self, lease: Lease) -> None:
        """The call has ended."""
        with self._lock:
            self._leases.discard(lease)

    def revoked(self) -> None:
        """Something was revoked: ends what is concerned."""
        with self._lock:
            leases = list(self._leases)
        for lease in leases:
            self._look_at(lease)

    def _look_at(self, lease: Lease) -> None:
        if lease.guard is not None:
            why = lease.guard.view.why_revoked(lease.principal, lease.kid)
            if why is not None:
                lease.end(TokenError(Reason.TOKEN_REVOKED, why))
