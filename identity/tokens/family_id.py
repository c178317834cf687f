"""The name of a token family, from which every key of its state follows.

A family id is 24 bytes: 10 that identify the subject, 14 random. A token that carries it thus names, before
the store is asked, its family, its subject's cut-off and the bucket both live in, so that one script with
declared keys decides everything in one cluster slot. As text (the claim ``sid``) it is 32 characters of
base64url, a length at which every text has exactly one decoding.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from re import compile as compile_pattern
from typing import NewType, Self

SUBJECT_TAG_BYTES = 10
RANDOM_BYTES = 14
FAMILY_ID_BYTES = SUBJECT_TAG_BYTES + RANDOM_BYTES
# All that hold any of the random bits; of the 13 before, each is the same in every family of a subject.
NAME_CHARS = 19

_ERASED = compile_pattern(r"erased:[0-9a-f]{20}")
_SESSION_ID = compile_pattern(r"[A-Za-z0-9_-]{32}")

SubjectTag = NewType("SubjectTag", bytes)
"""10 bytes that stand for a subject in key names; not secret, not reversible without guessing."""


def subject_tag(subject: str) -> SubjectTag:
    """The first 80 bits of SHA-256: among ten million subjects, two share a tag with odds of 1 in 10^10."""
    return SubjectTag(sha256(subject.encode()).digest()[:SUBJECT_TAG_BYTES])


def erased_subject(tag: SubjectTag) -> str:
    """What the event of an erasure calls a subject, which is not to be named any more."""
    return f"erased:{tag.hex()}"


def tag_of_erased(name: str) -> SubjectTag | None:
    """The tag in what ``erased_subject`` gave; ``None`` for any other name."""
    return SubjectTag(bytes.fromhex(name[7:])) if _ERASED.fullmatch(name) else None


def bucket_of(tag: SubjectTag, buckets: int) -> int:
    """The bucket (0 to ``buckets`` - 1) in which everything about a subject lives."""
    return int.from_bytes(tag[:4]) % buckets


@dataclass(frozen=True, slots=True)
class FamilyId:
    """24 bytes: subject tag, then randomness."""

    raw: bytes

    @classmethod
    def generate(cls, subject: str) -> Self:
        """A new family of ``subject``; 112 random bits make it unguessable."""
        return cls(subject_tag(subject) + secrets.token_bytes(RANDOM_BYTES))

    @classmethod
    def parse(cls, session_id: str) -> Self | None:
        """The family of a ``sid``, or ``None`` for what is no session id at all."""
        if not _SESSION_ID.fullmatch(session_id):
            return None
        return cls(urlsafe_b64decode(session_id))

    @property
    def subject_tag(self) -> SubjectTag:
        """The tag of the subject the family belongs to."""
        return SubjectTag(self.raw[:SUBJECT_TAG_BYTES])

    def with_tag(self, tag: SubjectTag) -> Self:
        """The same randomness under another tag."""
        return type(self)(tag + self.raw[SUBJECT_TAG_BYTES:])

    @property
    def name(self) -> str:
        """The end of its text, which differs from one family of a subject to the next: ``NAME_CHARS`` characters."""
        return str(self)[-NAME_CHARS:]

    @classmethod
    def of_name(cls, tag: SubjectTag, name: str) -> Self | None:
        """The family of a subject with this name; ``None`` for what is no name."""
        return cls.parse(str(cls(tag + bytes(RANDOM_BYTES)))[:-NAME_CHARS] + name)

    def __str__(self) -> str:
        return urlsafe_b64encode(self.raw).decode()
