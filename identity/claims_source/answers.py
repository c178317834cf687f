"""An answer of the claims source, checked: from what anybody may have written to what may stand in an access token.

Rules, beside those of ``claims_source.proto``:

- a private claim is a string of at most 256 characters, a boolean, a finite number or a list of at most 16 strings;
- claims that the settings do not name are left out, whatever they hold; but one with a name that means something in an
  access token already spoils the whole answer: whoever sends it may believe that it is obeyed;
- whether all of it fits into a token is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from google.protobuf.struct_pb2 import Value

from grpc_identity.v1 import claims_source_pb2 as source_pb2
from identity.claims_source.ports import Active, Disabled
from identity.tokens.access_token import RESERVED_CLAIMS, serialised_private
from identity.tokens.names import is_name

MAX_ROLES = 16
MAX_LIST_ITEMS = 16
MAX_TEXT_CHARACTERS = 256
_MAX_EXACT_INTEGER = 2**53


class BadAnswerError(Exception):
    """The answer breaks the rules; says which, and nothing of what it holds."""


def read_answer(answer: source_pb2.GetClaimsResponse, allowed: Collection[str]) -> Active | Disabled:
    """What it says; of further claims those whose name is ``allowed``. Raises ``BadAnswerError``."""
    if answer.state == source_pb2.SUBJECT_STATE_DISABLED:
        return Disabled()
    if answer.state != source_pb2.SUBJECT_STATE_ACTIVE:
        raise BadAnswerError("the state is neither active nor disabled")
    roles = _roles(answer.roles.roles) if answer.HasField("roles") else None
    members = answer.claims.fields
    reserved = RESERVED_CLAIMS.intersection(members)
    if reserved:
        raise BadAnswerError(
            f"a claim is named {min(reserved)}, which has a meaning in an access token already"
        )
    private = {name: _value(members[name]) for name in sorted(allowed) if name in members}
    return Active(roles, serialised_private(private))


def _roles(roles: Iterable[str]) -> tuple[str, ...]:
    # In one order, so that another order is no change.
    unique = tuple(sorted(set(roles)))
    if len(unique) > MAX_ROLES:
        raise BadAnswerError(f"there are more than {MAX_ROLES} roles")
    if not all(is_name(role) for role in unique):
        raise BadAnswerError("a role is no name")
    return unique


def _value(value: Value) -> object:
    match value.WhichOneof("kind"):
        case "string_value":
            return _text(value.string_value)
        case "bool_value":
            return value.bool_value
        case "number_value":
            return _number(value.number_value)
        case "list_value":
            items = value.list_value.values
            if len(items) > MAX_LIST_ITEMS or any(
                item.WhichOneof("kind") != "string_value" for item in items
            ):
                raise BadAnswerError(f"a list holds something else than at most {MAX_LIST_ITEMS} strings")
            return [_text(item.string_value) for item in items]
        case _:
            raise BadAnswerError("a claim is neither a string, a boolean, a number nor a list of strings")


def _text(text: str) -> str:
    if len(text) > MAX_TEXT_CHARACTERS:
        raise BadAnswerError(f"a string has more than {MAX_TEXT_CHARACTERS} characters")
    return text


def _number(number: float) -> int | float:
    if not math.isfinite(number):
        raise BadAnswerError("a number is not finite")
    # A Struct knows no integers; JSON readers tell 3 from 3.0.
    return int(number) if number.is_integer() and abs(number) <= _MAX_EXACT_INTEGER else number
