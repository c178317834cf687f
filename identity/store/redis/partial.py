"""What can go on where a part of the store is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from identity.errors import IdentityError

T = TypeVar("T")


def where_it_is_there(answers: Sequence[T | BaseException]) -> list[T]:
    """The answers of the parts of the store that are there. Raises what the first has said where none is, and defects."""
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    for error in errors:
        if not isinstance(error, IdentityError) or len(errors) == len(answers):
            raise error
    return [answer for answer in answers if not isinstance(answer, BaseException)]
