"""What is known to be revoked: the view of one issuer's revocations that a verifier decides by.

Pure but for a lock: no gRPC, no I/O, no clock of its own. Threads may read while one applies.

Rules:

- a session, a token (by ``jti``) and a key (by ``kid``) are revoked as such; a subject or a client up to a place in the
  issuer's count, which every ``jti`` carries: what was issued before is dead, what is issued after lives, and no
  clock is compared;
- an entry is kept until the last token it concerns has expired, and never taken back before;
- a ``jti`` without such a place is taken for one that was issued before;
- a view that would grow beyond its bound takes no more, and is not complete: its age is infinite from then on, and
  what that means is for ``StaleRevocations`` to say.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import ceil, inf
from threading import Lock
from typing import Any

from grpc_identity.clock import Clock, monotonic_clock
from grpc_identity.principal import Principal

__all__ = ["RevocationView", "Revoked", "StaleRevocations", "place_of"]

MAX_REVOCATIONS = 1_000_000
_PLACE_CHARS = 24
_PLACE_BYTES = 18
_GRAIN_SECONDS = 30


class StaleRevocations(Enum):
    """What to do with tokens while nothing is heard of revocations for ``max_revocation_age_seconds``."""

    SERVE = "serve"
    """Go on with what is known; a token that was revoked meanwhile is good until it expires."""
    REFUSE = "refuse"
    """Refuse every token of that issuer with ``REVOCATIONS_UNAVAILABLE``."""
    INTROSPECT = "introspect"
    """Ask the issuer about each token, and refuse those it cannot be asked about."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """One revocation, as the issuer tells it. Exactly one of the names is given. ``forget_at_seconds`` since the epoch.

    ``up_to`` goes with ``subject`` and ``client_id``: by bucket, the count up to which tokens are revoked.
    """

    forget_at_seconds: float
    session_id: str = ""
    token_id: str = ""
    subject: str = ""
    client_id: str = ""
    kid: str = ""
    up_to: Mapping[int, int] = field(default_factory=dict)


def place_of(token_id: str) -> tuple[int, int] | None:
    """Bucket and count that a ``jti`` of the identity server carries; ``None`` for any other."""
    if len(token_id) != _PLACE_CHARS:
        return None
    try:
        raw = urlsafe_b64decode(token_id)
    except ValueError:
        return None
    return (int.from_bytes(raw[:2]), int.from_bytes(raw[2:8])) if len(raw) == _PLACE_BYTES else None


@dataclass(frozen=True, slots=True)
class _CutOff:
    up_to: Mapping[int, int]
    grain: int


class RevocationView:
    """What is revoked, as far as it is known. ``version`` is another object after every change.

    >>> view = RevocationView()
    >>> view.apply([Revoked(session_id="s-1", forget_at_seconds=1000.0)])
    >>> len(view)
    1
    >>> view.forget(now_seconds=2000.0)
    >>> len(view)
    0
    """

    __slots__ = (
        "_clients",
        "_due",
        "_heard_at",
        "_kids",
        "_listeners",
        "_lock",
        "_max_entries",
        "_monotonic",
        "_sessions",
        "_subjects",
        "_tokens",
        "is_complete",
        "version",
    )

    def __init__(self, *, max_entries: int = MAX_REVOCATIONS, monotonic: Clock = monotonic_clock) -> None:
        self._max_entries = max_entries
        self._monotonic = monotonic
        self._lock = Lock()
        self._listeners: list[Callable[[], None]] = []
        # By name, each with the grain of time in which it may be forgotten.
        self._sessions: dict[str, int] = {}
        self._tokens: dict[str, int] = {}
        self._kids: dict[str, int] = {}
        self._subjects: dict[str, _CutOff] = {}
        self._clients: dict[str, _CutOff] = {}
        self._due: dict[int, list[tuple[dict[str, Any], str]]] = {}
        self._heard_at = -inf
        self.version: object = object()
        self.is_complete = True

    def __len__(self) -> int:
        kinds: tuple[dict[str, Any], ...] = (
            self._sessions, self._tokens, self._kids, self._subjects, self._clients,
        )  # fmt: skip
        return sum(len(kind) for kind in kinds)

    @property
    def age_seconds(self) -> float:
        """How long nothing has been heard; infinite before the first time, and while something is lacking."""
        return self._monotonic() - self._heard_at if self.is_complete else inf

    def heard(self) -> None:
        """The feed has said that this is all, up to now."""
        self._heard_at = self._monotonic()

    def start_over(self) -> None:
        """Everything that is revoked is about to be told, so that nothing lacks any more."""
        self.is_complete = True

    def apply(self, revocations: Iterable[Revoked]) -> None:
        """Takes in what is revoked; saying it again changes nothing."""
        with self._lock:
            for revoked in revocations:
                if len(self) >= self._max_entries:
                    self.is_complete = False
                    break
                self._add(revoked)
            self.version = object()
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Calls ``listener`` after something was revoked, from the thread that applies it."""
        with self._lock:
            self._listeners.append(listener)

    def forget(self, *, now_seconds: float) -> None:
        """Drops what concerns only tokens that have expired."""
        with self._lock:
            for grain in [grain for grain in self._due if grain * _GRAIN_SECONDS < now_seconds]:
                for kind, name in self._due.pop(grain):
                    known = kind.get(name)
                    # It may have been revoked anew since, and then it is due later.
                    if (known.grain if isinstance(known, _CutOff) else known) == grain:
                        del kind[name]

    def why_revoked(self, principal: Principal, kid: str) -> str | None:
        """What of a token is revoked, for the log; ``None`` if nothing is."""
        if principal.session_id in self._sessions:
            return "its session was revoked"
        if principal.token_id in self._tokens:
            return "the token was revoked"
        if kid in self._kids:
            return "its key was revoked"
        cut_off = self._subjects.get(principal.subject)
        if cut_off is not None and _is_cut_off(principal.token_id, cut_off):
            return "its subject's tokens were revoked"
        cut_off = self._clients.get(principal.client_id)
        if cut_off is not None and _is_cut_off(principal.token_id, cut_off):
            return "its client's tokens were revoked"
        return None

    def _add(self, revoked: Revoked) -> None:
        grain = ceil(revoked.forget_at_seconds / _GRAIN_SECONDS)
        for flat, name in (
            (self._sessions, revoked.session_id),
            (self._tokens, revoked.token_id),
            (self._kids, revoked.kid),
        ):
            if name and flat.get(name, -1) < grain:
                flat[name] = grain
                self._due.setdefault(grain, []).append((flat, name))
        for cut_offs, name in ((self._subjects, revoked.subject), (self._clients, revoked.client_id)):
            if name:
                known = cut_offs.get(name)
                up_to = _later(known.up_to, revoked.up_to) if known else dict(revoked.up_to)
                last_grain = max(grain, known.grain) if known else grain
                cut_offs[name] = _CutOff(up_to, last_grain)
                if known is None or last_grain > known.grain:
                    self._due.setdefault(last_grain, []).append((cut_offs, name))


def _later(known: Mapping[int, int], told: Mapping[int, int]) -> Mapping[int, int]:
    return {bucket: max(known.get(bucket, 0), told.get(bucket, 0)) for bucket in known.keys() | told.keys()}


def _is_cut_off(token_id: str, cut_off: _CutOff) -> bool:
    place = place_of(token_id)
    return place is None or place[1] <= cut_off.up_to.get(place[0], -1)
