"""How families lie in the store: what ``scripts/family.lua`` writes, read; and what many of them share, written.

A family is one string of numbers of fixed size and texts behind their length. Its terms and the user agent are kept
once a bucket under their digest, because a million sessions of one application have the same few.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import TypeAlias

from identity.store.decisions import Ending, EndReason
from identity.tokens.family import Step
from identity.tokens.family_id import NAME_CHARS, FamilyId, SubjectTag
from identity.tokens.lifetimes import ClientKind, SessionLifetime
from identity.tokens.session_terms import SessionTerms

IDEMPOTENCY_DIGEST_BYTES = 8

_LAYOUT = 1
_TERMS_DIGEST_BYTES = 10
# Only shown and compared with the one before.
_AGENT_DIGEST_BYTES = 6
_FIXED = Struct(">B16s10s6sIIH5sII")
_TERMS = Struct(">B1s6s6s")
_SECONDS, _SKIPPED, _RETRIED, _ADDRESS = 7, 8, 16, 32
_KINDS = {b"w": ClientKind.WEB, b"m": ClientKind.MOBILE}
_LETTERS = {kind: letter for letter, kind in _KINDS.items()}
_Shared: TypeAlias = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class FamilyRecord:
    """A family as it is stored. Times in ms; ``terms`` and ``user_agent`` are digests, empty for none."""

    secret_hash: bytes = field(repr=False)
    terms: bytes
    created_ms: int
    rotated_ms: int
    used_ms: int
    budget_arrival_ms: int
    started_at_sequence: int
    generation: int
    auth_time_seconds: int
    rotation_key: bytes
    subject: str
    ip_address: str
    user_agent: bytes
    device_label: str
    steps: tuple[Step, ...]
    earlier_steps: int
    ending: Ending | None

    @classmethod
    def parse(cls, stored: bytes) -> FamilyRecord:
        """Raises ``ValueError`` for what an unknown version has written."""
        layout, secret_hash, terms, created, rotated, used, debt, started, generation, auth_time = (
            _FIXED.unpack_from(stored)
        )
        if layout != _LAYOUT:
            raise ValueError(f"a family in layout {layout}; this version reads {_LAYOUT}")
        reader = _Reader(stored, _FIXED.size)
        created_ms = int.from_bytes(created)
        key, subject, address, agent, device, lineage, ending = (reader.text(1) for _ in range(7))
        rotated_ms = created_ms + rotated
        earlier_steps, steps = _lineage(lineage, rotated_ms, generation, address)
        return cls(
            secret_hash=secret_hash,
            terms=terms,
            created_ms=created_ms,
            rotated_ms=rotated_ms,
            used_ms=created_ms + used,
            budget_arrival_ms=created_ms + used + debt,
            started_at_sequence=int.from_bytes(started),
            generation=generation,
            auth_time_seconds=auth_time,
            rotation_key=key,
            subject=subject.decode(),
            ip_address=unpacked_address(address),
            user_agent=agent,
            device_label=device.decode(),
            steps=steps,
            earlier_steps=earlier_steps,
            ending=_ending(ending.decode()),
        )


def packed_address(ip_address: str) -> bytes:
    """4 or 16 bytes; none for an empty one."""
    return ipaddress.ip_address(ip_address).packed if ip_address else b""


def unpacked_address(packed: bytes) -> str:
    """The text of an address; empty for none."""
    return str(ipaddress.ip_address(packed)) if packed else ""


def shared_text(text: str) -> _Shared:
    """The digest under which a text is kept, and its bytes; nothing for an empty one."""
    return (_digest(text.encode(), _AGENT_DIGEST_BYTES), text.encode()) if text else (b"", b"")


@lru_cache(maxsize=1024)
def packed_terms(terms: SessionTerms) -> _Shared:
    """The digest under which terms are kept, and how."""
    packed = _TERMS.pack(
        _LAYOUT,
        _LETTERS[terms.client_kind],
        (terms.lifetime.absolute_seconds * 1000).to_bytes(6),
        (terms.lifetime.idle_seconds * 1000).to_bytes(6),
    )
    for text, length in (
        (terms.client_id, 1),
        (" ".join(terms.scopes), 2),
        (" ".join(terms.audience), 2),
        (terms.roles, 2),
        (terms.acr, 1),
        (" ".join(terms.amr), 2),
    ):
        packed += len(text.encode()).to_bytes(length) + text.encode()
    return _digest(packed, _TERMS_DIGEST_BYTES), packed


@lru_cache(maxsize=1024)
def unpacked_terms(packed: bytes) -> SessionTerms:
    """Terms as ``packed_terms`` packed them."""
    _, kind, absolute, idle = _TERMS.unpack_from(packed)
    reader = _Reader(packed, _TERMS.size)
    client_id, scope, audience, roles, acr, amr = (
        reader.text(length).decode() for length in (1, 2, 2, 2, 1, 2)
    )
    return SessionTerms(
        client_id=client_id,
        client_kind=_KINDS[kind],
        lifetime=SessionLifetime(int.from_bytes(absolute) // 1000, int.from_bytes(idle) // 1000),
        audience=tuple(audience.split()),
        scopes=tuple(scope.split()),
        roles=roles,
        acr=acr,
        amr=tuple(amr.split()),
    )


def newest_first(names: bytes, tag: SubjectTag) -> list[FamilyId]:
    """The families of a list of names, as the store keeps them by start."""
    starts = range(len(names) - NAME_CHARS, -1, -NAME_CHARS)
    families = (FamilyId.of_name(tag, names[at : at + NAME_CHARS].decode()) for at in starts)
    return [family for family in families if family is not None]


class _Reader:
    """Texts behind their lengths, one after the other."""

    __slots__ = ("_at", "_stored")

    def __init__(self, stored: bytes, at: int) -> None:
        self._stored = stored
        self._at = at

    def text(self, length_bytes: int) -> bytes:
        """The next one."""
        start = self._at + length_bytes
        self._at = start + int.from_bytes(self._stored[self._at : start])
        return self._stored[start : self._at]


def _digest(raw: bytes, length: int) -> bytes:
    return sha256(raw).digest()[:length]


def _lineage(packed: bytes, rotated_ms: int, generation: int, address: bytes) -> tuple[int, tuple[Step, ...]]:
    steps, at = list[Step](), 2
    spent_generation, spent_seconds = generation - 1, rotated_ms // 1000

    def number(length: int) -> int:
        nonlocal at
        at += length
        return int.from_bytes(packed[at - length : at])

    while at < len(packed):
        flags = number(1)
        spent_seconds -= number(flags & _SECONDS)
        skipped = number(1) if flags & _SKIPPED else 0
        retries = number(1) if flags & _RETRIED else 0
        if flags & _ADDRESS:
            length = number(1)
            at += length
            address = packed[at - length : at]
        steps.append(Step(spent_generation, spent_seconds, unpacked_address(address), retries, skipped > 0))
        spent_generation -= 1 + skipped
    return int.from_bytes(packed[:2]), tuple(reversed(steps))


def _ending(text: str) -> Ending | None:
    if not text:
        return None
    reason, ended_ms, client_id, cause = text.split("\n")
    return Ending(EndReason(reason), int(ended_ms), cause, client_id)
