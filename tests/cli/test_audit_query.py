"""What `identity audit query` and `tail` show of events in files and in the store."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import exported_ranges as made
from cli.audit_commands import identity

from identity.audit.pseudonym import PseudonymKey
from identity.audit.recorded_event import from_members
from identity.tokens.family_id import FamilyId, erased_subject, subject_tag

GOOD = made.checked_range()
CAROLS = str(FamilyId.generate("carol"))


def test_a_query_finds_what_is_asked_for_once_and_by_time(exported_file: Any, tmp_path: Path) -> None:
    key = PseudonymKey(bytes(32))
    events = [
        made.event(0, 3, subject="bob", type="refresh.refused", outcome="refused", reason="TOKEN_EXPIRED"),
        made.event(0, 1),
        made.event(
            0,
            2,
            subject=key.pseudonym_of("carol"),
            subject_is_pseudonym=True,
            session_id=key.pseudonym_of_session(CAROLS),
        ),
        made.event(0, 4, type="subject.erased", subject=erased_subject(subject_tag("carol"))),
    ]
    lines = [made.line_of(each) for each in made.chain_of(events)]
    file = exported_file([*lines, *lines])

    def found(*arguments: str) -> list[int]:
        answer = identity("query", file, "--json", *arguments)
        assert answer.exit_code == 0, answer.output
        return [from_members(json.loads(line)).sequence for line in answer.stdout.splitlines()]

    assert found() == [3, 1, 2, 4]
    assert found("--subject", "alice") == [1]
    assert found("--subject", "carol") == [4]
    assert found("--session", CAROLS) == []
    key_file = tmp_path / "pseudonyms"
    key_file.write_bytes(bytes(32))
    assert found("--subject", "carol", "--pseudonym-key-file", str(key_file)) == [2, 4]
    assert found("--session", CAROLS, "--pseudonym-key-file", str(key_file)) == [2]
    assert found("--type", "refresh.*", "--outcome", "refused") == [3]
    assert found("--session", "s0", "--client", "web") == [3, 1, 4]
    assert found("--client", "other") == []
    shown = identity("query", file).output
    assert shown.index("alice") < shown.index("bob")
    assert "4 events" in shown


def test_a_query_shows_two_events_that_have_one_id(exported_file: Any) -> None:
    events = [made.event(bucket, 1, event_id="ab" * 10, subject=f"person-{bucket}") for bucket in (0, 1)]
    lines = [made.line_of(each) for event in events for each in made.chain_of([event])]
    answer = identity("query", exported_file([*lines, *lines]), "--json")
    assert [json.loads(line)["subject"] for line in answer.stdout.splitlines()] == ["person-0", "person-1"]


def test_what_a_stranger_sent_does_not_reach_the_terminal_raw(exported_file: Any) -> None:
    event = made.event(0, 1, user_agent="x", device_label="x", client_id="\x1b[2J\u202e\x9bevil\n")
    file = exported_file([made.line_of(each) for each in made.chain_of([event])])
    assert from_members(json.loads(identity("query", file, "--json").stdout)) == event
    for answer in (
        identity("query", file),
        identity("query", file, "--json"),
        identity("tail", file, "--once"),
    ):
        assert "\x1b" not in answer.output
        assert "\x9b" not in answer.output
        assert "\u202e" not in answer.output
        assert "evil" in answer.output


def test_a_tail_of_a_file_ends_with_its_last_lines(exported_file: Any) -> None:
    answer = identity("tail", exported_file(GOOD), "--once", "-n", "2", "--json", "--type", "tokens.*")
    assert [json.loads(line)["sequence"] for line in answer.stdout.splitlines()] == ["9", "10"]


async def test_a_tail_of_a_file_follows_it_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(GOOD[0] + b"\n" + GOOD[1][:20])
    command = [sys.executable, "-m", "identity", "audit", "tail", str(path), "--json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None

    async def next_place() -> tuple[int, str]:
        async with asyncio.timeout(20):
            return made.place_of(await process.stdout.readline())  # type: ignore[union-attr]

    try:
        assert await next_place() == made.place_of(GOOD[0])
        with path.open("ab") as opened:
            opened.write(GOOD[1][20:] + b"\n")
        assert await next_place() == made.place_of(GOOD[1])
        path.rename(tmp_path / "audit.1.jsonl")
        path.write_bytes(GOOD[2] + b"\n")
        assert await next_place() == made.place_of(GOOD[2])
    finally:
        process.kill()
        await process.wait()


async def test_what_waits_in_the_store_is_shown_and_stays(service: Any, new_session: Any) -> None:
    await new_session()
    service.server.store.clock.frozen_at_ms = 1_900_000_000_000  # events that wait grow older
    before = await service.server.store.outbox.backlog(("otlp",))
    for command in (["query", "--outbox"], ["tail", "--once"]):
        answer = await asyncio.to_thread(
            identity, *command, "--json", "--type", "tokens.issued", *service.store_options
        )
        assert answer.exit_code == 0, answer.output
        (told,) = [json.loads(line) for line in answer.stdout.splitlines()]
        assert told["subject"] == "alice"
    assert await service.server.store.outbox.backlog(("otlp",)) == before


async def test_a_tail_of_the_store_shows_what_happens(service: Any, new_session: Any) -> None:
    command = [sys.executable, "-m", "identity", "audit", "tail", "--json", *service.store_options]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        session = await new_session()
        async with asyncio.timeout(20):
            while json.loads(await process.stdout.readline())["type"] != "tokens.issued":
                pass
            await session.refresh()
            assert json.loads(await process.stdout.readline())["type"] == "tokens.refreshed"
    finally:
        process.kill()
        await process.wait()
