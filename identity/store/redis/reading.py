"""``SessionReader`` on Redis or Valkey: looks, and changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from identity.audit.event import EndUser
from identity.store.ports import (
    Ending,
    EndReason,
    FamilyState,
    Lineage,
    PresentedToken,
    SpendVerdict,
)
from identity.store.redis.scripted import ScriptedStore
from identity.tokens.family import Step
from identity.tokens.family_id import FamilyId, subject_tag
from identity.tokens.lifetimes import ClientKind

_STATE_FIELDS = (
    "secret", "subject", "client", "kind", "generation", "created", "used",
    "expiry", "idle", "scope", "audience", "user", "sequence", "revoked",
)  # fmt: skip
_ENDING_FIELDS = ("revoked", "ended", "cause", "by")


class RedisSessionReader(ScriptedStore):
    """Families with their cut-offs applied."""

    async def find_family(self, family: FamilyId) -> FamilyState | None:
        """See ``SessionReader``."""
        bucket = self._keys.of_family(family)
        fields, subject_cut_off, now_ms = await asyncio.gather(
            self._connection.command("HMGET", bucket.family(family), *_STATE_FIELDS),
            self._connection.command("HGET", bucket.subject(family.subject_tag), "sequence"),
            self._now_ms(bucket),
        )
        if fields[0] is None:
            return None
        client_cut_off = await self._connection.command("HGET", bucket.client(fields[2].decode()), "sequence")
        return _family_state(family, fields, (subject_cut_off, client_cut_off), now_ms)

    async def explain_family(self, family: FamilyId) -> Lineage | None:
        """See ``SessionReader``."""
        state = await self.find_family(family)
        if state is None:
            return None
        bucket = self._keys.of_family(family)
        stored, of_subject, of_client = await asyncio.gather(
            self._connection.command("HMGET", bucket.family(family), *_ENDING_FIELDS, "steps"),
            self._connection.command(
                "HMGET", bucket.subject(family.subject_tag), *_ENDING_FIELDS[1:], "sequence"
            ),
            self._connection.command(
                "HMGET", bucket.client(state.client_id), *_ENDING_FIELDS[1:], "sequence"
            ),
        )
        earlier, *steps = (stored[4] or b"0").decode().split()
        return Lineage(
            state,
            _ending(state, stored, of_subject, of_client),
            tuple(read_step(text) for text in steps),
            int(earlier),
        )

    async def is_access_token_denied(self, token: PresentedToken) -> bool:
        """See ``SessionReader``."""
        family, bucket = token.family, self._bucket_of_token(token)
        denied, client_cut_off, subject_cut_offs, state = await asyncio.gather(
            self._connection.command("EXISTS", bucket.denied_token(str(token.token_id))),
            self._connection.command("HGET", bucket.client(token.client_id), "sequence"),
            self._connection.command(
                "HMGET", bucket.subject(token.subject_tag), "sequence", "access_sequence"
            ),
            self.find_family(family) if family else _nothing(),
        )
        if denied or (family is not None and (state is None or state.ended is SpendVerdict.REVOKED)):
            return True
        cut_offs = [int(cut_off) for cut_off in (client_cut_off, *subject_cut_offs) if cut_off is not None]
        return any(token.token_id.sequence <= cut_off for cut_off in cut_offs)

    async def list_families(self, subject: str, *, offset: int, limit: int) -> Sequence[FamilyState]:
        """See ``SessionReader``."""
        tag = subject_tag(subject)
        bucket = self._keys.of_tag(tag)
        names, subject_cut_off, now_ms = await asyncio.gather(
            self._connection.command("ZRANGE", bucket.families(tag), offset, offset + limit - 1, "REV"),
            self._connection.command("HGET", bucket.subject(tag), "sequence"),
            self._now_ms(bucket),
        )
        families = [parsed for name in names if (parsed := FamilyId.parse(name.decode())) is not None]
        rows = await asyncio.gather(
            *(self._connection.command("HMGET", bucket.family(family), *_STATE_FIELDS) for family in families)
        )
        client_ids = sorted({row[2].decode() for row in rows if row[0] is not None})
        cut_offs = await asyncio.gather(
            *(self._connection.command("HGET", bucket.client(name), "sequence") for name in client_ids)
        )
        client_cut_offs = dict(zip(client_ids, cut_offs, strict=True))
        return [
            _family_state(family, row, (subject_cut_off, client_cut_offs[row[2].decode()]), now_ms)
            for family, row in zip(families, rows, strict=True)
            if row[0] is not None
        ]


async def _nothing() -> None:
    return None


def _family_state(
    family: FamilyId, row: Sequence[Any], cut_offs: Sequence[bytes | None], now_ms: int
) -> FamilyState:
    (
        secret,
        subject,
        client,
        kind,
        generation,
        created,
        used,
        expiry,
        idle,
        scope,
        audience,
        user,
        started,
        revoked,
    ) = row
    is_cut_off = any(cut_off is not None and int(started) <= int(cut_off) for cut_off in cut_offs)
    is_expired = now_ms >= min(int(expiry), int(used) + int(idle))
    end_user = json.loads(user)
    return FamilyState(
        family=family,
        family_secret_hash=secret,
        subject=subject.decode(),
        client_id=client.decode(),
        client_kind=ClientKind(kind.decode()),
        generation=int(generation),
        created_ms=int(created),
        last_used_ms=int(used),
        absolute_expiry_ms=int(expiry),
        idle_ms=int(idle),
        scope=scope.decode(),
        audience=audience.decode(),
        end_user=EndUser(end_user.get("ip", ""), end_user.get("ua", ""), end_user.get("device", "")),
        started_at_sequence=int(started),
        ended=(
            SpendVerdict.REVOKED
            if revoked is not None or is_cut_off
            else SpendVerdict.EXPIRED
            if is_expired
            else None
        ),
        now_ms=now_ms,
    )


def _ending(
    state: FamilyState, stored: Sequence[Any], of_subject: Sequence[Any], of_client: Sequence[Any]
) -> Ending | None:
    if stored[0] is not None:
        return _told(EndReason(stored[0].decode()), stored[1:4])
    for reason, (*told, sequence) in (
        (EndReason.SUBJECT_CUTOFF, of_subject),
        (EndReason.CLIENT_CUTOFF, of_client),
    ):
        if sequence is not None and state.started_at_sequence <= int(sequence):
            if told[1] == EndReason.CLIENT_DISABLED.encode():
                return _told(EndReason.CLIENT_DISABLED, (told[0], None, told[2]))
            return _told(reason, told)
    idle_end_ms = state.last_used_ms + state.idle_ms
    if state.now_ms < min(state.absolute_expiry_ms, idle_end_ms):
        return None
    if state.absolute_expiry_ms <= idle_end_ms:
        return Ending(EndReason.EXPIRED_ABSOLUTE, state.absolute_expiry_ms)
    return Ending(EndReason.EXPIRED_IDLE, idle_end_ms)


def _told(reason: EndReason, told: Sequence[bytes | None]) -> Ending:
    at_ms, cause, client_id = told
    return Ending(reason, int(at_ms or 0), (cause or b"").decode(), (client_id or b"").decode())


def read_step(text: str) -> Step:
    """A step as the script has written it."""
    generation, spent_ms, ip_address, retries, recovered = text.split("|")
    return Step(int(generation), int(spent_ms), ip_address, int(retries), recovered == "R")
