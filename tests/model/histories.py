"""A machine that makes histories of sessions: the model and the service take each step, and what they say is compared.

Time stands still but for the steps that move it, often to the very millisecond before or at which something ends.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import replace
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from model.remembered import Held, Remembered
from model.steps import (
    ATTEMPTS,
    AUDIENCE,
    BOUNDARIES,
    CLIENTS,
    DAY_MS,
    JUMPS_MS,
    MAX_SESSIONS,
    PAUSES_MS,
    REFUSED,
    ROLES,
    SCOPES,
    SESSIONS,
    SUCCEEDED,
    THEFTS,
    Answer,
    Attempt,
    compared,
    random_address,
)
from model.watched_store import Copy, WatchedStore

from grpc_identity.claims import parse_claims
from grpc_identity.encoding import decode_base64url
from grpc_identity.v1 import identity_service_pb2 as pb
from grpc_identity.v1 import tokens_pb2
from identity.sessions.issue import digest_of
from identity.store.redis.family_record import IDEMPOTENCY_DIGEST_BYTES, FamilyRecord
from identity.tokens.family import Budget, Decision, Family, Presentation, decide
from identity.tokens.family_id import FamilyId, bucket_of, subject_tag
from identity.tokens.refresh_token import RefreshToken


class Histories(RuleBasedStateMachine):
    """One history."""

    service: Any
    seen: set[str]

    def __init__(self) -> None:
        super().__init__()
        self.tag = secrets.token_hex(4)
        self.subjects = [f"alice-{self.tag}", f"bob-{self.tag}"]
        self.addresses = [random_address(ending=number) for number in (1, 2)]
        self.sessions: list[Held] = []
        self.model = Remembered()
        self.snapshot: tuple[Copy, Remembered] | None = None
        self.now_ms = time.time_ns() // 1_000_000  # noqa: TID251 - so that what expires by itself does not
        self.service.stop_the_clock_at(self.now_ms)
        self.store = WatchedStore(self.service.store, self.service.keys)

    # Steps.

    @rule(subject=st.integers(0, 1), mobile=st.booleans(), client=CLIENTS)
    def issue(self, subject: int, mobile: bool, client: str) -> None:
        if len(self.sessions) == MAX_SESSIONS:
            return
        days = 30 if mobile else 7
        kind = tokens_pb2.CLIENT_KIND_MOBILE if mobile else tokens_pb2.CLIENT_KIND_WEB
        name = self.subjects[subject]
        request = pb.IssueTokensRequest(
            subject=name, audience=AUDIENCE, scopes=SCOPES, client_kind=kind, roles=ROLES
        )
        tokens = self.service.stub.IssueTokens(request, metadata=self.service.metadata[client]).tokens
        (event,) = self.store.new_events()
        assert (event["type"], event["subject"], event["session"]) == (
            "tokens.issued",
            name,
            tokens.session_id,
        )
        token = self.codec.decode(tokens.refresh_token)
        self.sessions.append(Held(token.family, name, token.family_secret))
        assert int(event["at"]) == self.now_ms
        now_ms = self.now_ms
        self.model.families[token.family] = Family(
            secret_hash=token.family_secret_hash,
            client_id=client,
            generation=0,
            rotation_key=b"",
            rotated_ms=now_ms,
            used_ms=now_ms,
            expires_ms=now_ms + days * DAY_MS,
            idle_ms=min(days, self.service.idle_days[client]) * DAY_MS,
            started_at_sequence=int(event["seq"]),
            scopes=frozenset(SCOPES),
            audience=frozenset(AUDIENCE),
        )

    @precondition(lambda self: self.sessions)
    @rule(attempts=st.lists(ATTEMPTS, min_size=1, max_size=6))
    def refresh(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            self._present(attempt)
            self.stored_is_what_the_model_says()

    @precondition(lambda self: self.sessions)
    @rule(which=SESSIONS, times=st.integers(1, 5), pause_ms=PAUSES_MS, lost=st.booleans())
    def a_session_is_used_for_a_while(self, which: int, times: int, pause_ms: int, lost: bool) -> None:
        """As a good client does; where an answer was lost it asks again."""
        for _ in range(times):
            self._go_to(self.now_ms + pause_ms)
            self._present(Attempt(which, 0, "new", "own", (), (), None, wrong_secret=False))
            if lost:
                self._present(Attempt(which, 1, "same", "own", (), (), None, wrong_secret=False))

    @precondition(lambda self: self.sessions)
    @rule(which=SESSIONS, by=st.sampled_from(["session", "token", "subject", "client"]))
    def revoke(self, which: int, by: str) -> None:
        held = self._held(which)
        owner = self._owner(held)
        token = self.codec.encode(RefreshToken(held.family, held.newest, held.secret))
        request = {
            "session": pb.RevokeRequest(session_id=str(held.family)),
            "token": pb.RevokeRequest(token=token),
            "subject": pb.RevokeRequest(subject=held.subject),
            "client": pb.RevokeRequest(client_id=owner),
        }[by]
        counters = self.store.counters()
        self.service.stub.Revoke(request, metadata=self.service.metadata[owner])
        (event,) = self.store.new_events()
        sequence = int(event["seq"])
        match by:
            case "subject":
                self.model.subject_cut_offs[held.subject] = sequence
                assert event["type"] == "subject.revoked"
            case "client":
                own = bucket_of(subject_tag(owner), len(counters))
                for bucket, counter in enumerate(counters):
                    self.model.client_cut_offs[owner, bucket] = sequence if bucket == own else counter
                assert event["type"] == "client.revoked"
            case _:
                family = self.model.families.get(held.family)
                if family is not None:
                    revoked = family.revoked or "REVOKED_BY_ADMIN"
                    self.model.families[held.family] = replace(family, revoked=revoked)
                expected = "revocation.of_unknown" if family is None else "session.revoked"
                assert (event["type"], event["session"]) == (expected, str(held.family))

    @rule(subject=st.integers(0, 1), attempt=ATTEMPTS)
    def a_client_is_revoked_right_after_a_session_has_started(self, subject: int, attempt: Attempt) -> None:
        """With nothing in between that the bucket of the session would count."""
        if len(self.sessions) == MAX_SESSIONS:
            return
        self.issue(subject=subject, mobile=False, client="web")
        newest = len(self.sessions) - 1
        self.revoke(which=newest, by="client")
        self._present(replace(attempt, which=newest, behind=0, client="own", wrong_secret=False))

    @precondition(lambda self: self.sessions)
    @rule(jump_ms=JUMPS_MS)
    def time_passes(self, jump_ms: int) -> None:
        self._go_to(self.now_ms + jump_ms)

    @precondition(lambda self: self.sessions)
    @rule(which=SESSIONS, boundary=BOUNDARIES, before=st.booleans(), attempt=ATTEMPTS)
    def a_boundary_is_met(self, which: int, boundary: str, before: bool, attempt: Attempt) -> None:
        """One attempt at the very millisecond."""
        held = self._held(which)
        family = self.model.families.get(held.family)
        if family is None:
            return
        here = self.service.keys.of_family(held.family).index
        budgets = [self.model.addresses.get((ip, here), (Budget(), Budget())) for ip in self.addresses]
        rules, address = self.service.rules, attempt.address or 0
        ends = {
            "leeway": family.rotated_ms + rules.leeway_ms,
            "retry window": family.rotated_ms + rules.retry_window_ms,
            "recovery": family.used_ms + rules.recovery_window_ms,
            "idle": family.used_ms + family.idle_ms,
            "absolute": family.expires_ms,
            "budget": family.budget.free_at_ms(rules.per_family),
            "successes": budgets[address][0].free_at_ms(rules.address_successes),
            "failures": budgets[address][1].free_at_ms(rules.address_failures),
        }
        self._go_to(ends[boundary] - before)
        if boundary in ("leeway", "retry window"):
            attempt = replace(attempt, behind=1, key="same", client="own", wrong_secret=False)
        if boundary == "recovery":
            attempt = replace(attempt, behind=-1, client="own", wrong_secret=False)
        self._present(replace(attempt, which=which))

    @precondition(lambda self: self.sessions)
    @rule(attempt=ATTEMPTS)
    def the_outbox_is_full(self, attempt: Attempt) -> None:
        with self.service.full_outbox():
            self._present(attempt, outbox_is_full=True)

    @precondition(lambda self: self.sessions)
    @rule(which=SESSIONS, roles=st.sampled_from([None, (), ("guest",), ("clerk", "boss")]))
    def permissions_change(self, which: int, roles: tuple[str, ...] | None) -> None:
        held = self._held(which)
        request = pb.RevokeRequest(
            subject=held.subject,
            access_tokens_only=True,
            new_roles=None if roles is None else pb.Roles(roles=roles),
        )
        self.service.stub.Revoke(request, metadata=self.service.metadata["web"])
        (event,) = self.store.new_events()
        assert event["type"] == "subject.access_tokens_revoked"
        if roles is not None:
            self.model.roles[held.subject] = (int(event["seq"]), sorted(roles))

    @rule()
    def scripts_are_forgotten(self) -> None:
        self.service.store.script_flush()

    @rule()
    def the_server_secret_rotates(self) -> None:
        """Tokens made with the one before stay good."""
        codec = self.codec
        newest = codec._active_id % 255 + 1
        codec._secrets = {codec._active_id: codec._secrets[codec._active_id], newest: secrets.token_bytes(32)}
        codec._active_id = newest

    @precondition(lambda self: self.sessions and self.snapshot is None)
    @rule()
    def a_replica_falls_behind(self) -> None:
        self.snapshot = (self.store.copy(self._keys()), self.model.copy())

    @precondition(lambda self: self.snapshot is not None)
    @rule()
    def a_failover_loses_what_the_replica_did_not_have(self) -> None:
        assert self.snapshot is not None
        copy, self.model = self.snapshot
        # Sessions that were started meanwhile are unknown, which is what the model says of them, too.
        self.store.go_back(copy, self._keys())
        self.snapshot = None

    # What must be so after every step.

    @invariant()
    def stored_is_what_the_model_says(self) -> None:
        for held in self.sessions:
            stored = self.service.store.get(self._family_key(held.family))
            family = self.model.families.get(held.family)
            if family is None:
                assert not stored
                continue
            record = FamilyRecord.parse(stored)
            assert record.generation == family.generation
            assert record.rotation_key == family.rotation_key[:IDEMPOTENCY_DIGEST_BYTES]
            assert (record.rotated_ms, record.used_ms) == (family.rotated_ms, family.used_ms)
            # A budget that lies behind the last use says nothing any more.
            assert record.budget_arrival_ms == max(family.budget.arrival_ms, family.used_ms)
            assert (record.ending and record.ending.reason) == family.revoked
            assert record.ip_address == self.model.end_users.get(held.family, "")
            assert (record.earlier_steps, record.steps) == (family.earlier_steps, family.steps)

    # How the steps are made.

    @property
    def codec(self) -> Any:
        return self.service.server.refresh_tokens

    def _held(self, which: int) -> Held:
        return self.sessions[which % len(self.sessions)]

    def _owner(self, held: Held) -> str:
        family = self.model.families.get(held.family)
        return "web" if family is None else family.client_id

    def _go_to(self, now_ms: int) -> None:
        self.now_ms = max(self.now_ms, now_ms)
        self.service.stop_the_clock_at(self.now_ms)

    def _present(self, attempt: Attempt, *, outbox_is_full: bool = False) -> None:
        held = self._held(attempt.which)
        generation = max(0, held.newest - attempt.behind)
        secret = secrets.token_bytes(20) if attempt.wrong_secret else held.secret
        token = RefreshToken(held.family, generation, secret)
        text = {"": "", "same": held.last_key, "new": secrets.token_hex(4)}[attempt.key]
        owner = self._owner(held)
        caller = owner if attempt.client == "own" else {"web": "other", "other": "web"}[owner]
        ip = None if attempt.address is None else self.addresses[attempt.address]
        request = pb.RefreshRequest(
            refresh_token=self.codec.encode(token),
            idempotency_key=text,
            scopes=attempt.scopes,
            audience=attempt.audience,
        )
        if ip:
            request.client_context.ip_address = ip
        answer, tokens = self._refreshed(request, caller)
        before = self.model.families.get(held.family)
        was_alive = before is not None and before.revoked is None
        last_user = self.model.end_users.get(held.family, "")
        model = self.model.copy()
        decision = self._decide(held, token, text, caller, attempt, ip, self.now_ms)
        if outbox_is_full and not (decision.verdict in THEFTS and was_alive):
            # A theft is never withheld; all else waits, and nothing has changed.
            self.model = model
            assert (answer.reason, self.store.new_events()) == ("AUDIT_UNAVAILABLE", [])
            return
        assert answer == self._answer(decision)
        self.seen.add(decision.verdict)
        (event,) = self.store.new_events()
        self._check_event(event, decision, held, generation, was_alive, last_user)
        if tokens is None:
            return
        held.newest = answer.generation
        if decision.verdict not in ("REPEATED", "REPORTED"):
            held.last_key = text
        if ip and decision.verdict != "REPORTED":
            self.model.end_users[held.family] = ip
        self._check_claims(tokens.access_token, held, attempt)

    def _decide(
        self,
        held: Held,
        token: RefreshToken,
        key: str,
        caller: str,
        attempt: Attempt,
        ip: str | None,
        now_ms: int,
    ) -> Decision:
        bucket = self.service.keys.of_family(held.family).index
        none = (Budget(), Budget())
        decision = decide(
            self.model.families.get(held.family),
            Presentation(
                secret_hash=token.family_secret_hash,
                client_id=caller,
                generation=token.generation,
                idempotency_key=digest_of(key) if key else b"",
                scopes=frozenset(attempt.scopes),
                audience=frozenset(attempt.audience),
                ip_address=ip or "",
                reuse_is_reported=caller in self.service.reporting,
            ),
            self.service.rules,
            now_ms=now_ms,
            subject_cut_off=self.model.subject_cut_offs.get(held.subject, -1),
            client_cut_off=self.model.client_cut_offs.get((caller, bucket), -1),
            address=None if ip is None else self.model.addresses.get((ip, bucket), none),
        )
        if decision.family is not None:
            self.model.families[held.family] = decision.family
        if ip is not None and decision.address is not None:
            self.model.addresses[ip, bucket] = decision.address
        return decision

    def _refreshed(
        self, request: pb.RefreshRequest, caller: str
    ) -> tuple[Answer, tokens_pb2.TokenSet | None]:
        try:
            tokens = self.service.stub.Refresh(request, metadata=self.service.metadata[caller]).tokens
        except grpc.RpcError as error:
            reason, wait_ms = "", 0
            for detail in rpc_status.from_call(error).details:
                if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                    info = error_details_pb2.ErrorInfo()
                    detail.Unpack(info)
                    reason = info.reason
                elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                    retry = error_details_pb2.RetryInfo()
                    detail.Unpack(retry)
                    wait_ms = retry.retry_delay.ToMilliseconds()
            return Answer(reason, wait_ms), None
        return Answer(generation=self.codec.decode(tokens.refresh_token).generation), tokens

    @staticmethod
    def _answer(decision: Decision) -> Answer:
        if decision.verdict in SUCCEEDED:
            assert decision.family is not None
            return Answer(generation=decision.family.generation)
        return Answer(REFUSED[decision.verdict], decision.retry_after_ms)

    def _check_event(
        self,
        event: dict[str, str],
        decision: Decision,
        held: Held,
        presented: int,
        was_alive: bool,
        last_user: str,
    ) -> None:
        assert (event["session"], int(event["at"])) == (str(held.family), self.now_ms)
        if decision.verdict in SUCCEEDED:
            assert decision.family is not None
            expected = (SUCCEEDED[decision.verdict], "success", "", str(decision.family.generation))
            if decision.verdict == "REPORTED":
                expected = (expected[0], "success", REFUSED["REUSED"], str(presented))
        else:
            kind = THEFTS.get(decision.verdict) if was_alive else None
            expected = (kind or "refresh.refused", "refused", REFUSED[decision.verdict], str(presented))
        assert (event["type"], event["outcome"], event["reason"], event["generation"]) == expected
        assert json.loads(event["circumstances"])["client"] in ("web", "other")
        if event["type"] == "refresh.reuse_detected":
            assert decision.family is not None
            evidence = json.loads(event["evidence"])
            assert evidence["distance"] == decision.family.generation - presented
            spent = {step.generation: step.spent_seconds * 1000 for step in decision.family.steps}
            spent[decision.family.generation - 1] = decision.family.rotated_ms  # to the millisecond
            since = self.now_ms - spent[presented] if presented in spent else -1
            assert evidence["since_spent_ms"] == since
            assert evidence["address"] == compared(last_user, event["circumstances"])
        else:
            assert event["evidence"] == ""

    def _check_claims(self, access_token: str, held: Held, attempt: Attempt) -> None:
        claims = parse_claims(decode_base64url(access_token.split(".")[1].encode()))
        family = self.model.families[held.family]
        changed_at, roles = self.model.roles.get(held.subject, (-1, []))
        if family.started_at_sequence > changed_at:
            roles = list(ROLES)
        assert sorted(claims.roles) == roles
        assert claims.scopes == frozenset(attempt.scopes or SCOPES)
        assert claims.audience == frozenset(attempt.audience or AUDIENCE)
        assert (claims.subject, claims.session_id) == (held.subject, str(held.family))
        assert claims.issued_at_seconds == self.now_ms // 1000

    def _family_key(self, family: FamilyId) -> str:
        return str(self.service.keys.of_family(family).family(family))

    def _keys(self) -> list[str]:
        """Every key that this history can have touched."""
        names = [self._family_key(held.family) for held in self.sessions]
        for bucket in self.service.keys.buckets:
            names += [bucket.outbox, bucket.ledger, bucket.revocations]
            names += [bucket.client(client) for client in ("web", "other")]
            names += [bucket.address(address) for address in self.addresses]
        for subject in self.subjects:
            bucket = self.service.keys.of_name(subject)
            names += [bucket.subject(subject_tag(subject)), bucket.families(subject_tag(subject))]
        return names
