"""Protobuf's wire format, as far as OTLP's envelopes and attributes need it.

An event has some twenty attributes, twice. As message objects they cost the relay more than everything else together; framed here,
a quarter of that. Everything else is left to the generated classes, and a test parses with those what was framed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

_DELIMITED, _VARINT = 2, 0


def tag(field: int, wire_type: int = _DELIMITED) -> bytes:
    """What precedes a field's value."""
    return varint(field << 3 | wire_type)


def varint(number: int) -> bytes:
    """A number, seven bits a byte, least first; negative ones as 64 bits."""
    number &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def framed(field_tag: bytes, payload: bytes) -> bytes:
    """A field of bytes, of text, or of a message that is serialised already."""
    return field_tag + length(len(payload)) + payload


def length(size: int) -> bytes:
    """A length as a varint."""
    return _LENGTHS[size] if size < len(_LENGTHS) else varint(size)


def attribute(name: str, value: str | int | bool) -> bytes:
    """``KeyValue``, serialised, behind its length."""
    if isinstance(value, str):
        text = value.encode()
        content = _TEXT + length(len(text)) + text
    elif isinstance(value, bool):
        content = _BOOL + (b"\1" if value else b"\0")
    else:
        content = _INT + varint(value)
    item = _key(name) + length(len(content)) + content
    return length(len(item)) + item


def repeated(field_tag: bytes, items: Sequence[bytes]) -> bytes:
    """A repeated field of items that are behind their lengths; of at least one."""
    return field_tag + field_tag.join(items)


@cache
def _key(name: str) -> bytes:
    return framed(tag(KeyValue.KEY_FIELD_NUMBER), name.encode()) + tag(KeyValue.VALUE_FIELD_NUMBER)


_LENGTHS = tuple(varint(size) for size in range(2048))
_TEXT = tag(AnyValue.STRING_VALUE_FIELD_NUMBER)
_BOOL = tag(AnyValue.BOOL_VALUE_FIELD_NUMBER, _VARINT)
_INT = tag(AnyValue.INT_VALUE_FIELD_NUMBER, _VARINT)
