"""What the source says is in the tokens: at once when a session starts, and with the next refresh after it has changed."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from claims_source.source import active, claims_of, disabled

from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import claims_source_pb2 as source_pb2
from grpc_identity.v1 import clients_pb2, sessions_pb2
from grpc_identity.v1 import identity_service_pb2 as pb


def says(tokens: Any) -> tuple[list[str], dict[str, Any]]:
    claims = claims_of(tokens)
    return sorted(claims.roles), dict(claims.private)


def types_in(events: list[dict[str, str]]) -> list[str]:
    return [event["type"] for event in events]


async def test_the_roles_of_the_source_take_the_place_of_those_asked_for(
    source: Any, new_session: Any
) -> None:
    source.answer = active("clerk", "auditor", tenant="acme")
    session = await new_session(roles=["admin"])
    assert says(session.tokens) == (["auditor", "clerk"], {"tenant": "acme"})
    assert says(await session.refresh()) == (["auditor", "clerk"], {"tenant": "acme"})
    source.answer = source_pb2.GetClaimsResponse(state=source_pb2.SUBJECT_STATE_ACTIVE)
    another = await new_session("bob", roles=["admin"])
    assert says(another.tokens) == (["admin"], {})


async def test_the_source_learns_who_asks_for_whom_and_why(
    source: Any, service: Any, new_session: Any
) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    session = await new_session(caller=(*service.login, ("traceparent", traceparent)))
    await session.refresh()
    issue, refresh = source.asked
    for question in (issue, refresh):
        assert (question.subject, question.client_id) == ("alice", "login")
        assert question.session_id == session.tokens.session_id
    assert issue.occasion == source_pb2.CLAIMS_OCCASION_ISSUE
    assert refresh.occasion == source_pb2.CLAIMS_OCCASION_REFRESH
    assert source.metadata[0]["traceparent"] == traceparent


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["admin"]),
        (["admin"], []),
        (["admin"], ["clerk", "guest"]),
    ],
    ids=["given", "taken", "replaced"],
)
async def test_a_changed_role_arrives_with_the_next_refresh(
    source: Any, service: Any, events_of: Any, new_session: Any, before: list[str], after: list[str]
) -> None:
    source.answer = active(*before)
    session = await new_session()
    assert says(await session.refresh()) == (before, {})
    source.answer = active(*after)
    assert says(await session.refresh()) == (after, {})
    assert says(await session.refresh()) == (after, {})
    assert (types_in(await events_of(service))).count(
        "subject.claims_changed"
    ) == 2  # with the first session, and the change


async def test_what_has_not_changed_is_neither_written_nor_recorded(
    source: Any, service: Any, events_of: Any, new_session: Any
) -> None:
    source.answer = active("b", "a", tenant="acme", plan=["x", "y"])
    session = await new_session()
    redis = service.server.store.connection.redis
    (subject_key,) = await redis.keys(f"{service.settings.redis.key_prefix}:*:subject:*")
    before = await redis.hgetall(subject_key)
    source.answer = active("a", "b", plan=["x", "y"], tenant="acme")
    for _ in range(3):
        await session.refresh()
    assert await redis.hgetall(subject_key) == before
    assert (types_in(await events_of(service)))[-3:] == ["tokens.refreshed"] * 3
    assert len(source.asked) == 4


async def test_roles_that_the_source_does_not_speak_of_stay_as_they_are(
    source: Any, new_session: Any
) -> None:
    source.answer = active("clerk", tenant="acme")
    session = await new_session()
    silent = source_pb2.GetClaimsResponse(state=source_pb2.SUBJECT_STATE_ACTIVE)
    silent.claims.update({"plan": "gold"})
    source.answer = silent
    assert says(await session.refresh()) == (["clerk"], {"plan": "gold"})
    assert says(await session.refresh()) == (["clerk"], {"plan": "gold"})


async def test_claims_the_source_drops_are_gone_and_those_it_changes_change(
    source: Any, new_session: Any
) -> None:
    source.answer = active(tenant="acme", plan=3)
    session = await new_session()
    assert says(session.tokens) == ([], {"tenant": "acme", "plan": 3})
    source.answer = active(tenant="initech", plan=2.5)
    assert says(await session.refresh()) == ([], {"tenant": "initech", "plan": 2.5})
    source.answer = active(plan=True)
    assert says(await session.refresh()) == ([], {"plan": True})
    source.answer = active()
    assert says(await session.refresh()) == ([], {})


async def test_claims_that_the_settings_do_not_name_are_left_out(source: Any, new_session: Any) -> None:
    source.answer = active(tenant="acme", shoe_size=43, nested={"deep": ["a", {"b": None}]})
    session = await new_session()
    assert says(session.tokens) == ([], {"tenant": "acme"})
    assert says(await session.refresh()) == ([], {"tenant": "acme"})


async def test_a_change_holds_for_all_sessions_of_the_subject_also_when_the_source_is_away(
    source: Any, new_session: Any
) -> None:
    source.answer = active("admin", tenant="acme")
    first, second = await new_session(), await new_session()
    source.answer = active("guest", tenant="initech")
    third = await new_session()  # a login tells the service, too
    source.is_away = True
    for session in (first, second, third):
        assert says(await session.refresh()) == (["guest"], {"tenant": "initech"})
    source.is_away = False
    source.answer = active("clerk")
    await first.refresh()
    source.is_away = True
    for session in (first, second, third):
        assert says(await session.refresh()) == (["clerk"], {})


async def test_a_service_reads_the_claims_of_its_caller(source: Any, service: Any, new_session: Any) -> None:
    from grpc_identity import Issuer, Verifier

    source.answer = active(tenant="acme")
    session = await new_session()
    await service.new_client("orders", clients_pb2.ClientPolicy(grants=["GRANT_VERIFY", "GRANT_EXCHANGE"]))
    issuer = Issuer("https://id.example", target=service.addresses.grpc_target, audience="orders")
    async with Verifier(issuer) as verifier:
        assert verifier.verify(session.tokens.access_token).claims["tenant"] == "acme"


async def test_an_exchanged_token_keeps_the_claims_and_nobody_is_asked(
    source: Any, service: Any, new_session: Any
) -> None:
    source.answer = active("clerk", tenant="acme", plan=["a", "b"])
    session = await new_session()
    policy = clients_pb2.ClientPolicy(
        grants=["GRANT_EXCHANGE"], subjects=["*"], audiences=["orders"], scopes=["*"]
    )
    orders = await service.new_client("orders", policy)
    exchanged = await service.identity.ExchangeToken(
        pb.ExchangeTokenRequest(subject_token=session.tokens.access_token, scopes=["orders.read"]),
        metadata=orders,
    )
    assert says(exchanged.tokens) == (["clerk"], {"tenant": "acme", "plan": ("a", "b")})
    assert len(source.asked) == 1


async def test_a_clients_token_of_its_own_is_given_without_asking(source: Any, service: Any) -> None:
    source.answer = disabled()
    answer = await service.identity.IssueTokens(
        pb.IssueTokensRequest(audience=["orders"]), metadata=service.login
    )
    assert answer.tokens.access_token
    assert not source.asked


async def test_a_disabled_subject_gets_no_session(
    source: Any, service: Any, events_of: Any, new_session: Any, refused: Any
) -> None:
    source.answer = disabled()
    refusal = await refused(new_session())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SUBJECT_DISABLED")
    (event,) = await events_of(service)
    assert (event["type"], event["reason"]) == ("request.refused", "SUBJECT_DISABLED")
    listed = await service.identity.ListSessions(
        pb.ListSessionsRequest(subject="alice"), metadata=service.login
    )
    assert not listed.sessions


async def test_a_disabled_subjects_session_ends_with_its_next_refresh(
    source: Any, service: Any, events_of: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    source.answer = disabled()
    refusal = await refused(session.refresh(key="a"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SUBJECT_DISABLED")
    explained = await service.administration.ExplainSession(
        admin_pb.ExplainSessionRequest(session_id=session.tokens.session_id), metadata=service.admin
    )
    assert explained.end_reason == sessions_pb2.SESSION_END_REASON_SUBJECT_DISABLED
    assert explained.revocation_reason == sessions_pb2.REVOCATION_REASON_ACCOUNT_DISABLED
    assert (explained.state, explained.generation) == (sessions_pb2.SESSION_STATE_REVOKED, 0)
    events = await events_of(service)
    assert [(event["type"], event["reason"]) for event in events[-2:]] == [
        ("session.revoked", "ACCOUNT_DISABLED"),
        ("refresh.refused", "SUBJECT_DISABLED"),
    ]
    assert {event["session"] for event in events[-2:]} == {session.tokens.session_id}
    source.answer = active("clerk")  # and it stays over
    assert (await refused(session.refresh(key="a"))).reason == "FAMILY_REVOKED"
    await (await new_session()).refresh()


async def test_the_access_tokens_of_a_disabled_subjects_session_end_with_it(
    source: Any, service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    source.answer = disabled()
    await refused(session.refresh())
    introspected = await service.identity.Introspect(
        pb.IntrospectRequest(token=session.tokens.access_token), metadata=service.login
    )
    assert not introspected.active


async def test_a_retried_start_asks_again_and_finds_its_session(
    source: Any, new_session: Any, refused: Any
) -> None:
    source.answer = active("clerk")
    first = await new_session(idempotency_key="a", roles=["x"])
    source.answer = active("boss")
    again = await new_session(idempotency_key="a", roles=["x"])
    assert again.tokens.session_id == first.tokens.session_id
    assert says(again.tokens) == (["boss"], {})
    assert says(await again.refresh()) == (["boss"], {})
    assert (await refused(new_session(idempotency_key="a", roles=["y"]))).reason == "IDEMPOTENCY_KEY_REUSED"


async def test_a_lost_answer_is_repeated_with_what_is_true_by_then(source: Any, new_session: Any) -> None:
    session = await new_session()
    spent = session.tokens.refresh_token
    first = await session.refresh(spent, key="a")
    source.answer = active("boss")
    again = await session.refresh(spent, key="a")
    assert again.refresh_token == first.refresh_token
    assert says(again) == (["boss"], {})


async def test_of_two_answers_the_one_asked_for_later_holds(source: Any, new_session: Any) -> None:
    first, second = await new_session(), await new_session()

    async def meanwhile() -> None:
        assert says(await second.refresh()) == (["new"], {})

    # The first question is answered with what was true when it came; while it is on its way back, all of that changes.
    source.next_answers, source.answer = [active("old")], active("new")
    source.before_answering = meanwhile
    assert says(await first.refresh()) == (["new"], {})
    source.is_away = True
    for session in (first, second):
        assert says(await session.refresh()) == (["new"], {})


async def test_a_change_that_is_taken_back_at_once_leaves_what_was(source: Any, new_session: Any) -> None:
    first, second = await new_session(), await new_session()

    async def meanwhile() -> None:
        assert says(await second.refresh()) == (["passing"], {})

    # Answers: on its way back, what another session hears meanwhile, and, asked again, what was known at first.
    source.next_answers = [active("older"), active("passing")]
    source.before_answering = meanwhile
    assert says(await first.refresh()) == (["clerk"], {})
    source.is_away = True
    for session in (first, second):
        assert says(await session.refresh()) == (["clerk"], {})


async def test_a_session_that_starts_with_an_older_answer_does_not_bring_it_back(
    source: Any, new_session: Any
) -> None:
    session = await new_session()

    async def meanwhile() -> None:
        await session.refresh()

    source.next_answers, source.answer = [active("old")], active("new")
    source.before_answering = meanwhile
    another = await new_session(roles=["asked"])
    assert says(another.tokens) == (["new"], {})
    source.is_away = True
    for one in (session, another):
        assert says(await one.refresh()) == (["new"], {})


async def test_a_subject_that_is_disabled_while_its_session_starts_has_none(
    source: Any, service: Any, new_session: Any, refused: Any, events_of: Any
) -> None:
    await new_session()
    # What the first answer says is not what is known, so there is a second question.
    source.next_answers, source.answer = [active("boss")], disabled()
    assert (await refused(new_session())).reason == "SUBJECT_DISABLED"
    events = await events_of(service)
    started = [event["session"] for event in events if event["type"] == "tokens.issued"]
    ended = [event["session"] for event in events if event["type"] == "session.revoked"]
    assert ended == [started[1]]


async def test_a_source_that_changes_its_mind_with_each_answer_is_not_asked_for_ever(
    source: Any, service: Any, new_session: Any, refused: Any
) -> None:
    first, second = await new_session(), await new_session()

    async def meanwhile() -> None:
        source.before_answering = None
        await second.refresh()
        source.before_answering = meanwhile

    source.next_answers = [active(f"role-{number}") for number in range(20)]
    source.before_answering = meanwhile
    refusal = await refused(first.refresh(key="a"))
    assert refusal.reason == "CLAIMS_SOURCE_UNAVAILABLE"
    source.before_answering, source.next_answers = None, []
    assert len(source.asked) == 2 + 3 + 3
    await first.refresh(key="a")


@pytest.mark.parametrize("what", ["session", "subject", "client", "erased"])
async def test_a_session_that_ends_while_the_source_answers_gets_no_token_and_leaves_nothing(
    source: Any, service: Any, new_session: Any, refused: Any, what: str
) -> None:
    session = await new_session()
    targets = {
        "session": pb.RevokeRequest(session_id=session.tokens.session_id),
        "subject": pb.RevokeRequest(subject="alice"),
        "client": pb.RevokeRequest(client_id="login"),
    }

    async def meanwhile() -> None:
        if what == "erased":
            erase = pb.EraseSubjectRequest(subject="alice")
            await service.identity.EraseSubject(erase, metadata=service.admin)
        else:
            await service.identity.Revoke(targets[what], metadata=service.login)

    source.answer = active("boss", tenant="acme")
    source.before_answering = meanwhile
    assert (await refused(session.refresh())).reason == "FAMILY_REVOKED"
    redis = service.server.store.connection.redis
    for key in await redis.keys(f"{service.settings.redis.key_prefix}:*:subject:*"):
        fields = await redis.hgetall(key)
        assert b"boss" not in fields.get(b"roles", b"")
        assert b"claims" not in fields


async def test_a_theft_is_found_before_the_source_is_asked(
    source: Any, service: Any, events_of: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    spent = session.tokens.refresh_token
    await session.refresh(key="a")
    asked = len(source.asked)
    source.hanging = True
    assert (await refused(session.refresh(spent, key="b"))).reason == "REFRESH_TOKEN_REUSED"
    assert len(source.asked) == asked
    assert (types_in(await events_of(service))).count("refresh.reuse_detected") == 1


async def test_refreshes_of_many_sessions_at_once_end_in_one_change(
    source: Any, service: Any, events_of: Any, new_session: Any
) -> None:
    sessions = [await new_session() for _ in range(20)]
    source.answer = active("boss", tenant="acme")
    for tokens in await asyncio.gather(*(session.refresh() for session in sessions)):
        assert says(tokens) == (["boss"], {"tenant": "acme"})
    assert (types_in(await events_of(service))).count("subject.claims_changed") == 2


async def test_what_would_not_fit_into_a_token_is_refused_before_anything_happens(
    source: Any, service: Any, events_of: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    source.answer = active(*(f"{number}-{'x' * 100}" for number in range(10)))
    before = types_in(await events_of(service))
    for call in (new_session(), session.refresh(key="a")):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOKEN_TOO_LARGE")
    assert types_in(await events_of(service)) == before
    source.answer = active("clerk")
    await session.refresh(key="b")  # nothing was spent, so another key is no theft


async def test_roles_given_with_a_revocation_hold_until_the_source_is_asked_again(
    source: Any, service: Any, new_session: Any
) -> None:
    source.answer = active("clerk")
    session = await new_session()
    revoke = pb.RevokeRequest(subject="alice", access_tokens_only=True, new_roles=pb.Roles(roles=["boss"]))
    await service.identity.Revoke(revoke, metadata=service.login)
    source.is_away = True
    assert says(await session.refresh()) == (["boss"], {})
    source.is_away = False
    assert says(await session.refresh()) == (["clerk"], {})
    source.is_away = True
    assert says(await session.refresh()) == (["clerk"], {})


async def test_limits_count_a_refresh_once_and_are_kept_before_anybody_is_asked(
    source: Any, make_settings: Any, start_service: Any, refused: Any
) -> None:
    section = {"target": source.target, "timeout_ms": 10_000}
    limits = {"refreshes_per_family_per_minute": 3}
    service = await start_service(make_settings(claims_source=section, limits=limits))
    issue = pb.IssueTokensRequest(subject="alice", audience=["orders"])
    tokens = (await service.identity.IssueTokens(issue, metadata=service.login)).tokens
    for number in range(5):
        call = service.identity.Refresh(
            pb.RefreshRequest(refresh_token=tokens.refresh_token), metadata=service.login
        )
        if number < 3:
            tokens = (await call).tokens
        else:
            assert (await refused(call)).reason == "RATE_LIMITED"
    assert len(source.asked) == 4


async def test_nobody_is_asked_where_nothing_can_be_recorded(
    source: Any, service: Any, new_session: Any, refused: Any
) -> None:
    session = await new_session()
    store = service.server.store
    for adapter in (store.sessions, store.known_claims):
        adapter._outbox_bound = "0"
    assert (await refused(session.refresh(key="a"))).reason == "AUDIT_UNAVAILABLE"
    assert len(source.asked) == 1
    store.sessions._outbox_bound = "100000"
    source.answer = active("boss")
    assert (await refused(session.refresh(key="b"))).reason == "AUDIT_UNAVAILABLE"
    store.known_claims._outbox_bound = "100000"
    assert says(await session.refresh(key="c")) == (["boss"], {})
