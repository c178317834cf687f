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
from base64 import urlsafe_b64decode, urlsafe_b64encode
from math import isinf
from typing import Any, NoReturn

__all__ = ["decode_base64url", "encode_base64url", "parse_json_object"]

MAX_BRACKETS = 256


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
    raw = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    # The decoder of the standard library overlooks foreign characters and stray bits. Encoding again finds them all.
    if urlsafe_b64encode(raw).rstrip(b"=") != text:
        raise ValueError("not canonical base64url")
    return raw


def parse_json_object(raw: bytes) -> dict[str, Any]:
    """The members of a JSON object.

    >>> parse_json_object(b'{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ...
    ValueError: duplicate member 'a'
    """
    if raw.count(b"{") + raw.count(b"[") > MAX_BRACKETS:
        raise ValueError(f"more than {MAX_BRACKETS} opening brackets")
    try:
        value = _decode(raw.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
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


_decode = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
).decode
