"""Every event is a valid object of OCSF's class Authentication, and can be verified from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from audit.sinks.samples import any_event, chain
from hypothesis import given

from identity.audit.chain import GENESIS, chained
from identity.audit.event_types import EventType
from identity.audit.recorded_event import NotAnEventError, RecordedEvent
from identity.audit.sinks.file.ocsf import SCHEMA_VERSION, from_ocsf, ocsf_line_of, to_ocsf
from identity.audit.sinks.file.reader import parse_any_line

PUBLISHED = json.loads((Path(__file__).parents[2] / "vectors/ocsf_authentication.json").read_text())
OBJECTS = {
    "metadata": "metadata",
    "user": "user",
    "actor": "actor",
    "session": "session",
    "src_endpoint": "network_endpoint",
    "service": "service",
    "http_request": "http_request",
}


def check(members: dict[str, Any], rules: dict[str, Any]) -> None:
    """What the schema asks of the names of an object's members."""
    assert not set(members) - set(rules["known"])
    assert not set(rules["required"]) - set(members)
    if rules["at_least_one"]:
        assert set(rules["at_least_one"]) & set(members)


@given(any_event)
def test_any_event_is_as_the_schema_has_it_and_comes_back(original: RecordedEvent) -> None:
    (item,) = chained(GENESIS, [original])
    line = ocsf_line_of(item, "file")
    assert b"\n" not in line
    members = json.loads(line)
    check(members, PUBLISHED["classes"]["authentication"])
    for name, kind in OBJECTS.items():
        if name in members:
            check(members[name], PUBLISHED["objects"][kind])
    check(members["metadata"]["product"], PUBLISHED["objects"]["product"])
    assert members["metadata"]["version"] == SCHEMA_VERSION == PUBLISHED["version"]
    assert (members["class_uid"], members["category_uid"]) == (3002, 3)
    assert members["type_uid"] == 300200 + members["activity_id"]
    assert PUBLISHED["severities"][str(members["severity_id"])] == members["severity"]
    assert parse_any_line(line).event == item


@pytest.mark.parametrize("event_type", EventType)
def test_an_activity_has_the_name_that_the_schema_gives_it_or_that_of_the_event(event_type: str) -> None:
    (item,) = chain(1, type=event_type)
    members = to_ocsf(item, "file")
    activity = str(members["activity_id"])
    assert members["activity_name"] == (event_type if activity == "99" else PUBLISHED["activities"][activity])


def test_a_refusal_is_a_failure_with_its_reason() -> None:
    (item,) = chain(1, type="refresh.refused", outcome="refused", reason="REFRESH_TOKEN_EXPIRED")
    members = to_ocsf(item, "file")
    assert (members["status"], members["status_code"]) == ("Failure", "REFRESH_TOKEN_EXPIRED")
    assert PUBLISHED["statuses"][str(members["status_id"])] == "Failure"
    assert (members["severity"], members["activity_name"]) == ("Medium", "Service Ticket Renew")


@pytest.mark.parametrize("name", ["raw_data", "unmapped"])
def test_without_what_it_was_made_of_it_is_no_event(name: str) -> None:
    (item,) = chain(1)
    members = to_ocsf(item, "file")
    del members[name]
    with pytest.raises(NotAnEventError):
        from_ocsf(members)
