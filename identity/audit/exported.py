"""An event as a sink has exported it: with its place in the chain of that sink.

A line of the file sink is the canonical form of the event with two members more: ``chain`` (``previous`` and ``link``, in
hexadecimal) and ``sink``. The digest is made of what the line says and not of what this version knows of it, so that a
member that was put in is seen, and one that a later version has is not taken for that. Of a line in OCSF that is ``raw_data``;
what else such a line says is in no digest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from grpc_identity.encoding import parse_json_object
from identity.audit.chain import DIGEST_BYTES, digest_of, link_after
from identity.audit.recorded_event import NotAnEventError, RecordedEvent, from_members

MAX_LINE_BYTES = 64 * 1024
MAX_BUCKET = 2**16
MAX_SEQUENCE = 2**48
_TEXTS = ("event_id", "type", "outcome", "detail", "key_id", "checkpoint")
_PLACE = ("previous", "link")
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class ExportedEvent:
    """``digest`` is what stands for the event in a link, made of the event as it was found."""

    event: RecordedEvent
    digest: bytes
    previous: bytes
    link: bytes
    sink: str

    @property
    def is_sound(self) -> bool:
        """Whether event, ``previous`` and ``link`` belong together."""
        return link_after(self.previous, self.digest) == self.link


def exported(event: RecordedEvent, previous: bytes, link: bytes, sink: str) -> ExportedEvent:
    """An event that a backend has given back. Raises ``NotAnEventError`` for what no sink exports."""
    _check(event)
    try:
        return ExportedEvent(event, digest_of(event), previous, link, sink)
    except (AttributeError, TypeError, ValueError) as error:
        raise NotAnEventError("not an audit event: a member of it is of another type") from error


def from_line(line: bytes) -> ExportedEvent:
    """The event of a line of the file sink. Raises ``NotAnEventError``."""
    if len(line) > MAX_LINE_BYTES:
        raise NotAnEventError(f"longer than {MAX_LINE_BYTES} bytes")
    try:
        members, chain, sink = _parts(parse_json_object(line))
        previous, link = _place(chain)
        digest = sha256(_dumps(members).encode()).digest()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise NotAnEventError(f"not a line of the file sink: {_said(error)}") from error
    if type(sink) is not str or not sink:
        raise NotAnEventError("not a line of the file sink: it does not name its sink")
    event = from_members(members)
    _check(event)
    return ExportedEvent(event, digest, previous, link, sink)


def _parts(members: dict[str, Any]) -> tuple[dict[str, Any], Any, Any]:
    """The event, its place in the chain, and the name of the sink."""
    if "class_uid" not in members:
        return members, members.pop("chain"), members.pop("sink")
    place = members["unmapped"]
    return parse_json_object(members["raw_data"].encode()), place["chain"], place["sink"]


def _check(event: RecordedEvent) -> None:
    if any(type(getattr(event, name)) is not str for name in _TEXTS) or not event.event_id:
        raise NotAnEventError("not an audit event: a text is none, or there is no id")
    if type(event.bucket) is not int or not 0 <= event.bucket < MAX_BUCKET:
        raise NotAnEventError("not an audit event: there is no such bucket")
    if not 0 < event.sequence < MAX_SEQUENCE:
        raise NotAnEventError("not an audit event: there is no such sequence number")


def _place(chain: dict[str, Any]) -> tuple[bytes, bytes]:
    # No digest covers what else would stand there.
    if len(chain) > len(_PLACE):
        raise ValueError("its place in the chain has other members")
    previous, link = (_bytes(chain[name]) for name in _PLACE)
    return previous, link


def _bytes(text: object) -> bytes:
    # In one spelling only: what two readers could take for the same would be an alteration nobody sees.
    if type(text) is not str or len(text) != 2 * DIGEST_BYTES or not _HEX.issuperset(text):
        raise ValueError("a link is 64 lower-case hexadecimal digits")
    return bytes.fromhex(text)


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]!r}"
    return str(error) if isinstance(error, ValueError) else "a member of it is of another type"


_dumps = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode
