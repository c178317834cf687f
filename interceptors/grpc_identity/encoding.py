"""Strict base64url and JSON: what two readers could read differently is refused.

Rules:

- base64url without padding, and of all spellings only the one an encoder writes: no line breaks, no characters
  of another alphabet, unused trailing bits zero (RFC 7515, section 2; RFC 4648, sections 3.3 and 3.5);
- JSON is UTF-8, an object, without duplicate members at any depth, without ``NaN``, ``Infinity`` and numbers that
  become infinite (RFC 7515, section 4; RFC 8259, sections 4 and 6; RFC 8725, sections 2.6 and 3.7), and with at
  most 256 opening brackets, so that how deep a reader can go never decides.

Both raise ``ValueError``. Callers bound the length first, which bounds the work.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from math import isinf
from typing import Any, NoReturn

__all__ = ["decode_base64url", "encode_base64url", "parse_json_object"]

MAX_BRACKETS = 256

# To the alphabet that the strict decoder knows; what belongs to that one alone becomes what it refuses.
_ALPHABET = bytes.maketrans(b"-_+/=", b"+/\0\0\0")
# By length modulo 4: the padding that was left out, and the last characters whose unused bits are zero.
_PADDING = (b"", b"=", b"==", b"=")
_LAST = (
    frozenset(range(256)),
    frozenset[int](),
    frozenset(b"AQgw"),
    frozenset(b"AEIMQUYcgkosw048"),
)


def encode_base64url(raw: bytes) -> str:
    """Base64url without padding.

    >>> encode_base64url(b"\\xff\\xfe")
    '__4'
    """
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def decode_base64url(text: bytes) -> bytes:
    """The bytes that ``encode_base64url`` would write as exactly this text.

    >>> decode_base64url(b"__4")
    b'\\xff\\xfe'
    >>> decode_base64url(b"__5")
    Traceback (most recent call last):
    ...
    ValueError: not canonical base64url
    """
    odd = len(text) % 4
    if text and text[-1] not in _LAST[odd]:
        raise ValueError("not canonical base64url")
    try:
        return a2b_base64(text.translate(_ALPHABET) + _PADDING[odd], strict_mode=True)
    except ValueError:
        raise ValueError("not canonical base64url") from None


def parse_json_object(raw: bytes) -> dict[str, Any]:
    """The members of a JSON object.

    >>> parse_json_object(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    ValueError: duplicate member 'a'
    """
    if raw.count(b"{") + raw.count(b"[") > MAX_BRACKETS:
        raise ValueError(f"more than {MAX_BRACKETS} opening brackets")
    text = raw.decode("utf-8").strip(_WHITESPACE)
    try:
        value, end = _decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if end != len(text):
        raise ValueError("something follows the JSON value")
    if type(value) is not dict:
        raise ValueError("not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"duplicate member {name[:40]!r}")
            seen.add(name)
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError("a number is too large for every reader to agree on")
    return number


# `raw_decode` leaves the whitespace around a value (RFC 8259, section 2) to the caller, and is the faster for it.
_WHITESPACE = " \t\n\r"
_decode = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
).raw_decode
