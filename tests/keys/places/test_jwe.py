"""A secret under a public key, as it lies in a file that others may read."""

from __future__ import annotations

import json
import os

import pytest

from grpc_identity.encoding import encode_base64url
from identity.keys.providers.jwe import Jwe, encrypted

SECRET = b"a key-encryption key of 32 bytes"
CONTENT_KEY = os.urandom(32)
MADE = encrypted(SECRET, "purpose", "version-1", CONTENT_KEY, b"what the place wrapped")


def with_header(**members: object) -> bytes:
    header = {"alg": "RSA-OAEP-256", "enc": "A256GCM", "typ": "purpose", "kid": "version-1"} | members
    text = encode_base64url(json.dumps(header, separators=(",", ":")).encode())
    return b".".join([text.encode(), *MADE.split(b".")[1:]])


def test_what_was_encrypted_comes_back_with_the_key_that_wrapped() -> None:
    parts = Jwe.parse(MADE, "purpose")
    assert (parts.kid, parts.encrypted_key) == ("version-1", b"what the place wrapped")
    assert parts.decrypted(CONTENT_KEY) == SECRET
    assert with_header() == MADE
    assert SECRET not in MADE


def test_any_bit_that_was_turned_is_noticed() -> None:
    for index in range(len(MADE)):
        for bit in range(8):
            altered = bytearray(MADE)
            altered[index] ^= 1 << bit
            try:
                parts = Jwe.parse(bytes(altered), "purpose")
            except ValueError:
                continue
            if parts.encrypted_key != b"what the place wrapped":
                # The place unwraps another key from it, or none.
                continue
            with pytest.raises(ValueError, match="altered"):
                parts.decrypted(CONTENT_KEY)


NOT_OURS = {
    "nothing": b"",
    "empty parts": b"....",
    "no tag": MADE.rpartition(b".")[0],
    "a sixth part": MADE + b".",
    "padding": MADE + b"=",
    "too much": MADE + b"A" * 4096,
    "another algorithm": with_header(alg="RSA1_5"),
    "another encryption": with_header(enc="A128CBC-HS256"),
    "another purpose": with_header(typ="another purpose"),
    "a kid that is no text": with_header(kid=1),
    "a kid that is a path": with_header(kid="../../secrets"),
    "an empty kid": with_header(kid=""),
    "compression": with_header(zip="DEF"),
    "a critical extension": with_header(crit=["exp"]),
}


@pytest.mark.parametrize("what", NOT_OURS)
def test_what_nobody_here_makes_is_refused(what: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Jwe.parse(NOT_OURS[what], "purpose")


def test_a_header_of_another_purpose_does_not_fit_what_was_bound_to_this_one() -> None:
    parts = Jwe.parse(with_header(typ="another purpose"), "another purpose")
    with pytest.raises(ValueError, match="altered"):
        parts.decrypted(CONTENT_KEY)


@pytest.mark.parametrize("key", [bytes(32), bytes(16), b""], ids=["another", "short", "none"])
def test_another_content_key_opens_nothing(key: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Jwe.parse(MADE, "purpose").decrypted(key)
