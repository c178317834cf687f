"""What an auditor can tell who has the exported spans and nothing else: no store, no service, none of its code.

docs/audit.md says what the spans mean; this follows it.
"""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from audit.sinks.receivers import attributes

# Tokens of the session are given.
GIVES = frozenset(
    {
        "tokens.issued",
        "tokens.reissued",
        "tokens.refreshed",
        "refresh.retry_answered",
        "family.recovered",
        "token.exchanged",
    }
)
# Each is the end of the session that it names.
ENDS_SESSION = frozenset({"session.revoked", "refresh.wrong_client"})
ENDS_SUBJECT = frozenset({"subject.revoked", "subject.erased"})
ENDS_CLIENT = frozenset({"client.revoked", "client.disabled"})


class Use(NamedTuple):
    """Of a token, on a server of somebody else."""

    method: str
    token_id: str
    status: str
    reported_by: str
    at_ms: int


@dataclass(frozen=True)
class Ending:
    """When a session was over, and why; ``by`` is the client that asked for it."""

    at_ms: int
    why: str
    cause: str
    by: str


@dataclass
class Session:
    """Who had it, from when to when, from where, what was given with it, and what that was used for."""

    session_id: str
    subject: str
    client_id: str
    started_ms: int
    expires_ms: int
    tokens: dict[str, str] = field(default_factory=dict)
    addresses: list[str] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)

    @property
    def ended(self) -> Ending:
        """The first of what has ended it; its own time is up at the latest."""
        expired = Ending(self.expires_ms, "expired", "", "")
        return min([*self.endings, expired], key=lambda ending: ending.at_ms)


@dataclass
class Account:
    """All that was found out. ``lost_uses``: how many records of uses are missing, by the client that says so."""

    sessions: dict[str, Session]
    revoked_tokens: set[str]
    refusals: Counter[tuple[str, str]]
    lost_uses: Counter[str]


def account_of(spans: Iterable[Any]) -> Account:
    """From spans in any order, some of them twice."""
    events = {told["identity.event.id"]: told for told in (attributes(span) for span in spans)}
    by_bucket: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for event in sorted(events.values(), key=lambda event: event["identity.event.sequence"]):
        by_bucket[event["identity.event.bucket"]].append(event)
    account = Account({}, set(), Counter(), Counter())
    for in_order in by_bucket.values():
        for event in in_order:
            _take(account, event)
    _end_sessions_of_clients(account, events.values())
    return account


def _take(account: Account, event: Mapping[str, Any]) -> None:
    kind, session_id = event["identity.event.type"], event.get("session.id", "")
    session = account.sessions.get(session_id)
    if kind == "tokens.issued":
        session = account.sessions[session_id] = Session(
            session_id,
            event["user.id"],
            event["identity.client.id"],
            event["identity.event.recorded_at_ms"],
            0,
        )
    if kind in GIVES and session is not None:
        session.tokens[event["identity.token.id"]] = event["identity.client.id"]
        # What is exchanged is no use of the session's own.
        session.expires_ms = event.get("identity.session.expires_at_ms", session.expires_ms)
        if "client.address" in event:
            session.addresses.append(event["client.address"])
    elif kind == "token.used" and session is not None:
        session.uses.append(_use(event))
    elif kind == "token.uses_lost":
        account.lost_uses[event["identity.event.reported_by"]] += event["identity.event.count"]
    elif kind == "token.revoked":
        account.revoked_tokens.add(event["identity.token.id"])
    elif event["identity.event.outcome"] == "refused" and not session_ends(event):
        reason = event.get("identity.event.reason", "")
        account.refusals[kind, reason] += event.get("identity.event.count", 1)
    for ended in _ended_by(account, event):
        ended.endings.append(_ending(event))


def session_ends(event: Mapping[str, Any]) -> bool:
    """Whether it is the end of the session that it names."""
    is_reuse = event["identity.event.type"] == "refresh.reuse_detected"
    return event["identity.event.type"] in ENDS_SESSION or (
        is_reuse and event["identity.event.outcome"] == "refused"
    )


def _ended_by(account: Account, event: Mapping[str, Any]) -> Iterator[Session]:
    """Of those that had started in this bucket before."""
    if session_ends(event):
        if (session := account.sessions.get(event["session.id"])) is not None:
            yield session
    elif event["identity.event.type"] in ENDS_SUBJECT:
        yield from (session for session in account.sessions.values() if _is_of(event["user.id"], session))


def _is_of(subject: str, session: Session) -> bool:
    """An erasure does not name the subject, but what its session ids begin with."""
    if subject.startswith("erased:"):
        return base64.urlsafe_b64decode(session.session_id)[:10].hex() == subject.removeprefix("erased:")
    return subject == session.subject


def _end_sessions_of_clients(account: Account, events: Iterable[Mapping[str, Any]]) -> None:
    """The event is in one bucket, and the sessions are in all: here it is the time that tells."""
    for event in events:
        if event["identity.event.type"] in ENDS_CLIENT:
            ending = _ending(event)
            client_id = event["identity.event.detail"].removeprefix("client ")
            for session in account.sessions.values():
                if session.client_id == client_id and session.started_ms <= ending.at_ms:
                    session.endings.append(ending)


def _ending(event: Mapping[str, Any]) -> Ending:
    return Ending(
        event["identity.event.recorded_at_ms"],
        event["identity.event.type"],
        event.get("identity.event.reason", ""),
        event.get("identity.client.id", ""),
    )


def _use(event: Mapping[str, Any]) -> Use:
    return Use(
        event["rpc.method"],
        event["identity.token.id"],
        event["rpc.response.status_code"],
        event["identity.event.reported_by"],
        event["identity.event.occurred_at_ms"],
    )
