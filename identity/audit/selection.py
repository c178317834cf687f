"""Which events somebody asks for. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from identity.audit.recorded_event import RecordedEvent


class NotATimeError(ValueError):
    """The text is no moment; the message says how one is written."""


@dataclass(frozen=True, slots=True)
class Selection:
    """All that is given has to fit; ``None`` fits all. Both ends of the time are included.

    ``type`` may have ``*`` in it. ``pseudonym_of`` gives the pseudonym that events may have for a subject.

    >>> Selection(type="refresh.*").takes(RecordedEvent(event_id="1", bucket=0, sequence=1, time_ms=0, type="refresh.refused",
    ...                                                 outcome="refused"))
    True
    """

    subject: str | None = None
    session_id: str | None = None
    client_id: str | None = None
    type: str | None = None
    outcome: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    pseudonym_of: Callable[[str], str] | None = None

    def takes(self, event: RecordedEvent) -> bool:
        """Whether the event is asked for."""
        return (
            (self.session_id is None or event.session_id == self.session_id)
            and (self.client_id is None or self.client_id in {event.client_id, event.reported_by})
            and (self.type is None or fnmatchcase(event.type, self.type))
            and (self.outcome is None or event.outcome == self.outcome)
            and (self.since_ms is None or event.happened_at_ms >= self.since_ms)
            and (self.until_ms is None or event.happened_at_ms <= self.until_ms)
            and (self.subject is None or self._is_of(self.subject, event))
        )

    def _is_of(self, subject: str, event: RecordedEvent) -> bool:
        if not event.subject_is_pseudonym:
            return event.subject == subject
        # Who has no key may still ask for what they have read elsewhere.
        return event.subject in {subject, self.pseudonym_of(subject) if self.pseudonym_of else subject}


def moment_ms(text: str) -> int:
    """Milliseconds since 1970 of a date, or of a time in ISO 8601; without a zone it is UTC. Raises ``NotATimeError``.

    >>> moment_ms("2026-11-25T04:20Z") - moment_ms("2026-11-25")
    15600000
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise NotATimeError(f"{text!r} is no time; write 2026-11-25 or 2026-11-25T04:20:00Z") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
