"""A tracing backend that is not ours shows what happened to a session inside the caller's trace, and gives the events back whole."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from typer.testing import CliRunner

from identity.audit.sinks.file.reader import read_events
from identity.audit.sinks.otlp.attributes import from_attributes
from identity.cli.main import app
from identity.parts import checkpoint_writer
from phoenix.browser import opened, program
from phoenix.server import KeptSpan, Phoenix
from phoenix.story import STEPS, Shop, Told

pytestmark = pytest.mark.timeout(300)
ERROR = 2
SAMPLED = 1
PICTURE = "PHOENIX_PICTURE"
# Of the page: a window in which the whole story fits, the tree wide enough for the names of calls.
WINDOW = (1640, 1350)
LOOKS = {
    "arize-phoenix-theme": "light",
    "react-resizable-panels:trace-details-layout": '{"trace-tree": 38, "span-details": 62}',
}
TAB = "[...document.querySelectorAll('[role=tab]')].find(tab => tab.innerText == 'Attributes')"
DETAILS = "document.querySelector('#span-details').innerText"
IS_STILL = """
    document.fonts.status == 'loaded' && document.getAnimations().every(
        each => each.playState != 'running' || each.effect.getComputedTiming().iterations == Infinity
    )
"""


@dataclass
class Played:
    """A story that was played, and every span of its trace as the backend gives it out."""

    service: Any
    told: Told
    spans: list[KeptSpan]

    def audit(self) -> list[KeptSpan]:
        return [span for span in self.spans if span.is_audit]


@pytest.fixture
def play(
    phoenix: Phoenix, audited_service: Callable[..., Awaitable[Any]], wait_until: Any
) -> Callable[..., Awaitable[Played]]:
    async def play_story(protocol: str = "http/protobuf", sampler: Sampler = ALWAYS_ON) -> Played:
        service = await audited_service(protocol)
        shop = Shop(service, f"{phoenix.url}/v1/traces", sampler)
        told = await shop.story()
        shop.export()
        # Of an event its own span. Of the caller, if it keeps any, the visit, each step, and the call of each step.
        expected = len(STEPS) + (1 + 2 * len(STEPS) if sampler is ALWAYS_ON else 0)

        def is_there() -> bool:
            return len(phoenix.spans(trace_id=told.trace_id)) >= expected

        await wait_until(is_there, seconds=60)
        return Played(service, told, phoenix.spans(trace_id=told.trace_id))

    return play_story


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_each_event_is_in_the_callers_trace_below_the_call_that_caused_it(
    play: Callable[..., Awaitable[Played]], protocol: str
) -> None:
    played = await play(protocol)
    by_id = {span.span_id: span for span in played.spans}
    assert len(played.spans) == len(by_id) == 1 + 3 * len(STEPS)
    assert [span.name for span in played.audit()] == [event for _, event in STEPS.values()]
    for (step, (method, _)), span in zip(STEPS.items(), played.audit(), strict=True):
        assert span.parent_id == played.told.calls[step]
        call = by_id[span.parent_id]
        assert call.name == f"grpc_identity.v1.IdentityService/{method}"
        assert by_id[call.parent_id].name == step
        # An event is told to the millisecond below.
        assert call.start_ms - 1 <= span.start_ms == span.end_ms <= call.end_ms + 1


async def test_a_caller_that_keeps_no_spans_has_its_events_in_its_trace_all_the_same(
    play: Callable[..., Awaitable[Played]],
) -> None:
    played = await play(sampler=ALWAYS_OFF)
    assert [span.name for span in played.spans] == [event for _, event in STEPS.values()]
    assert [span.parent_id for span in played.spans] == list(played.told.calls.values())
    for span in played.spans:
        flags = int(span.attributes["identity.event.traceparent"][-2:], 16)
        assert not flags & SAMPLED


async def test_what_happened_to_the_session_can_be_read_in_the_backend(
    play: Callable[..., Awaitable[Played]],
) -> None:
    played = await play()
    issued, refreshed, reused, refused, revoked = played.audit()
    for span in (issued, refreshed, reused, refused):
        assert span.attributes["session.id"] == played.told.session_id
    for span in played.audit():
        assert span.attributes["user.id"] == "alice"
        assert span.attributes["identity.client.id"] == "login"
        assert span.attributes["rpc.system.name"] == "grpc"
    assert refreshed.attributes["identity.session.generation"] == 1
    assert [span.status for span in played.audit()] == [0, 0, ERROR, ERROR, 0]
    assert refused.attributes["identity.event.reason"] == refused.attributes["error.type"] == "FAMILY_REVOKED"
    assert refused.status_message == "FAMILY_REVOKED"
    assert revoked.attributes["identity.event.outcome"] == "success"
    assert (
        reused.attributes.items()
        >= {
            "identity.event.severity": "error",
            "identity.reuse.distance": 1,
            "identity.reuse.address": "other",
            "identity.reuse.user_agent": "other",
            "client.address": "203.0.113.66",
            "user_agent.original": "curl/8.5.0",
        }.items()
    )


async def test_the_backend_gives_the_events_back_as_they_left_the_outbox(
    play: Callable[..., Awaitable[Played]], tmp_path: Path
) -> None:
    played = await play()
    there = {span.attributes["identity.event.id"]: span for span in played.audit()}
    in_file = {each.event.event_id: each for each in read_events(tmp_path / "audit.jsonl")}
    for event_id, span in there.items():
        assert from_attributes(span.attributes).event == in_file[event_id].event
        assert span.start_ms == in_file[event_id].event.time_ms
    told = {each.event.session_id for each in in_file.values()} - {""}
    assert told == {played.told.session_id}


async def test_from_what_the_backend_holds_the_audit_is_proved(
    phoenix: Phoenix, audited_service: Callable[..., Awaitable[Any]], wait_until: Any, tmp_path: Path
) -> None:
    project = f"proved-{secrets.token_hex(4)}"
    service = await audited_service("http/protobuf", project)
    shop = Shop(service, f"{phoenix.url}/v1/traces")
    await shop.story()
    shop.export()
    in_file: set[str] = set()

    def holds_what_the_file_holds() -> bool:
        kept = {span.attributes["identity.event.id"] for span in phoenix.spans(project) if span.is_audit}
        in_file.update(each.event.event_id for each in read_events(tmp_path / "audit.jsonl"))
        return len(in_file) > len(STEPS) and kept >= in_file

    await wait_until(holds_what_the_file_holds, seconds=60)
    writer = checkpoint_writer(service.settings, service.server.store, service.server.keys, "one")
    assert await writer.take_turn() > 0
    before = len(in_file)
    await wait_until(lambda: holds_what_the_file_holds() and len(in_file) >= before + 2, seconds=60)

    spans, keys = tmp_path / "spans.json", tmp_path / "jwks.json"
    pages = [{"spans": page["data"]} for page in phoenix.documents(project)]
    spans.write_text(json.dumps({"resourceSpans": [{"scopeSpans": pages}]}))
    keys.write_text(json.dumps({"keys": [dict(key) for key in service.server.keys.published().jwks]}))
    answer = CliRunner().invoke(
        app, ["audit", "verify", "--json", "--otlp-json", str(spans), "--keys", str(keys)]
    )
    assert answer.exit_code == 0, answer.output
    report = json.loads(answer.stdout)
    assert report["verdict"] == "good"
    assert sum(chain["events"] for chain in report["chains"]) == len(in_file)


async def test_a_person_sees_the_story_in_the_backends_own_pages(
    play: Callable[..., Awaitable[Played]], phoenix: Phoenix, wait_until: Any, tmp_path: Path
) -> None:
    chromium = program()
    if chromium is None:
        reason = "needs Chromium; on Debian: apt-get install chromium"
        assert not os.environ.get(PICTURE), reason
        pytest.skip(reason)
    played = await play()
    (reuse,) = [span for span in played.audit() if span.name == "refresh.reuse_detected"]
    url = phoenix.page_of(played.told.trace_id, reuse.span_id)
    async with opened(
        chromium, url, tmp_path / "profile", size=WINDOW, stored=LOOKS, wait_until=wait_until
    ) as page:
        await wait_until(lambda: page.says(f"{TAB} !== undefined"), seconds=60)
        await page.says(f"{TAB}.click()")
        await wait_until(lambda: page.says(f"{DETAILS}.includes('identity.reuse.distance')"), seconds=60)
        await wait_until(lambda: page.says(IS_STILL), seconds=60)
        tree = (await page.says("document.querySelector('#trace-tree').innerText")).splitlines()
        details = await page.says(DETAILS)
        picture = await page.picture_of("[role=dialog]")
    events = [event for _, event in STEPS.values()]
    assert [line for line in tree if line in events] == events
    assert [line for line in tree if line in STEPS] == list(STEPS)
    assert "203.0.113.66" in details
    assert "REFRESH_TOKEN_REUSED" in details
    keep(picture)


def keep(picture: bytes) -> None:
    """Where somebody has asked for it."""
    if where := os.environ.get(PICTURE):
        Path(where).write_bytes(picture)
