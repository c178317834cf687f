"""What `identity audit verify` says of files: proved, at fault, or that it cannot be told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exported_ranges as made
import pytest
from cli.audit_commands import identity

from grpc_identity.v1 import identity_service_pb2 as pb
from identity.audit.sinks.otlp.attributes import attributes_of

GOOD = made.checked_range()


@pytest.fixture
def keys_file(tmp_path: Path) -> str:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [made.key().public_jwk]}))
    return str(path)


def verified(*arguments: str) -> Any:
    answer = identity("verify", "--json", *arguments)
    return json.loads(answer.stdout) | {"exit_code": answer.exit_code}


def as_otlp(lines: list[bytes]) -> dict[str, Any]:
    """As a collector's file exporter writes spans."""

    def value(item: Any) -> dict[str, Any]:
        if isinstance(item, bool):
            return {"boolValue": item}
        return {"intValue": str(item)} if isinstance(item, int) else {"stringValue": item}

    spans: list[dict[str, Any]] = [{"name": "of another service", "attributes": []}]
    for each in made.chain_lines(lines):
        attributes = [{"key": name, "value": value(item)} for name, item in attributes_of(each)]
        spans.append({"name": each.event.type, "attributes": attributes})
    return {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}


def test_good_files_are_proved_with_exit_code_0(exported_file: Any, keys_file: str) -> None:
    files = [exported_file(GOOD[:9], "audit.1.jsonl.gz"), exported_file(GOOD[7:])]
    answer = identity("verify", *files, "--keys", keys_file)
    assert answer.exit_code == 0, answer.output
    assert "complete and unaltered" in answer.output
    assert "cannot be seen" in answer.output
    by_bucket = identity("verify", *files, "--kid", made.key().kid, "--buckets")
    assert by_bucket.exit_code == 0
    assert "1-11" in by_bucket.output


def test_a_fault_is_named_with_its_place_and_exit_code_1(exported_file: Any, keys_file: str) -> None:
    altered = [
        line.replace(b'"alice"', b'"mallory"') if made.place_of(line) == (1, "3") else line for line in GOOD
    ]
    answer = verified(exported_file(altered), "--keys", keys_file)
    assert answer["exit_code"] == 1
    assert answer["verdict"] == "faults"
    (finding,) = answer["findings"]
    assert (finding["fault"], finding["bucket"], finding["numbers"]) == ("altered", 1, "3")
    assert finding["place"].endswith(f"audit.jsonl:{1 + altered.index(altered[7])}")
    shown = identity("verify", exported_file(altered), "--keys", keys_file)
    assert "altered  sink file, bucket 1, sequence 3" in shown.output


def test_without_a_key_it_cannot_be_told_which_is_exit_code_2(exported_file: Any) -> None:
    answer = verified(exported_file(GOOD))
    assert (answer["exit_code"], answer["verdict"]) == (2, "cannot tell")
    assert answer["unknown_keys"] == [made.key().kid]
    assert identity("verify", "no-such-file.jsonl").exit_code == 2


def test_spans_that_a_backend_gives_out_are_verified(tmp_path: Path, keys_file: str) -> None:
    lines = made.checked_range(sink="otlp")
    path = tmp_path / "spans.json"
    for text in (json.dumps(as_otlp(lines)), json.dumps(as_otlp(lines[::-1]), indent=2)):
        path.write_text(text)
        assert verified("--otlp-json", str(path), "--keys", keys_file)["verdict"] == "good"
    path.write_text(
        "\n".join(json.dumps(as_otlp([line])) for line in lines if made.place_of(line) != (2, "2"))
    )
    answer = verified("--otlp-json", str(path), "--keys", keys_file)
    assert [(item["fault"], item["bucket"], item["numbers"]) for item in answer["findings"]] == [
        ("missing", 2, "2")
    ]


def test_what_was_put_beside_an_event_in_a_backend_is_a_fault(tmp_path: Path, keys_file: str) -> None:
    document = as_otlp(made.checked_range(sink="otlp"))
    span = document["resourceSpans"][0]["scopeSpans"][0]["spans"][4]
    span["attributes"].append({"key": "user.hash", "value": {"stringValue": "mallory"}})
    path = tmp_path / "spans.json"
    path.write_text(json.dumps(document))
    answer = verified("--otlp-json", str(path), "--keys", keys_file)
    assert answer["exit_code"] == 1
    assert "altered" in {item["fault"] for item in answer["findings"]}
    span["attributes"][-1]["key"] = "identity.event.approved_by"
    path.write_text(json.dumps(document))
    (finding,) = verified("--otlp-json", str(path), "--keys", keys_file)["findings"]
    assert finding["fault"] == "contradicted"
    assert "identity.event.approved_by" in finding["text"]


def test_a_range_may_be_told_by_times_and_by_events(exported_file: Any, keys_file: str) -> None:
    lines = made.twice_checked_lines(without={2, 7})
    file = exported_file(lines)
    event_id = json.loads(lines[2])["event_id"]
    early = verified(file, "--keys", keys_file, "--to", event_id)
    late = verified(file, "--keys", keys_file, "--from", event_id)
    assert [item["numbers"] for item in early["findings"]] == ["2"]
    assert [item["numbers"] for item in late["findings"]] == ["7"]
    assert identity("verify", file, "--from", "yesterday").exit_code == 2


def test_faults_outside_of_the_time_asked_for_are_left_out_with_a_word(
    exported_file: Any, keys_file: str
) -> None:
    lines = made.twice_checked_lines(without={2, 3})
    file, event_id = exported_file(lines), json.loads(lines[4])["event_id"]
    answer = verified(file, "--keys", keys_file, "--from", event_id)
    assert (answer["exit_code"], answer["findings"], answer["faults_left_out"]) == (0, [], 1)
    assert answer["asked_for"].keys() == {"from"}
    shown = identity("verify", file, "--keys", keys_file, "--from", event_id).output
    assert "those in the time asked for are complete and unaltered" in shown
    assert "1 faults outside of it were left out" in shown
    whole = verified(exported_file(made.twice_checked_lines()), "--keys", keys_file)
    assert (whole["exit_code"], whole["faults_left_out"], whole["asked_for"]) == (0, 0, {})


def test_of_a_time_that_no_checkpoint_reaches_it_cannot_be_told(exported_file: Any, keys_file: str) -> None:
    file = exported_file(made.twice_checked_lines())
    answer = verified(file, "--keys", keys_file, "--from", "2100-01-01")
    assert (answer["exit_code"], answer["verdict"]) == (2, "cannot tell")
    assert any("from before the time asked for" in remark for remark in answer["remarks"])
    backwards = identity("verify", file, "--keys", keys_file, "--from", "2026-01-02", "--to", "2026-01-01")
    assert backwards.exit_code == 2
    assert "complete and unaltered" not in backwards.output


def test_of_several_sinks_it_is_the_one_checked_least_that_counts(exported_file: Any, keys_file: str) -> None:
    early = made.twice_checked_lines()[:6]
    chain = made.chain_of([made.event(2, number) for number in range(1, 21)])
    told = made.checkpoint_event(2, 21, made.key(), {2: made.head_of(chain)}, sink="otlp")
    late = made.lines_of([*chain, *made.chain_of([told], head=made.head_of(chain))], "otlp")
    answer = identity("verify", exported_file([*early, *late]), "--keys", keys_file)
    assert answer.exit_code == 0, answer.output
    last_of_file = verified(exported_file(early), "--keys", keys_file)["last_checkpoint"]["file"]
    assert f"as far as the checkpoint of {last_of_file} goes" in answer.output


def test_an_event_by_which_a_time_is_told_has_to_be_the_one_and_be_proved(
    exported_file: Any, keys_file: str
) -> None:
    lines = made.twice_checked_lines()
    event_id = json.loads(lines[2])["event_id"]
    late = made.event(1, 11, event_id=event_id, time_ms=2 * made.START_MS)
    forged = made.line_of(*made.chain_of([late], head=made.head_of(made.chain_lines(lines))))
    for removed in (lines, lines[:2] + lines[3:]):
        file = exported_file([*removed, forged])
        assert identity("verify", file, "--keys", keys_file, "--from", event_id).exit_code == 2
    assert verified(exported_file(lines), "--keys", keys_file, "--from", event_id)["verdict"] == "good"


def test_what_is_wrong_early_does_not_crowd_out_what_is_wrong_in_the_time_asked_for(
    exported_file: Any, keys_file: str
) -> None:
    """One bucket with 1,100 gaps that end before a checkpoint, and one gap behind that."""
    early = made.chain_of([made.event(1, number) for number in range(1, 2_202)])
    told = made.checkpoint_event(1, 2_202, made.key(), {1: made.head_of(early)})
    chain = [*early, *made.chain_of([told], head=made.head_of(early))]
    late = made.chain_of([made.event(1, number) for number in range(2_203, 2_210)], head=made.head_of(chain))
    told = made.checkpoint_event(1, 2_210, made.key(), {1: made.head_of([*chain, *late])})
    chain += [*late, *made.chain_of([told], head=made.head_of([*chain, *late]))]
    gone = {2_205, 2_206}
    holes = set(range(2, 2_201, 2))
    with_holes = made.lines_of(each for each in chain if each.event.sequence not in holes | gone)
    without_late = made.lines_of(each for each in chain if each.event.sequence not in holes)
    event_id = chain[2_201].event.event_id
    answer = verified(exported_file(with_holes), "--keys", keys_file, "--from", event_id)
    assert answer["exit_code"] == 1
    assert answer["findings"][-1]["numbers"] == "2205-2206"
    assert answer["more_findings"] == 0
    calm = verified(exported_file(without_late), "--keys", keys_file, "--from", event_id)
    assert (calm["exit_code"], calm["findings"]) == (0, [])


@pytest.mark.parametrize("member", ["event_id", "sink"])
def test_nothing_in_an_event_reaches_the_terminal_of_who_verifies_it(
    exported_file: Any, keys_file: str, member: str
) -> None:
    evil = "\x1b[2J\x1b[1;32m5050 events are complete\r\n\u202e\x9b31m[bold]"
    lines = [*GOOD]
    lines[4] = json.dumps(json.loads(lines[4]) | {member: evil}).encode()
    for option in ("--buckets", "--from=2020-01-01"):
        answer = identity("verify", exported_file(lines), "--keys", keys_file, option)
        assert answer.exit_code == 1
        assert not {"\x1b", "\r", "\u202e", "\x9b"} & set(answer.output)
        assert "[bold]" in answer.output.replace("\n", "")


def test_a_line_that_a_crash_has_torn_is_left_out_and_hides_nothing(
    exported_file: Any, keys_file: str
) -> None:
    file = Path(exported_file(GOOD))
    whole = file.read_bytes()
    file.write_bytes(whole + GOOD[-1][:50])
    answer = verified(str(file), "--keys", keys_file)
    assert (answer["exit_code"], answer["findings"]) == (0, [])
    assert any(remark.endswith("or it is being written") for remark in answer["remarks"])
    # An event behind a good one that was cut away in the same manner is missed all the same.
    file.write_bytes(b"\n".join(GOOD[:5]) + b"\n" + GOOD[5][:50])
    assert verified(str(file), "--keys", keys_file)["exit_code"] != 0
    assert "are no events" not in identity("query", str(file)).output


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:40] + bytes(60) + packed[100:],
        lambda packed: packed[:-20],
        lambda packed: packed[:-6] + b"\xff" + packed[-5:],
        lambda packed: packed + b"not packed",
    ],
    ids=["overwritten", "truncated", "another sum", "more behind it"],
)
def test_a_damaged_archive_is_a_fault_and_the_others_are_verified(
    exported_file: Any, keys_file: str, damage: Callable[[bytes], bytes]
) -> None:
    damaged, sound = Path(exported_file(GOOD, "audit.jsonl.gz")), exported_file(GOOD, "copy.jsonl")
    damaged.write_bytes(damage(damaged.read_bytes()))
    answer = verified(str(damaged), sound, "--keys", keys_file)
    assert answer["exit_code"] == 1
    (finding,) = answer["findings"]
    assert finding["fault"] == "unreadable"
    assert finding["place"].startswith(f"{damaged}:")
    assert sum(chain["events"] for chain in answer["chains"]) == len(GOOD)
    queried = identity("query", str(damaged), sound)
    assert queried.exit_code == 0, queried.output
    assert "are no events" in queried.output


@pytest.mark.parametrize("form", ["events", "ocsf"])
async def test_the_file_of_a_running_service_is_proved_with_the_keys_that_it_publishes(
    make_settings: Any, start_service: Any, tmp_path: Path, wait_until: Any, form: str
) -> None:
    path = tmp_path / "audit.jsonl"
    told = {"sinks": ("file",), "file_path": path, "file_format": form, "checkpoint_seconds": 0.5}
    service = await start_service(make_settings(audit={"relay": True, "relay_poll_ms": 10} | told))
    for subject in ("alice", "bob"):
        request = pb.IssueTokensRequest(subject=subject, audience=["orders"])
        await service.identity.IssueTokens(request, metadata=service.login)
    await wait_until(lambda: path.exists() and b"audit.checkpoint" in path.read_bytes())
    jwks = f"{service.addresses.http_url}/.well-known/jwks.json"
    answer = await asyncio.to_thread(verified, str(path), "--keys", jwks)
    assert answer["verdict"] == "good", answer
    assert answer["trusted_keys"] == [service.server.keys.active_signer().kid]
    copy = tmp_path / "copy.jsonl"

    async def is_missed() -> bool:
        copy.write_bytes(b"\n".join(line for line in path.read_bytes().splitlines() if b"bob" not in line))
        answer = await asyncio.to_thread(verified, str(copy), "--keys", jwks)
        return [finding["fault"] for finding in answer["findings"]] == ["missing"]

    # Once a checkpoint tells of it.
    await wait_until(is_missed)
