"""What becomes of a presented refresh token: the rules, as a pure function.

This is the specification of the script that decides inside the store (``identity/store/redis/scripts/spend.lua``). It
decides nothing at run time; a stateful test walks both through the same histories, and they agree in every
answer and in all that is stored. The first row that fits is the answer (RFC 9700, section 4.14.2):

=================================  ====================================================  ==================
presented                          stored                                                verdict
=================================  ====================================================  ==================
anything                           no such family, or another family secret              ``UNKNOWN``
by another client                  anything                                              ``WRONG_CLIENT``
anything                           the family, its subject or its client was revoked     ``REVOKED``
anything                           past the absolute or the idle expiry                  ``EXPIRED``
generation g                       current g                                             ``ROTATED``
generation g+k, k within bounds    current g, used in the recovery window: the store     ``RECOVERED``
                                   lost writes
generation g+k, k beyond           current g                                             ``UNKNOWN``
generation g-1                     current g, rotated with the same idempotency key      ``REPEATED``
                                   less than the retry window ago
generation g-1                     current g, rotated without a key, less than the       ``REPEATED``
                                   leeway ago
any older, otherwise               current g                                             ``REUSED``, or where the
                                                                                         client's policy only
                                                                                         reports: ``REPORTED``
=================================  ====================================================  ==================

A theft (``WRONG_CLIENT``, ``REUSED``) ends the family, unless it had ended before. What would succeed is then held
against the scopes and audiences of the family, which only ever narrow (``SCOPE_EXCEEDED``, ``AUDIENCE_EXCEEDED``), and
against the limits (``RATE_LIMITED``): a limit never hides a theft. A refusal counts against the budget of failures of
the end user's address, and beyond that says ``RATE_LIMITED``, whatever was wrong.

Times are milliseconds of the store's clock.

>>> family = Family(b"hash", "web", 0, b"", 0, 0, 10_000, 5_000, 1)
>>> shown = Presentation(b"hash", "web", 0)
>>> decision = decide(family, shown, RULES, now_ms=1_000)
>>> decision.verdict, decision.family.generation
('ROTATED', 1)
>>> decide(decision.family, shown, RULES, now_ms=60_000).verdict
'EXPIRED'
>>> decide(Family(b"hash", "web", 1, b"", 0, 0, 90_000, 90_000, 1), shown, RULES, now_ms=60_000).verdict
'REUSED'
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

__all__ = [
    "MINUTE_MS",
    "RULES",
    "Budget",
    "Decision",
    "Family",
    "Presentation",
    "Rules",
    "Step",
    "Verdict",
    "decide",
]

Verdict: TypeAlias = Literal[
    "UNKNOWN",
    "WRONG_CLIENT",
    "REVOKED",
    "EXPIRED",
    "REUSED",
    "SCOPE_EXCEEDED",
    "AUDIENCE_EXCEEDED",
    "RATE_LIMITED",
    "ROTATED",
    "REPEATED",
    "RECOVERED",
    "REPORTED",
]

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Rules:
    """What may differ from one installation or client to the next."""

    retry_window_ms: int = 120_000
    leeway_ms: int = 10_000
    max_fast_forward: int = 64
    max_steps: int = 8
    recovery_window_ms: int = 24 * 3600 * 1000
    per_family: int = 5
    address_successes: int = 300
    address_failures: int = 30


RULES = Rules()


@dataclass(frozen=True, slots=True)
class Budget:
    """Calls per minute, as a generic cell rate (ITU-T I.371): some at once, then one each time a share has passed."""

    arrival_ms: float = 0.0

    def step(self, per_minute: int, now_ms: int) -> tuple[Budget, int]:
        """The budget after one call, and how many milliseconds to wait; a call that has to wait takes nothing."""
        interval = MINUTE_MS / per_minute
        arrival = max(self.arrival_ms, now_ms)
        wait = arrival - now_ms - interval * (per_minute - 1)
        if wait > 0:
            return Budget(arrival), -int(-wait // 1)
        return Budget(arrival + interval), 0

    def free_at_ms(self, per_minute: int) -> int:
        """When the next call need not wait."""
        return int(self.arrival_ms - MINUTE_MS / per_minute * (per_minute - 1))


@dataclass(frozen=True, slots=True)
class Step:
    """One generation of a session, from when it was given until it was spent."""

    generation: int
    spent_seconds: int
    ip_address: str
    retries: int = 0
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """A session. ``rotation_key`` is the digest of the idempotency key of the last rotation, empty without one."""

    secret_hash: bytes = field(repr=False)
    client_id: str
    generation: int
    rotation_key: bytes
    rotated_ms: int
    used_ms: int
    expires_ms: int
    idle_ms: int
    started_at_sequence: int
    scopes: frozenset[str] = frozenset()
    audience: frozenset[str] = frozenset()
    revoked: str | None = None
    budget: Budget = Budget()
    steps: tuple[Step, ...] = ()
    earlier_steps: int = 0

    def with_step(self, step: Step, max_steps: int) -> Family:
        """The family with one more step in its lineage, of which the last are kept and those before counted."""
        dropped = max(0, len(self.steps) + 1 - max_steps)
        return replace(self, steps=(*self.steps, step)[dropped:], earlier_steps=self.earlier_steps + dropped)

    def with_retry(self) -> Family:
        """The family with one more answer repeated."""
        if not self.steps:
            return self
        last = replace(self.steps[-1], retries=self.steps[-1].retries + 1)
        return replace(self, steps=(*self.steps[:-1], last))


@dataclass(frozen=True, slots=True)
class Presentation:
    """A refresh token whose MAC was good, and the call it came with."""

    secret_hash: bytes = field(repr=False)
    client_id: str
    generation: int
    idempotency_key: bytes = b""
    scopes: frozenset[str] = frozenset()
    audience: frozenset[str] = frozenset()
    ip_address: str = ""
    reuse_is_reported: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """``family`` as it is from now on; ``address`` are the budgets of successes and failures, ``None`` for no address."""

    verdict: Verdict
    family: Family | None
    address: tuple[Budget, Budget] | None
    retry_after_ms: int = 0


def decide(
    family: Family | None,
    shown: Presentation,
    rules: Rules,
    *,
    now_ms: int,
    subject_cut_off: int = -1,
    client_cut_off: int = -1,
    address: tuple[Budget, Budget] | None = None,
) -> Decision:
    """The answer, and what is stored from now on. A cut-off is a sequence number: what started up to there is dead."""
    if family is None or family.secret_hash != shown.secret_hash:
        return _refused("UNKNOWN", family, address, rules, now_ms)
    if family.client_id != shown.client_id:
        return _theft("WRONG_CLIENT", family, address, rules, now_ms)
    if family.revoked or family.started_at_sequence <= max(subject_cut_off, client_cut_off):
        return _refused("REVOKED", family, address, rules, now_ms)
    if now_ms >= min(family.expires_ms, family.used_ms + family.idle_ms):
        return _refused("EXPIRED", family, address, rules, now_ms)
    verdict, live = _by_generation(family, shown, rules, now_ms)
    if verdict == "UNKNOWN":
        return _refused("UNKNOWN", family, address, rules, now_ms)
    if verdict == "REUSED":
        return _theft("REUSED", family, address, rules, now_ms)
    if not shown.scopes <= family.scopes:
        return _refused("SCOPE_EXCEEDED", family, address, rules, now_ms)
    if not shown.audience <= family.audience:
        return _refused("AUDIENCE_EXCEEDED", family, address, rules, now_ms)
    return _within_limits(verdict, live, family, shown, address, rules, now_ms)


def _by_generation(family: Family, shown: Presentation, rules: Rules, now_ms: int) -> tuple[Verdict, int]:
    ahead = shown.generation - family.generation
    if ahead == 0:
        return "ROTATED", family.generation + 1
    if ahead > 0:
        is_near = ahead <= rules.max_fast_forward and now_ms < family.used_ms + rules.recovery_window_ms
        return ("RECOVERED", shown.generation + 1) if is_near else ("UNKNOWN", 0)
    age_ms = now_ms - family.rotated_ms
    if family.rotation_key:
        may_repeat = family.rotation_key == shown.idempotency_key and age_ms < rules.retry_window_ms
    else:
        may_repeat = age_ms < rules.leeway_ms
    if ahead == -1 and may_repeat:
        return "REPEATED", family.generation
    return ("REPORTED", family.generation) if shown.reuse_is_reported else ("REUSED", 0)


def _within_limits(
    verdict: Verdict,
    live: int,
    family: Family,
    shown: Presentation,
    address: tuple[Budget, Budget] | None,
    rules: Rules,
    now_ms: int,
) -> Decision:
    budget, wait_ms = family.budget.step(rules.per_family, now_ms)
    if wait_ms == 0 and address is not None:
        successes, wait_ms = address[0].step(rules.address_successes, now_ms)
        if wait_ms == 0:
            address = (successes, address[1])
    if wait_ms:
        return Decision("RATE_LIMITED", family, address, wait_ms)
    family = replace(family, budget=budget, used_ms=now_ms)
    if verdict == "REPEATED":
        family = family.with_retry()
    elif verdict != "REPORTED":
        step = Step(shown.generation, now_ms // 1000, shown.ip_address, recovered=verdict == "RECOVERED")
        family = family.with_step(step, rules.max_steps)
        family = replace(family, generation=live, rotation_key=shown.idempotency_key, rotated_ms=now_ms)
    return Decision(verdict, family, address)


def _theft(
    verdict: Verdict, family: Family, address: tuple[Budget, Budget] | None, rules: Rules, now_ms: int
) -> Decision:
    if family.revoked:
        return _refused(verdict, family, address, rules, now_ms)
    reason = "WRONG_CLIENT" if verdict == "WRONG_CLIENT" else "REUSE_DETECTED"
    return Decision(verdict, replace(family, revoked=reason), address)


def _refused(
    verdict: Verdict, family: Family | None, address: tuple[Budget, Budget] | None, rules: Rules, now_ms: int
) -> Decision:
    if address is None:
        return Decision(verdict, family, None)
    failures, wait_ms = address[1].step(rules.address_failures, now_ms)
    address = (address[0], failures)
    if wait_ms:
        return Decision("RATE_LIMITED", family, address, wait_ms)
    return Decision(verdict, family, address)
