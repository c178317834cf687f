"""Which events somebody asks for. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cached_property

from identity.audit.pseudonym import PseudonymKey, names_of
from identity.audit.recorded_event import RecordedEvent


class NotATimeError(ValueError):
    """The text is no moment; the message says how one is written."""


@dataclass(frozen=True)
class Selection:
    """All that is given has to fit; ``None`` fits all. Both ends of the time are included.

    ``type`` may have ``*`` in it. ``pseudonyms`` is the key of those that events may have for subjects and sessions; who has none
    may still ask for what they have read elsewhere.

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
    pseudonyms: PseudonymKey | None = None

    def takes(self, event: RecordedEvent) -> bool:
        """Whether the event is asked for."""
        return (
            (self.session_id is None or event.session_id in self._sessions)
            and (self.client_id is None or self.client_id in {event.client_id, event.reported_by})
            and (self.type is None or fnmatchcase(event.type, self.type))
            and (self.outcome is None or event.outcome == self.outcome)
            and (self.since_ms is None or event.happened_at_ms >= self.since_ms)
            and (self.until_ms is None or event.happened_at_ms <= self.until_ms)
            and (self.subject is None or event.subject in self._subjects)
        )

    @cached_property
    def _subjects(self) -> Collection[str]:
        return names_of(self.subject or "", self.pseudonyms)

    @cached_property
    def _sessions(self) -> Collection[str]:
        session_id = self.session_id or ""
        return {
            session_id,
            self.pseudonyms.pseudonym_of_session(session_id) if self.pseudonyms else session_id,
        }


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
