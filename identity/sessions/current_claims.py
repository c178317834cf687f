"""What the owner of user data says of a subject, brought into the tokens that are about to be given.

Rules:

- the source is asked before anything is started or spent, so that a refusal costs the caller nothing: an outage that lasts
  longer than a retry may come must not turn retries into thefts;
- what it says is noted in the store before a token says it. A refresh takes roles and claims from the store alone, so
  there is one way to the last known ones, whether the source is there or not;
- of two answers that are noted, the one asked for later holds; where that cannot be told, the source is asked again;
- a disabled subject gets no session, and the session it refreshes is ended as durably as by ``Revoke``;
- when the source is away, the policy for the occasion decides. A repeated answer is given in any case: the source has spoken
  before it was given first, some two minutes ago at most.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NoReturn, assert_never

from identity.audit.event import Circumstances, Event, EventType, Outcome, new_event_id
from identity.audit.ports import EventRecorder
from identity.claims_source.ports import Active, ClaimsSource, Disabled, Occasion, Question, SourceAwayError
from identity.errors import IdentityError, Reason, audit_unavailable
from identity.sessions.caller import Caller
from identity.sessions.revoke import RevocationCause
from identity.store.decisions import EndReason, SpendVerdict, Spent
from identity.store.known_claims import KnownClaimsStore, NoteVerdict
from identity.store.ports import RevocationStore
from identity.tokens.access_token import serialised_roles
from identity.tokens.family_id import FamilyId

MAX_QUESTIONS = 3
_WITHOUT_ANSWER = "without an answer of the claims source"


class WhenAway(StrEnum):
    """What to do without an answer. The same names as in the settings."""

    REFUSE = "refuse"
    PROCEED = "proceed"
    LAST_KNOWN = "last_known"


@dataclass(frozen=True, slots=True)
class CurrentClaims:
    """The use cases' view of the claims source."""

    source: ClaimsSource
    known: KnownClaimsStore
    revocations: RevocationStore
    recorder: EventRecorder
    when_away_at_issue: WhenAway
    when_away_at_refresh: WhenAway

    async def before_issue(self, caller: Caller, subject: str, family: FamilyId) -> Active | None:
        """What a session to be started is to say; ``None``: what the client asks for.

        Raises ``SUBJECT_DISABLED`` and ``CLAIMS_SOURCE_UNAVAILABLE``.
        """
        try:
            answer = await self.source.ask(_question(Occasion.ISSUE, caller, subject, family))
        except SourceAwayError as away:
            if self.when_away_at_issue is WhenAway.REFUSE:
                raise _unavailable(away.retry_after_seconds) from None
            return None
        if isinstance(answer, Disabled):
            self._refuse_disabled(EventType.REQUEST_REFUSED, caller, subject, family)
        return answer

    async def after_issue(self, caller: Caller, subject: str, family: FamilyId, answer: Active) -> Active:
        """Notes the answer for the session that was started with it; returns the one that holds.

        Raises as ``before_issue`` does, and ``FAMILY_REVOKED``.
        """
        # Nothing tells what had happened when the source was asked, so any other answer that was noted may be newer.
        asked_after_sequence = 0
        for _ in range(MAX_QUESTIONS):
            newest = await self._note(caller, subject, family, answer, asked_after_sequence)
            if newest is None:
                return answer
            asked_after_sequence = newest
            try:
                again = await self.source.ask(_question(Occasion.ISSUE, caller, subject, family))
            except SourceAwayError as away:
                raise _unavailable(away.retry_after_seconds) from None
            if isinstance(again, Disabled):
                await self._end(caller, family)
                self._refuse_disabled(EventType.REQUEST_REFUSED, caller, subject, family)
            answer = again
        raise _unavailable()

    async def before_refresh(
        self, caller: Caller, family: FamilyId, looked: Spent, require_fit: Callable[[str, str], None]
    ) -> bool:
        """Brings what is known of the subject up to date, so that spending the token gives it; says whether the source did
        answer.

        ``looked`` is what spending would give now. ``require_fit`` is called with the roles and private claims that it is going
        to give, and may refuse. Raises ``SUBJECT_DISABLED`` (the session is over then), ``CLAIMS_SOURCE_UNAVAILABLE`` and ``FAMILY_REVOKED``.
        """
        asked_after_sequence = looked.sequence
        for _ in range(MAX_QUESTIONS):
            try:
                answer = await self.source.ask(_question(Occasion.REFRESH, caller, looked.subject, family))
            except SourceAwayError as away:
                if (
                    self.when_away_at_refresh is WhenAway.REFUSE
                    and looked.verdict is not SpendVerdict.REPEATED
                ):
                    raise _unavailable(away.retry_after_seconds) from None
                return False
            if isinstance(answer, Disabled):
                await self._end(caller, family)
                self._refuse_disabled(EventType.REFRESH_REFUSED, caller, looked.subject, family)
            # Asked again because something else is known by now: to say what was known before is a change, too.
            if asked_after_sequence == looked.sequence and not _differs(answer, looked):
                return True
            roles = looked.roles if answer.roles is None else serialised_roles(answer.roles)
            require_fit(roles, answer.private)
            newest = await self._note(caller, looked.subject, family, answer, asked_after_sequence)
            if newest is None:
                return True
            asked_after_sequence = newest
        raise _unavailable()

    async def _note(
        self, caller: Caller, subject: str, family: FamilyId, answer: Active, asked_after_sequence: int
    ) -> int | None:
        """``None`` when it is noted; else up to which sequence number something else was, so that to ask again helps."""
        noted = await self.known.note(
            family,
            subject,
            client_id=caller.client_id,
            roles=answer.roles,
            private=answer.private,
            asked_after_sequence=asked_after_sequence,
            event_id=new_event_id(),
            circumstances=caller.circumstances,
        )
        match noted.verdict:
            case NoteVerdict.NOTED:
                return None
            case NoteVerdict.ASK_AGAIN:
                return noted.sequence
            case NoteVerdict.ENDED:
                raise IdentityError(
                    Reason.FAMILY_REVOKED, "The session was ended meanwhile; log in again.", recorded=True
                )
            case NoteVerdict.OUTBOX_FULL:
                raise audit_unavailable()
            case _:
                assert_never(noted.verdict)

    async def _end(self, caller: Caller, family: FamilyId) -> None:
        await self.revocations.revoke_family(
            family,
            only_client_id=None,
            cause=RevocationCause.ACCOUNT_DISABLED,
            reason=EndReason.SUBJECT_DISABLED,
            event_id=new_event_id(),
            circumstances=caller.circumstances,
        )

    def _refuse_disabled(
        self, event_type: EventType, caller: Caller, subject: str, family: FamilyId
    ) -> NoReturn:
        session_id = str(family) if event_type is EventType.REFRESH_REFUSED else ""
        self.recorder.record(
            Event(
                event_type,
                Outcome.REFUSED,
                caller.circumstances,
                Reason.SUBJECT_DISABLED,
                subject,
                session_id,
            )
        )
        raise IdentityError(Reason.SUBJECT_DISABLED, "This subject may have no tokens.", recorded=True)


def without_answer(circumstances: Circumstances) -> Circumstances:
    """Those of tokens that are given while the source is away, for whoever has to find them later."""
    return replace(circumstances, detail=_WITHOUT_ANSWER)


def _question(occasion: Occasion, caller: Caller, subject: str, family: FamilyId) -> Question:
    return Question(subject, occasion, caller.client_id, str(family), caller.traceparent)


def _differs(answer: Active, known: Spent) -> bool:
    roles_differ = answer.roles is not None and answer.roles != tuple(sorted(json.loads(known.roles)))
    return roles_differ or answer.private != known.private_claims


def _unavailable(retry_after_seconds: float = 1.0) -> IdentityError:
    return IdentityError(
        Reason.CLAIMS_SOURCE_UNAVAILABLE,
        "The source of the subject's claims does not answer; try again.",
        retry_after_seconds=retry_after_seconds,
    )
