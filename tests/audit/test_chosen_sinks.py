"""The sinks that the settings name get every event of a running service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from certificates import Authority

from grpc_identity.v1 import identity_service_pb2 as pb
from identity.audit.chain import link_after
from identity.audit.pseudonym import PseudonymKey
from identity.audit.sinks.file.reader import read_events
from identity.audit_sinks import audit_sinks, shape_of
from identity.config import ConfigurationError

TRACE = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")


async def test_a_file_holds_the_chain_of_what_happened_beside_the_spans(
    make_settings: Any, start_service: Any, collector: Any, wait_until: Any, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"
    service = await start_service(
        make_settings(
            redis={"buckets": 1},
            audit={"relay": True, "relay_poll_ms": 10, "sinks": "otlp,file", "file_path": path},
        )
    )
    for number in range(20):
        request = pb.IssueTokensRequest(subject=f"user-{number}", audience=["orders"])
        await service.identity.IssueTokens(request, metadata=(*service.login, TRACE))

    def issued() -> list[Any]:
        return [each for each in read_events(path) if each.event.type == "tokens.issued"]

    await wait_until(lambda: path.exists() and len(issued()) == 20)
    await wait_until(lambda: len(collector.of_type("tokens.issued")) == 20)
    read = list(read_events(path))
    assert [each.event.sequence for each in read] == list(range(1, len(read) + 1))
    assert all(link_after(each.previous, each.digest) == each.link for each in read)
    assert [after.previous for after in read[1:]] == [before.link for before in read[:-1]]
    assert {span["identity.event.id"] for span in collector.of_type("tokens.issued")} == {
        each.event.event_id for each in issued()
    }


async def test_under_a_pseudonym_no_sink_sees_a_subject(
    make_settings: Any, start_service: Any, collector: Any, wait_until: Any, tmp_path: Path
) -> None:
    key, path = tmp_path / "key", tmp_path / "audit.jsonl"
    key.write_bytes(bytes(range(32)))
    audit = {"subject": "pseudonym", "pseudonym_key_file": key, "sinks": ["file", "otlp"], "file_path": path}
    service = await start_service(make_settings(audit=audit | {"relay": True, "relay_poll_ms": 10}))
    request = pb.IssueTokensRequest(subject="alice@example.org", audience=["orders"])
    answer = await service.identity.IssueTokens(request, metadata=service.login)
    await wait_until(lambda: collector.of_type("tokens.issued") and path.exists())
    await wait_until(lambda: "tokens.issued" in path.read_text())
    hidden = PseudonymKey.from_file(key).pseudonym_of("alice@example.org")
    (span,) = collector.of_type("tokens.issued")
    assert span["user.hash"] == hidden
    session_id = answer.tokens.session_id
    assert span["session.id"] == PseudonymKey.from_file(key).pseudonym_of_session(session_id) != session_id
    assert session_id not in path.read_text()
    assert "alice" not in repr(collector.spans)
    assert "alice" not in path.read_text()
    assert f'"subject":"{hidden}"' in path.read_text()


@pytest.mark.parametrize(
    ("audit", "problem"),
    [
        ({"sinks": ""}, "audit.sinks"),
        ({"sinks": "otlp,otlp"}, "none may be named twice"),
        ({"sinks": "otlp,kafka"}, "audit.sinks"),
        ({"sinks": "file"}, "file_path"),
        ({"sinks": "syslog"}, "syslog_address"),
        ({"syslog_certificate_file": "a.pem"}, "syslog_private_key_file"),
        ({"subject": "pseudonym"}, "pseudonym_key_file"),
        ({"file_format": "cef"}, "audit.file_format"),
    ],
)
def test_settings_that_do_not_fit_are_named(make_settings: Any, audit: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make_settings(audit=audit)


def test_what_turns_out_when_sinks_are_made_is_named_by_its_setting(
    make_settings: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(ConfigurationError, match=r"audit\.sinks: OTEL_EXPORTER_OTLP_PROTOCOL"):
        audit_sinks(make_settings(), "a")
    wrong = make_settings(audit={"sinks": "syslog", "syslog_address": "logs:514"})
    with pytest.raises(ConfigurationError, match=r"audit\.syslog_address"):
        audit_sinks(wrong, "a")
    (tmp_path / "key").write_bytes(b"short")
    hiding = make_settings(audit={"subject": "pseudonym", "pseudonym_key_file": tmp_path / "key"})
    with pytest.raises(ConfigurationError, match=r"audit\.pseudonym_key_file"):
        shape_of(hiding)


async def test_every_sink_can_be_made_and_is_named_as_the_settings_have_it(
    make_settings: Any, tmp_path: Path
) -> None:
    certificate, key = Authority(tmp_path, "ca").issue("relay")
    settings = make_settings(
        audit={
            "sinks": "syslog, file, otlp",
            "file_path": tmp_path / "audit.jsonl",
            "file_format": "ocsf",
            "syslog_address": "tls://logs.example",
            "syslog_certificate_file": certificate,
            "syslog_private_key_file": key,
        }
    )
    sinks = audit_sinks(settings, "a")
    assert [sink.name for sink in sinks] == ["syslog", "file", "otlp"]
    for sink in sinks:
        await sink.close()
