"""What is held in mind between two steps: by the callers of a session, and by the model."""

from __future__ import annotations

from dataclasses import dataclass, field

from identity.tokens.family import Budget, Family
from identity.tokens.family_id import FamilyId


@dataclass
class Held:
    """What the callers of one session know."""

    family: FamilyId
    subject: str
    secret: bytes
    newest: int = 0
    last_key: str = ""


@dataclass
class Remembered:
    """What the model holds; copied when the store is, and brought back with it."""

    families: dict[FamilyId, Family] = field(default_factory=dict)
    subject_cut_offs: dict[str, int] = field(default_factory=dict)
    client_cut_offs: dict[tuple[str, int], int] = field(default_factory=dict)
    addresses: dict[tuple[str, int], tuple[Budget, Budget]] = field(default_factory=dict)
    end_users: dict[FamilyId, str] = field(default_factory=dict)
    roles: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    def copy(self) -> Remembered:
        return Remembered(
            dict(self.families),
            dict(self.subject_cut_offs),
            dict(self.client_cut_offs),
            dict(self.addresses),
            dict(self.end_users),
            dict(self.roles),
        )
