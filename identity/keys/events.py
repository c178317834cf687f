"""What is recorded of a change of the keyring: one event for each step of each key, naming it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from identity.audit.event import Circumstances, Event, EventType, Outcome
from identity.keys import schedule as rules
from identity.keys.keyring import Keyring, KeyState

MAX_NAMED = 20
BY_ITSELF = Circumstances("", "")
"""Of what the schedule asks for; nobody has called."""

_OF_STATE: Mapping[KeyState, EventType] = MappingProxyType(
    {
        KeyState.ACTIVE: EventType.KEY_ACTIVATED,
        KeyState.RETIRED: EventType.KEY_RETIRED,
        KeyState.REMOVED: EventType.KEY_REMOVED,
        KeyState.REVOKED: EventType.KEY_REVOKED,
    }
)


def events_of(
    before: Keyring, after: Keyring, circumstances: Circumstances, laggards: Mapping[str, Sequence[str]]
) -> Sequence[Event]:
    """``laggards``: which verifiers lack a key, by its id, as far as they were asked."""
    return list(_events(before, after, circumstances, laggards))


def _events(
    before: Keyring, after: Keyring, circumstances: Circumstances, laggards: Mapping[str, Sequence[str]]
) -> Iterator[Event]:
    for key, state in rules.changes(before, after):
        if before.get(key.kid) is None:
            yield event_of(EventType.KEY_CREATED, circumstances, f"kid {key.kid}", key.kid)
        if state in _OF_STATE:
            yield event_of(_OF_STATE[state], circumstances, f"kid {key.kid}", key.kid)
        if state is KeyState.ACTIVE and laggards.get(key.kid):
            names = laggards[key.kid]
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            detail = f"kid {key.kid}; lacking: {', '.join(names[:MAX_NAMED])}{more}"
            yield event_of(EventType.KEY_NOT_TAKEN_UP, circumstances, detail, key.kid)
    if before.secrets:
        known = {secret.name for secret in before.secrets}
        for secret in after.secrets:
            if secret.name not in known:
                yield event_of(EventType.SECRET_ROTATED, circumstances, f"secret {secret.name}")


def event_of(event_type: EventType, circumstances: Circumstances, detail: str, kid: str = "") -> Event:
    """Something that was done to the keyring."""
    return Event(event_type, Outcome.SUCCESS, replace(circumstances, detail=detail, key_id=kid))
