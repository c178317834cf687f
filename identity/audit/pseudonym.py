"""Subjects under a pseudonym: who reads the audit can tell that two events concern one person, and not which.

The pseudonym is HMAC-SHA256 of the subject under a key of the deployment, as 64 hexadecimal digits. A session id begins with a hash
of the subject that anybody can make who guesses one, so those ten bytes are a keyed hash of themselves here. Both are set
before the event is chained, so no sink ever sees the subject. Whoever has the key can tell whether an event is of a subject or session that
they name; without it, and once it is destroyed, nobody can. The bucket still follows from the subject: it narrows the guess to one in so
many subjects as there are buckets. Another key makes other pseudonyms of the same people.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from hmac import digest
from pathlib import Path

from identity.audit.recorded_event import RecordedEvent
from identity.tokens.family_id import (
    SUBJECT_TAG_BYTES,
    FamilyId,
    SubjectTag,
    erased_subject,
    subject_tag,
    tag_of_erased,
)

MIN_KEY_BYTES = 32
# No subject begins like this: it is not UTF-8.
_TAG = b"\xff"


class PseudonymKeyError(ValueError):
    """The key cannot be used."""


@dataclass(frozen=True, slots=True)
class PseudonymKey:
    """A key of at least 32 random bytes."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < MIN_KEY_BYTES:
            raise PseudonymKeyError(f"must have at least {MIN_KEY_BYTES} bytes: head -c 32 /dev/urandom")

    @staticmethod
    def from_file(file: Path) -> PseudonymKey:
        """The bytes of a file, all of them. Raises ``PseudonymKeyError``."""
        try:
            return PseudonymKey(file.read_bytes())
        except OSError as error:
            raise PseudonymKeyError(f"cannot read {file}: {error.strerror}") from None

    def pseudonym_of(self, subject: str) -> str:
        """What stands for a subject; what to search for when somebody asks what is recorded of them."""
        if (tag := tag_of_erased(subject)) is not None:
            return erased_subject(self._pseudonym_of_tag(tag))
        return digest(self.secret, subject.encode(), sha256).hex()

    def pseudonym_of_session(self, session_id: str) -> str:
        """What stands for a session id; for what is none, that itself."""
        family = FamilyId.parse(session_id)
        return (
            session_id if family is None else str(family.with_tag(self._pseudonym_of_tag(family.subject_tag)))
        )

    def _pseudonym_of_tag(self, tag: SubjectTag) -> SubjectTag:
        return SubjectTag(digest(self.secret, _TAG + tag, sha256)[:SUBJECT_TAG_BYTES])


@dataclass(frozen=True, slots=True)
class Naming:
    """How people are named outside of events: as they are, or with a key as events name them."""

    key: PseudonymKey | None = None

    def subject(self, subject: str) -> tuple[str, str]:
        """The attribute, and its value: ``user.id`` and the subject, or ``user.hash`` and its pseudonym."""
        return ("user.id", subject) if self.key is None else ("user.hash", self.key.pseudonym_of(subject))

    def session(self, session_id: str) -> str:
        """The session id, or its pseudonym."""
        return session_id if self.key is None else self.key.pseudonym_of_session(session_id)


def names_of(subject: str, key: PseudonymKey | None) -> frozenset[str]:
    """Under what names events may tell of a subject: its own, that of its erasure, and the pseudonyms of both."""
    names = (subject, erased_subject(subject_tag(subject)))
    return frozenset({*names, *(key.pseudonym_of(name) for name in names if key is not None)})


def pseudonym(key: PseudonymKey) -> Callable[[RecordedEvent], RecordedEvent]:
    """What puts the pseudonym of an event's subject in its place, and in that of its name in texts for people; once.

    >>> shape = pseudonym(PseudonymKey(bytes(32)))
    >>> event = RecordedEvent(event_id="1", bucket=0, sequence=1, time_ms=0, type="subject.revoked", outcome="success",
    ...                       subject="alice", detail="by support, for alice")
    >>> shaped = shape(event)
    >>> shaped.subject_is_pseudonym, "alice" in repr(shaped)
    (True, False)
    """

    def shape(event: RecordedEvent) -> RecordedEvent:
        session_id = key.pseudonym_of_session(event.session_id)
        if not event.subject:
            return event if session_id == event.session_id else replace(event, session_id=session_id)
        hidden = key.pseudonym_of(event.subject)
        # As a word of its own: a subject "a" is not named by every text that has an a in it.
        named = re.compile(rf"(?<!\w){re.escape(event.subject)}(?!\w)", re.IGNORECASE)
        return replace(
            event,
            subject=hidden,
            subject_is_pseudonym=True,
            session_id=session_id,
            detail=named.sub(hidden, event.detail),
            device_label=named.sub(hidden, event.device_label),
        )

    return shape
