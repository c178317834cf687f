"""A year of rotations, with clocks that differ, caches that are old, and keys that leak; an hour takes a millisecond.

Three services share a keyring. Ten verifiers trust what they last fetched, as long as they were told they may: five follow
a service and say what they hold, five poll by plain HTTP and ask again for a key they do not know.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from identity.audit.event import Circumstances
from identity.keys.administration import KeyAdministration
from identity.keys.custody import Custody
from identity.keys.file_store import FileKeyStore
from identity.keys.keyring import LOCAL, KeyState
from identity.keys.providers.local import LocalKeys
from identity.keys.schedule import MAX_JWKS_AGE, Schedule
from identity.keys.service import KeyService
from identity.keys.upkeep import FIRST_NUMBER

OPERATOR = Circumstances("admin", "test")
TOKEN_LIVES = timedelta(minutes=15)
LEEWAY = timedelta(seconds=30)
LOOK = timedelta(seconds=0.25)
COARSE, FINE = timedelta(minutes=14), timedelta(minutes=1)


@dataclass
class ClockOf:
    """A clock that is wrong by as much."""

    true: Any
    error: timedelta

    def now(self) -> datetime:
        moment: datetime = self.true.moment + self.error
        return moment


@dataclass(frozen=True)
class Token:
    kid: str
    issued_at: datetime
    expires_at: datetime


@dataclass
class Verifier:
    """Knows what it has fetched last, and from whom."""

    name: str
    clock: ClockOf
    service: KeyService
    follows: bool
    kids: frozenset[str] = frozenset()
    version: str = ""
    stale_at: datetime = field(default=datetime.min.replace(tzinfo=UTC))
    asked_again: int = 0

    def fetch(self) -> None:
        published = self.service.published()
        self.kids, self.version = frozenset(jwk["kid"] for jwk in published.jwks), published.version
        self.stale_at = self.clock.now() + timedelta(seconds=published.max_age_seconds)

    def look(self) -> None:
        """What is pushed, or due to be fetched."""
        if (self.follows and self.version != self.service.published().version) or (
            not self.follows and self.clock.now() >= self.stale_at
        ):
            self.fetch()

    def accepts(self, token: Token) -> bool:
        now = self.clock.now()
        if not token.issued_at - LEEWAY * 2 <= now <= token.expires_at + LEEWAY:
            return False
        if token.kid not in self.kids and not self.follows:
            self.asked_again += 1
            self.fetch()
        return token.kid in self.kids


@dataclass
class Followers:
    """Whom activation waits for."""

    verifiers: Sequence[Verifier]

    async def lacking(self, kid: str) -> Sequence[str]:
        return [item.name for item in self.verifiers if item.follows and kid not in item.kids]


@dataclass
class World:
    clock: Any
    services: Sequence[KeyService]
    verifiers: Sequence[Verifier]
    rng: random.Random
    revoked: dict[str, datetime] = field(default_factory=dict)
    tokens: list[Token] = field(default_factory=list)
    checked: set[str] = field(default_factory=set)
    verified: int = 0
    forged: int = 0
    emergency_at: datetime | None = None

    async def moment(self) -> bool:
        """Everybody looks, once and a quarter of a second later; whether the key that signs has changed."""
        before = {service.active_signer().kid for service in self.services}
        for service in self.rng.sample(self.services, len(self.services)):
            if await service.has_news():
                await service.tick()
            await self.issue(service)
        self.clock.moment += LOOK
        for service in self.services:
            if await service.has_news():
                await service.tick()
        for verifier in self.verifiers:
            verifier.look()
        after = {service.active_signer().kid for service in self.services}
        assert len(after) == 1, "not within a quarter of a second"
        await self.issue(*self.services)
        self.verify()
        return after != before

    async def issue(self, *services: KeyService) -> None:
        now = self.clock.moment
        for service in services:
            signer = service.active_signer()
            if signer.kid not in self.checked:
                self.checked.add(signer.kid)
                (jwk,) = [item for item in service.published().jwks if item["kid"] == signer.kid]
                public = jwt.PyJWK(dict(jwk))
                assert public.Algorithm.verify(b"input", public.key, await signer.sign(b"input"))
            self.tokens.append(Token(signer.kid, now, now + TOKEN_LIVES))

    def verify(self) -> None:
        now = self.clock.moment
        self.tokens = [token for token in self.tokens if now <= token.expires_at]
        for token in self.tokens:
            for verifier in self.verifiers:
                accepted = verifier.accepts(token)
                self.verified += 1
                assert accepted or token.kid in self.revoked, (verifier.name, token, now)
        # Who has stolen a key makes new tokens with it for ever, and is at it in every moment.
        for kid, revoked_at in self.revoked.items():
            for verifier in self.verifiers:
                if kid in verifier.kids:
                    bound = LOOK if verifier.follows else MAX_JWKS_AGE
                    assert now - revoked_at <= bound, (verifier.name, kid, now)
                    self.forged += 1
        self.tokens = list({(token.kid, token.expires_at): token for token in self.tokens}.values())


def eight_moments(rng: random.Random, began: datetime, days: int) -> list[datetime]:
    """When an operator does something, in the order of time."""
    return sorted(began + timedelta(days=rng.uniform(3, days - 3)) for _ in range(8))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("days", "errors_seconds"),
    [(365, (-30, 0, 30)), (60, (0, 0, 3600)), (60, (-3600, 0, 0))],
    ids=["a year, clocks all but right", "one clock an hour ahead", "one clock an hour behind"],
)
async def test_over_a_year_nobody_refuses_a_good_token_nor_accepts_one_of_a_revoked_key(
    tmp_path: Path, kek: Any, clock: Any, days: int, errors_seconds: tuple[int, ...]
) -> None:
    rng = random.Random(6)
    schedule = Schedule(sign_for=timedelta(days=9))

    def service_of(error: timedelta) -> KeyService:
        own_clock = ClockOf(clock, error)
        custody = Custody(kek, {LOCAL: LocalKeys()}, own_clock, "ES256")
        return KeyService(FileKeyStore(tmp_path / "keyring.json"), custody, schedule, own_clock)

    services = [service_of(timedelta(seconds=seconds)) for seconds in errors_seconds]
    verifiers = [
        Verifier(
            f"verifier-{number}",
            ClockOf(clock, timedelta(seconds=rng.uniform(-30, 30))),
            services[number % 3],
            number < 5,
        )
        for number in range(10)
    ]
    for service in services:
        await service.start()
        service.uptake = Followers(verifiers)
    for verifier in verifiers:
        verifier.fetch()
    world = World(clock, services, verifiers, rng)
    began, switches, asked_in_peace = clock.moment, 0, 0
    emergencies, planned = eight_moments(rng, began, days), eight_moments(rng, began, days)
    fine_until = began
    while clock.moment < began + timedelta(days=days):
        now = clock.moment
        operator = KeyAdministration(rng.choice(services))
        if emergencies and now >= emergencies[0]:
            emergencies.pop(0)
            stolen = services[0].active_signer().kid
            # Whoever was asked has done it; the others hear of it as of anything else.
            await operator.revoke(stolen, OPERATOR)
            world.revoked[stolen] = now
            world.emergency_at = now
            fine_until = now + timedelta(hours=2)
        if planned and now >= planned[0]:
            planned.pop(0)
            await operator.rotate(at_once=False, idempotency_key="", circumstances=OPERATOR)
        asked_before = sum(verifier.asked_again for verifier in verifiers)
        if await world.moment():
            switches += 1
            fine_until = max(fine_until, now + timedelta(hours=2))
        is_peace = world.emergency_at is None or now - world.emergency_at > MAX_JWKS_AGE
        if is_peace:
            asked_in_peace += sum(verifier.asked_again for verifier in verifiers) - asked_before
        due = any(
            key.state is KeyState.PENDING and key.activates_at - now < timedelta(hours=1)
            for key in services[0].keyring.keys
        )
        clock.moment = now + (FINE if due or now < fine_until else COARSE)
    assert switches > days / 9
    assert len(world.revoked) == 8
    # In a rotation that was not an emergency nobody ever met a key for which he had to ask.
    assert asked_in_peace == 0
    assert world.verified > 10_000 * days
    # Within the bound some were taken in: it is looked for where it happens.
    assert world.forged > 0
    replaced = services[0].refresh_token_secrets().active_id - FIRST_NUMBER
    assert replaced == (days - 1) // 90
    print(f"{switches} switches, {len(world.checked)} keys, {world.verified} verifications")
