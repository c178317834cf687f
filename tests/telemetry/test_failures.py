"""The log has one line for each call that was refused for who calls or what it asks for, and a flood does not fill it."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from conftest import LOGIN_POLICY

from grpc_identity.v1 import clients_pb2
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.audit.folding import FOLD_BEYOND, FOLD_WINDOW_SECONDS, MAX_CAUSES, Folding
from identity.audit.pseudonym import PseudonymKey
from identity.cli.logs import configure_logging
from identity.telemetry.redaction import redacted

AUTH = "identity.auth"
SERVICE = "grpc_identity.v1.IdentityService"


async def refused(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await call


async def test_a_line_says_who_asked_for_whom_from_where_and_why_not(service: Any, written_log: Any) -> None:
    policy = clients_pb2.ClientPolicy(
        grants=["GRANT_ISSUE"], subjects=["guest-*"], audiences=["orders"], may_forward_client_context=True
    )
    kiosk = await service.new_client("kiosk", policy)
    request = pb.IssueTokensRequest(subject="root", audience=["orders"])
    request.client_context.ip_address = "192.0.2.7"
    request.client_context.user_agent = "Kiosk/1.0"
    await refused(service.identity.IssueTokens(request, metadata=kiosk))
    (line,) = written_log.of(AUTH)
    del line["time"]
    assert line == {
        "level": "WARNING",
        "logger": AUTH,
        "message": "authentication failure",
        "rpc.method": f"{SERVICE}/IssueTokens",
        "error.type": "SUBJECT_NOT_ALLOWED",
        "identity.client.id": "kiosk",
        "identity.client.authenticated": True,
        "network.peer.address": "127.0.0.1",
        "client.address": "192.0.2.7",
        "user_agent.original": "Kiosk/1.0",
        "user.id": "root",
    }


async def test_who_could_not_say_who_it_is_is_believed_in_nothing(service: Any, written_log: Any) -> None:
    from conftest import basic

    request = pb.IssueTokensRequest(subject="alice")
    request.client_context.ip_address = "192.0.2.7"
    await refused(service.identity.IssueTokens(request, metadata=basic("login", "wrong")))
    await refused(service.identity.IssueTokens(request, metadata=basic("nobody", "wrong")))
    known, unknown = written_log.of(AUTH)
    assert (known["identity.client.id"], known["identity.client.authenticated"]) == ("login", False)
    assert "identity.client.id" not in unknown
    for line in (known, unknown):
        assert line["error.type"] == "CLIENT_UNAUTHENTICATED"
        assert line["user.id"] == "alice"
        assert line["user_agent.original"].startswith("grpc-python")
        assert "client.address" not in line


async def test_a_theft_names_its_session(service: Any, written_log: Any, new_session: Any) -> None:
    session = await new_session()
    first = session.tokens.refresh_token
    await session.refresh(key="a")
    await refused(session.refresh(first, key="b", address="2001:db8::1"))
    (line,) = written_log.of(AUTH)
    assert line["error.type"] == "REFRESH_TOKEN_REUSED"
    assert line["session.id"] == session.tokens.session_id
    assert line["client.address"] == "2001:db8::1"
    assert first not in written_log.text


PSEUDONYM_KEY = PseudonymKey(bytes(range(32)))


@pytest.fixture
async def pseudonymous(make_settings: Any, start_service: Any, tmp_path: Path) -> Any:
    """A service whose audit has pseudonyms."""
    file = tmp_path / "pseudonym"
    file.write_bytes(PSEUDONYM_KEY.secret)
    return await start_service(make_settings(audit={"subject": "pseudonym", "pseudonym_key_file": file}))


async def test_a_subject_has_the_pseudonym_that_the_audit_gives_it(
    pseudonymous: Any, written_log: Any
) -> None:
    service = pseudonymous
    await refused(service.identity.ListSessions(pb.ListSessionsRequest(subject="alice-in-chains")))
    (line,) = written_log.of(AUTH)
    assert line["user.hash"] == PSEUDONYM_KEY.pseudonym_of("alice-in-chains")
    assert "user.id" not in line
    assert "alice" not in written_log.text


async def test_a_session_has_the_pseudonym_that_the_audit_gives_it(
    pseudonymous: Any, written_log: Any
) -> None:
    service = pseudonymous
    request = pb.IssueTokensRequest(subject="alice", audience=["orders"])
    tokens = (await service.identity.IssueTokens(request, metadata=service.login)).tokens
    await service.identity.Revoke(pb.RevokeRequest(session_id=tokens.session_id), metadata=service.login)
    refresh = pb.RefreshRequest(refresh_token=tokens.refresh_token)
    await refused(service.identity.Refresh(refresh, metadata=service.login))
    (line,) = written_log.of(AUTH)
    assert line["session.id"] == PSEUDONYM_KEY.pseudonym_of_session(tokens.session_id)
    assert tokens.session_id not in written_log.text


async def test_what_is_no_failure_of_authentication_has_no_line(
    service: Any, written_log: Any, new_session: Any
) -> None:
    await new_session()
    await refused(service.identity.IssueTokens(pb.IssueTokensRequest(subject="\n"), metadata=service.login))
    assert written_log.of(AUTH) == []


async def test_a_flood_is_counted_and_told_at_the_end(service: Any, written_log: Any) -> None:
    for _ in range(FOLD_BEYOND + 7):
        await refused(service.identity.Refresh(pb.RefreshRequest(refresh_token="x"), metadata=service.login))
    await refused(service.identity.Refresh(pb.RefreshRequest(refresh_token="x")))
    assert len(written_log.of(AUTH)) == FOLD_BEYOND + 1
    await service.server.stop(0)
    last = written_log.of(AUTH)[-1]
    assert (last["count"], last["error.type"], last["identity.client.id"]) == (
        7,
        "REFRESH_TOKEN_INVALID",
        "login",
    )
    assert len(written_log.of(AUTH)) == FOLD_BEYOND + 2


def test_causes_without_end_are_one_cause() -> None:
    now, told = 0.0, list[tuple[str, int]]()
    folding = Folding("other", lambda cause, count: told.append((cause, count)), lambda: now)
    passed = sum(not folding.folds(f"cause-{number}") for number in range(3 * MAX_CAUSES))
    assert passed == MAX_CAUSES + FOLD_BEYOND
    now = FOLD_WINDOW_SECONDS
    folding.unfold()
    assert told == [("other", 2 * MAX_CAUSES - FOLD_BEYOND)]
    assert folding.folded == 2 * MAX_CAUSES - FOLD_BEYOND
    assert not folding.is_open


def test_a_line_break_of_a_caller_begins_no_line_of_the_console_log() -> None:
    stream, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []
    try:
        configure_logging("INFO", "console", stream)
        logging.getLogger("x").warning("refused", extra={"fields": {"user.id": "a\n2026 INFO all is well"}})
    finally:
        root.handlers, _ = handlers, root.setLevel(level)
    (line,) = stream.getvalue().splitlines()
    assert line.endswith('x: refused user.id="a\\n2026 INFO all is well"')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("a gidr_" + "A" * 94 + " b", "a …AAAAAA b"),
        ("gics_" + "b" * 51, "…bbbbbb"),
        ("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJh", "…IiOiJh"),
        ("x" * 300, "x" * 300),
    ],
)
def test_what_looks_like_a_token_is_cut_down_to_its_end(text: str, expected: str) -> None:
    assert redacted(text) == expected


async def test_a_token_in_the_wrong_field_is_cut_down(
    service: Any, written_log: Any, new_session: Any
) -> None:
    session = await new_session()
    policy = clients_pb2.ClientPolicy()
    policy.CopyFrom(LOGIN_POLICY)
    del policy.subjects[:]
    confused = await service.new_client("confused", policy)
    # A whole one is refused before anybody asks who may; what begins as one may be a name.
    for sent in (session.tokens.refresh_token, session.tokens.access_token):
        request = pb.IssueTokensRequest(subject=session.tokens.access_token[:100], audience=["orders"])
        request.client_context.user_agent = f"Agent ({sent})"
        await refused(service.identity.IssueTokens(request, metadata=confused))
    lines = written_log.of(AUTH)
    assert [line["user.id"][0] for line in lines] == ["…", "…"]
    assert session.tokens.refresh_token[:20] not in written_log.text
    assert session.tokens.access_token[:40] not in written_log.text
