"""Changes JSON as JSON, which turning bytes rarely manages: in some object, at any depth, a member is added, removed,
renamed, doubled, or given an awkward value."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

AWKWARD = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 253402300799, 253402300800, 10**40, 0.5, 1e308, -0.0, "", " ",
    "\0", "a", "a b", "a  b", "\ud800", "\U0001f600", "x" * 1024, "x" * 1025, [], [[]], ["a"], ["a"] * 129, [1], {},
)  # fmt: skip


class Members(list[Any]):
    """An object, as the pairs that it was written with: a name may be there twice."""


def changed(text: bytes, chance: random.Random, names: list[str], values: list[Any]) -> bytes | None:
    """The document with one change, or ``None`` if it is no JSON."""
    try:
        document = json.loads(text, object_pairs_hook=Members)
        objects = list(_objects(document))
        if not objects:
            return None
        members = chance.choice(objects)
        at = chance.randrange(len(members) + 1)
        name, value = chance.choice(names), chance.choice([*AWKWARD, *values])
        match chance.randrange(5):
            case 0:
                members.insert(at, (name, value))
            case 1:
                del members[at : at + 1]
            case 2:
                members[at : at + 1] = [(old, value) for old, _ in members[at : at + 1]]
            case 3:
                members[at : at + 1] = [(name, old) for _, old in members[at : at + 1]]
            case _:
                members += members[at : at + 1]
        return _text(document).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return None


def _objects(value: Any) -> Iterator[Members]:
    if isinstance(value, Members):
        yield value
        for _, inner in value:
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def _text(value: Any) -> str:
    if isinstance(value, Members):
        return "{" + ",".join(f"{json.dumps(name)}:{_text(inner)}" for name, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_text(inner) for inner in value) + "]"
    return json.dumps(value)
