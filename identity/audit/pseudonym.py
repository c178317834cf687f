"""Subjects under a pseudonym: who reads the audit can tell that two events concern one person, and not which.

The pseudonym is HMAC-SHA256 of the subject under a key of the deployment, as 64 hexadecimal digits. It is set before the event is
chained, so no sink ever sees the subject. Whoever has the key can tell whether an event is of a subject that they name; without it,
and once it is destroyed, nobody can. The bucket still follows from the subject: it narrows the guess to one in so many subjects as
there are buckets. Another key makes other pseudonyms of the same people.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from hmac import digest
from pathlib import Path

from identity.audit.recorded_event import RecordedEvent

MIN_KEY_BYTES = 32


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
        return digest(self.secret, subject.encode(), sha256).hex()


def pseudonym(key: PseudonymKey) -> Callable[[RecordedEvent], RecordedEvent]:
    """What puts the pseudonym of an event's subject in its place, and in that of its name in texts for people.

    >>> shape = pseudonym(PseudonymKey(bytes(32)))
    >>> event = RecordedEvent(event_id="1", bucket=0, sequence=1, time_ms=0, type="subject.revoked", outcome="success",
    ...                       subject="alice", detail="by support, for alice")
    >>> shaped = shape(event)
    >>> shaped.subject_is_pseudonym, "alice" in repr(shaped)
    (True, False)
    """

    def shape(event: RecordedEvent) -> RecordedEvent:
        if not event.subject or event.subject_is_pseudonym:
            return event
        hidden = key.pseudonym_of(event.subject)
        # As a word of its own: a subject "a" is not named by every text that has an a in it.
        named = re.compile(rf"(?<!\w){re.escape(event.subject)}(?!\w)", re.IGNORECASE)
        return replace(
            event,
            subject=hidden,
            subject_is_pseudonym=True,
            detail=named.sub(hidden, event.detail),
            device_label=named.sub(hidden, event.device_label),
        )

    return shape
