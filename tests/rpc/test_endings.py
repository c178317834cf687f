"""How sessions end, what is said of that afterwards, and what is left of a subject that asks to be forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from stores import open_async_client

from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import clients_pb2, sessions_pb2
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.tokens.refresh_token import RefreshToken

OTHER = clients_pb2.ClientPolicy(
    grants=["GRANT_ISSUE", "GRANT_REFRESH", "GRANT_REVOKE"],
    subjects=["*"],
    audiences=["*"],
    scopes=["*"],
    max_sessions_per_subject=3,
)


async def explain(service: Any, session_id: str) -> Any:
    return await service.administration.ExplainSession(
        admin_pb.ExplainSessionRequest(session_id=session_id), metadata=service.admin
    )


def reason_of(explained: Any) -> str:
    return sessions_pb2.SessionEndReason.Name(explained.end_reason).removeprefix("SESSION_END_REASON_")


async def revoke(service: Any, by: Any = None, **target: Any) -> None:
    await service.identity.Revoke(pb.RevokeRequest(**target), metadata=by or service.login)


async def _expire_idle(service: Any, session: Any, refused: Any) -> None:
    service.travel(seconds=48 * 3600 + 1)


async def _expire_absolute(service: Any, session: Any, refused: Any) -> None:
    for _ in range(7):
        service.travel(seconds=23 * 3600)
        await session.refresh()
    service.travel(seconds=23 * 3600)


async def _reuse(service: Any, session: Any, refused: Any) -> None:
    spent = session.tokens.refresh_token
    await session.refresh(key="one")
    await refused(session.refresh(spent, key="two"))


async def _wrong_client(service: Any, session: Any, refused: Any) -> None:
    other = await service.new_client("other", OTHER)
    await refused(session.refresh(caller=other))


async def _logout(service: Any, session: Any, refused: Any) -> None:
    await revoke(service, session_id=session.tokens.session_id, reason="REVOCATION_REASON_LOGOUT")


async def _by_admin(service: Any, session: Any, refused: Any) -> None:
    await revoke(service, service.admin, session_id=session.tokens.session_id)


async def _with_others(service: Any, session: Any, refused: Any) -> None:
    request = pb.IssueTokensRequest(subject="alice", audience=["orders"])
    kept = await service.identity.IssueTokens(request, metadata=service.login)
    await revoke(service, all_but_session_id=kept.tokens.session_id)


async def _subject(service: Any, session: Any, refused: Any) -> None:
    await revoke(service, subject="alice", reason="REVOCATION_REASON_COMPROMISE")


async def _client(service: Any, session: Any, refused: Any) -> None:
    await revoke(service, client_id="login")


async def _disable_client(service: Any, session: Any, refused: Any) -> None:
    await service.administration.SetClientDisabled(
        admin_pb.SetClientDisabledRequest(client_id="login", disabled=True), metadata=service.admin
    )


ENDINGS: dict[str, tuple[Callable[..., Awaitable[None]], str, str]] = {
    "EXPIRED_IDLE": (_expire_idle, "", "UNSPECIFIED"),
    "EXPIRED_ABSOLUTE": (_expire_absolute, "", "UNSPECIFIED"),
    "REUSE_DETECTED": (_reuse, "login", "UNSPECIFIED"),
    "WRONG_CLIENT": (_wrong_client, "other", "UNSPECIFIED"),
    "REVOKED_BY_USER": (_logout, "login", "LOGOUT"),
    "REVOKED_BY_ADMIN": (_by_admin, "admin", "UNSPECIFIED"),
    "REVOKED_WITH_OTHERS": (_with_others, "login", "UNSPECIFIED"),
    "SUBJECT_CUTOFF": (_subject, "login", "COMPROMISE"),
    "CLIENT_CUTOFF": (_client, "login", "UNSPECIFIED"),
    "CLIENT_DISABLED": (_disable_client, "admin", "UNSPECIFIED"),
}


def test_there_is_a_case_for_every_reason() -> None:
    names = {name.removeprefix("SESSION_END_REASON_") for name in dict(sessions_pb2.SessionEndReason.items())}
    assert names == {
        *ENDINGS,
        "UNSPECIFIED",
        "SESSION_CAP",
        "SUBJECT_DISABLED",
    }  # these two have tests of their own


@pytest.mark.parametrize("reason", ENDINGS)
async def test_a_session_that_is_over_says_why_when_and_by_whom(
    service: Any, new_session: Any, refused: Any, reason: str
) -> None:
    end, ended_by, cause = ENDINGS[reason]
    session = await new_session()
    alive = await explain(service, session.tokens.session_id)
    assert (alive.state, reason_of(alive)) == (sessions_pb2.SESSION_STATE_ACTIVE, "UNSPECIFIED")
    assert not alive.HasField("ended_at")
    await end(service, session, refused)
    explained = await explain(service, session.tokens.session_id)
    assert reason_of(explained) == reason
    expected = "EXPIRED" if reason.startswith("EXPIRED") else "REVOKED"
    assert explained.state == sessions_pb2.SessionState.Value(f"SESSION_STATE_{expected}")
    assert explained.ended_by_client_id == ended_by
    assert explained.revocation_reason == sessions_pb2.RevocationReason.Value(f"REVOCATION_REASON_{cause}")
    assert explained.ended_at.seconds >= explained.session.created_at.seconds
    if reason != "CLIENT_DISABLED":
        assert (await refused(session.refresh())).code is grpc.StatusCode.UNAUTHENTICATED
        assert reason_of(await explain(service, session.tokens.session_id)) == reason  # the first one stays


async def test_the_lineage_tells_each_step_and_counts_those_that_are_not_kept(
    service: Any, new_session: Any
) -> None:
    session = await new_session()
    spent = session.tokens.refresh_token
    await session.refresh(key="a", address="192.0.2.1")
    for _ in range(2):
        await session.refresh(spent, key="a", address="192.0.2.1")  # the answer was lost, twice
    for number in range(10):
        await session.refresh(key=f"k{number}", address="192.0.2.2")
    codec = service.server.refresh_tokens
    live = codec.decode(session.tokens.refresh_token)
    ahead = codec.encode(RefreshToken(live.family, live.generation + 2, live.family_secret))
    await session.refresh(ahead, key="lost writes")
    explained = await explain(service, session.tokens.session_id)
    assert (explained.generation, explained.earlier_steps, len(explained.steps)) == (14, 4, 8)
    assert [step.generation for step in explained.steps] == [4, 5, 6, 7, 8, 9, 10, 13]
    assert [step.recovered for step in explained.steps] == [False] * 7 + [True]
    assert {step.ip_address for step in explained.steps} == {"192.0.2.2", ""}
    times = [step.spent_at.ToMilliseconds() for step in explained.steps]
    assert times == sorted(times)

    short = await new_session()
    spent = short.tokens.refresh_token
    await short.refresh(key="a")
    for _ in range(2):
        await short.refresh(spent, key="a")
    (step,) = (await explain(service, short.tokens.session_id)).steps
    assert (step.generation, step.retries_answered) == (0, 2)


async def test_of_a_session_that_is_not_stored_nothing_is_said(service: Any, refused: Any) -> None:
    for session_id in ("", "nonsense", "x" * 32):
        explained = await explain(service, session_id)
        assert explained == admin_pb.ExplainSessionResponse()
    request = admin_pb.ExplainSessionRequest(session_id="x" * 32)
    call = service.administration.ExplainSession(request, metadata=service.login)
    assert (await refused(call)).reason == "GRANT_MISSING"


async def test_one_session_too_many_ends_the_one_that_was_not_used_for_longest(
    service: Any, new_session: Any, refused: Any
) -> None:
    other = await service.new_client("other", OTHER)
    elsewhere = await new_session()
    first, second, third = [await new_session(caller=other) for _ in range(3)]
    service.travel(seconds=1)
    await first.refresh(caller=other)
    fourth = await new_session(caller=other)
    refusal = await refused(second.refresh(caller=other))
    assert refusal.reason == "FAMILY_REVOKED"
    assert reason_of(await explain(service, second.tokens.session_id)) == "SESSION_CAP"
    for alive in (first, third, fourth):
        await alive.refresh(caller=other)
    await elsewhere.refresh()  # another client's
    await revoke(service, other, session_id=third.tokens.session_id)
    fifth = await new_session(caller=other)  # there was room
    for alive in (first, fourth, fifth):
        await alive.refresh(caller=other)


async def test_logging_out_everywhere_else_keeps_the_session_that_asks(
    service: Any, new_session: Any, refused: Any
) -> None:
    sessions = [await new_session() for _ in range(5)]
    bobs = await new_session("bob")
    await sessions[1].refresh()
    await revoke(service, all_but_session_id=sessions[2].tokens.session_id)
    for number, session in enumerate(sessions):
        if number == 2:
            await session.refresh()
        else:
            assert (await refused(session.refresh())).reason == "FAMILY_REVOKED"
    await bobs.refresh()
    listed = await service.identity.ListSessions(
        pb.ListSessionsRequest(subject="alice", current_session_id=sessions[2].tokens.session_id),
        metadata=service.login,
    )
    assert [(item.session_id, item.current) for item in listed.sessions] == [
        (sessions[2].tokens.session_id, True)
    ]


async def test_only_its_own_client_may_end_the_others_of_a_session(
    service: Any, new_session: Any, refused: Any
) -> None:
    sessions = [await new_session() for _ in range(2)]
    other = await service.new_client("other", OTHER)
    refusal = await refused(revoke(service, other, all_but_session_id=sessions[0].tokens.session_id))
    assert refusal.reason == "REVOCATION_NOT_ALLOWED"
    await sessions[1].refresh()
    await revoke(service, service.admin, all_but_session_id=sessions[0].tokens.session_id)
    assert (await refused(sessions[1].refresh())).reason == "FAMILY_REVOKED"
    await revoke(service, all_but_session_id="x" * 32)  # unknown is success (RFC 7009)


async def test_an_erased_subject_leaves_nothing_but_the_record_and_a_cut_off(
    service: Any, new_session: Any, refused: Any
) -> None:
    subject = "alice-who-leaves"
    sessions = [await new_session(subject) for _ in range(3)]
    await sessions[0].refresh(address="192.0.2.77")
    bobs = await new_session("bob")
    await revoke(service, subject=subject, access_tokens_only=True, new_roles=pb.Roles(roles=["clerk"]))
    erase = pb.EraseSubjectRequest(subject=subject)
    erased = await service.identity.EraseSubject(erase, metadata=service.admin)
    assert erased.sessions_removed == 3
    assert erased.entries_removed == 2  # the list of sessions, and the roles
    assert (await refused(sessions[0].refresh())).reason == "REFRESH_TOKEN_INVALID"
    again = await service.identity.EraseSubject(erase, metadata=service.admin)
    assert (again.sessions_removed, again.entries_removed) == (0, 1)  # the cut-off, made anew
    await bobs.refresh()

    store = open_async_client(service.settings.redis.url.get_secret_value())
    prefix = service.settings.redis.key_prefix
    left = []
    async for key in store.scan_iter(f"{prefix}:*"):
        kind = await store.type(key)
        if kind == b"hash":
            left.append((key, str(await store.hgetall(key))))
        elif kind == b"string":
            left.append((key, str(await store.get(key))))
    await store.aclose()
    assert not [
        key for key, text in left if subject in text or "192.0.2.77" in text or "\\xc0\\x00\\x02M" in text
    ]
    # Whoever comes back is new.
    await (await new_session(subject)).refresh()


async def test_who_may_erase_is_asked(service: Any, refused: Any) -> None:
    erase = pb.EraseSubjectRequest(subject="alice")
    call = service.identity.EraseSubject(erase, metadata=service.login)
    assert (await refused(call)).reason == "GRANT_MISSING"
    eraser = await service.new_client(
        "eraser", clients_pb2.ClientPolicy(grants=["GRANT_ERASE"], subjects=["bob"])
    )
    call = service.identity.EraseSubject(erase, metadata=eraser)
    assert (await refused(call)).reason == "SUBJECT_NOT_ALLOWED"


async def test_refreshing_while_being_erased_leaves_nothing_alive(service: Any, new_session: Any) -> None:
    sessions = [await new_session("carol") for _ in range(20)]
    erase = service.identity.EraseSubject(pb.EraseSubjectRequest(subject="carol"), metadata=service.admin)
    outcomes = await asyncio.gather(
        *(session.refresh() for session in sessions), erase, return_exceptions=True
    )
    assert outcomes[-1].sessions_removed == 20
    outcomes = await asyncio.gather(*(session.refresh() for session in sessions), return_exceptions=True)
    assert all(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes)
