"""How families lie in the store: what ``scripts/family.lua`` writes, read; and what many of them share, written.

A family is one string of numbers of fixed size and texts behind their length. Its terms and the user agent are kept
once a bucket under their digest, because a million sessions of one application have the same few.
"""

from __future__ import annotations

import ipaddress
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import TypeAlias

from identity.store.ports import Ending, EndReason
from identity.tokens.family import Step
from identity.tokens.family_id import FamilyId, SubjectTag
from identity.tokens.lifetimes import ClientKind, SessionLifetime
from identity.tokens.session_terms import SessionTerms

# Of a session id, what differs between the sessions of a subject: characters 14 to 32.
NAME_CHARS = 19
IDEMPOTENCY_DIGEST_BYTES = 12

_LAYOUT = 1
_DIGEST_BYTES = 12
_SAME_ADDRESS = 255
_FIXED = Struct(">B16s16s6sIIH6sI5s")
_TERMS = Struct(">B1s6s6s")
_STEP = Struct(">IBBB")
_KINDS = {b"w": ClientKind.WEB, b"m": ClientKind.MOBILE}
_LETTERS = {kind: letter for letter, kind in _KINDS.items()}
_Shared: TypeAlias = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class FamilyRecord:
    """A family as it is stored. Times in ms; ``terms`` and ``user_agent`` are digests, empty for none."""

    secret_hash: bytes = field(repr=False)
    terms: str
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
    user_agent: str
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
        key, subject, address, agent, device, steps = (reader.text(1) for _ in range(6))
        earlier_steps, lineage = _lineage(steps, created_ms, generation)
        return cls(
            secret_hash=secret_hash,
            terms=terms.decode(),
            created_ms=created_ms,
            rotated_ms=created_ms + rotated,
            used_ms=created_ms + used,
            budget_arrival_ms=created_ms + used + debt,
            started_at_sequence=int.from_bytes(started),
            generation=generation,
            auth_time_seconds=int.from_bytes(auth_time),
            rotation_key=key,
            subject=subject.decode(),
            ip_address=unpacked_address(address),
            user_agent=agent.decode(),
            device_label=device.decode(),
            steps=lineage,
            earlier_steps=earlier_steps,
            ending=_ending(reader.text(2).decode()),
        )


def packed_address(ip_address: str) -> bytes:
    """4 or 16 bytes; none for an empty one."""
    return ipaddress.ip_address(ip_address).packed if ip_address else b""


def unpacked_address(packed: bytes) -> str:
    """The text of an address; empty for none."""
    return str(ipaddress.ip_address(packed)) if packed else ""


def shared_text(text: str) -> _Shared:
    """The digest under which a text is kept, and its bytes; nothing for an empty one."""
    return (_digest(text.encode()), text.encode()) if text else ("", b"")


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
    return _digest(packed), packed


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


def common_name(tag: SubjectTag) -> str:
    """What the ids of a subject's sessions start with: all but the last ``NAME_CHARS`` characters."""
    return str(FamilyId(tag + bytes(14)))[:-NAME_CHARS]


def newest_first(names: bytes, tag: SubjectTag) -> list[FamilyId]:
    """The families of a list of names, as the store keeps them by start."""
    starts = range(len(names) - NAME_CHARS, -1, -NAME_CHARS)
    parsed = (FamilyId.parse(common_name(tag) + names[at : at + NAME_CHARS].decode()) for at in starts)
    return [family for family in parsed if family is not None]


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


def _digest(raw: bytes) -> str:
    return urlsafe_b64encode(sha256(raw).digest()[:_DIGEST_BYTES]).decode()


def _lineage(packed: bytes, created_ms: int, generation: int) -> tuple[int, tuple[Step, ...]]:
    steps, at, address = list[Step](), 3, b""
    spent_generation = generation - 1
    while at < len(packed):
        offset_ms, skipped, retries, length = _STEP.unpack_from(packed, at)
        at += _STEP.size
        if length != _SAME_ADDRESS:
            address = packed[at : at + length]
            at += length
        recovered = skipped > 0
        steps.append(
            Step(spent_generation, created_ms + offset_ms, unpacked_address(address), retries, recovered)
        )
        spent_generation -= 1 + skipped
    return int.from_bytes(packed[:3]), tuple(reversed(steps))


def _ending(text: str) -> Ending | None:
    if not text:
        return None
    reason, ended_ms, client_id, cause = text.split("\n")
    return Ending(EndReason(reason), int(ended_ms), cause, client_id)
