"""How scopes, audiences, roles and claims may be called: as RFC 6749, section 3.3 has scopes."""

from __future__ import annotations

MAX_NAME_CHARACTERS = 128


def is_spelt_as_name(text: str) -> bool:
    """Whether there is nothing in it but printable ASCII without space, quote and backslash."""
    return all("!" <= character <= "~" and character not in '"\\' for character in text)


def is_name(text: str) -> bool:
    """Whether it is spelt as one, and neither empty nor longer than ``MAX_NAME_CHARACTERS``."""
    return 0 < len(text) <= MAX_NAME_CHARACTERS and is_spelt_as_name(text)
