"""Claims whose meaning issuer and service have agreed on between themselves (RFC 7519, section 4.3), read-only.

One verified token serves many calls, in several threads: nothing in here can be changed.

>>> claims = PrivateClaims({"tenant": "acme", "plans": ["a", "b"]})
>>> claims["tenant"], claims["plans"], claims.get("region")
('acme', ('a', 'b'), None)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, final

__all__ = ["NO_PRIVATE_CLAIMS", "PrivateClaims"]


@final
class PrivateClaims(Mapping[str, Any]):
    """Claims by name. Arrays are tuples, and objects are again of this class."""

    __slots__ = ("_members",)

    def __init__(self, members: Mapping[str, Any]) -> None:
        self._members = {name: _frozen(value) for name, value in members.items()}

    @classmethod
    def without(cls, names: Collection[str], members: Mapping[str, Any]) -> PrivateClaims:
        """All of ``members`` but those with one of these names."""
        return cls({name: value for name, value in members.items() if name not in names})

    def __getitem__(self, name: str) -> Any:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __hash__(self) -> int:
        return hash(frozenset(self._members.items()))

    def __repr__(self) -> str:
        return repr(self._members)

    def __reduce__(self) -> tuple[Any, ...]:
        return (PrivateClaims, (self._members,))


def _frozen(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    return PrivateClaims(value) if isinstance(value, dict) else value


NO_PRIVATE_CLAIMS = PrivateClaims({})
