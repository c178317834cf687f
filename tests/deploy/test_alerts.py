"""The alerts ask for what there is, fire when they should, and lead to what is to be done."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from deploy.promql import (
    FREE_LABELS,
    LABELS_OF,
    ROOT,
    labels_in,
    needs_promtool,
    promtool,
    series_in,
    unknown_values_in,
)

FOLDER = ROOT / "deploy/prometheus"
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"]: rule for rule in RULES if "record" in rule}
TESTS: list[Any] = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
CASES = [case for test in TESTS for case in test["alert_rule_test"]]


@needs_promtool
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", FOLDER / "alerts_test.yaml")


def test_every_alert_has_a_test_that_it_fires_and_one_that_it_does_not() -> None:
    assert {case["alertname"] for case in CASES if case["exp_alerts"]} == set(ALERTS)
    assert {case["alertname"] for case in CASES if not case["exp_alerts"]} == set(ALERTS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_names_what_there_is(rule: Any) -> None:
    found = series_in(rule["expr"])
    assert found
    assert found <= LABELS_OF.keys() | RECORDED.keys()
    known = set(FREE_LABELS)
    for name in found:
        known |= LABELS_OF[name] if name in LABELS_OF else labels_in(RECORDED[name]["expr"])
    assert labels_in(rule["expr"]) <= known
    assert not unknown_values_in(rule["expr"])


def test_every_recorded_rule_says_what_it_is_of() -> None:
    for name in RECORDED:
        assert re.fullmatch(r"identity:[a-z_]+:[a-z0-9_]+", name)


def test_the_series_of_the_tests_are_such_as_there_are() -> None:
    for test in TESTS:
        for series in test["input_series"]:
            (name,) = series_in(series["series"])
            assert labels_in(series["series"]) <= LABELS_OF[name]
            if not name.startswith("db_"):
                assert not unknown_values_in(series["series"])


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_where_to_read_on(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}"


def test_there_is_a_section_for_every_alert_with_its_severity_and_for_no_other() -> None:
    text = (ROOT / "docs/alerts.md").read_text()
    sections = re.findall(r"^## (\w+)\n\n\*(\w+)\.\*", text, re.MULTILINE)
    assert sections == [(name, alert["labels"]["severity"]) for name, alert in ALERTS.items()]
    assert len(re.findall(r"^## ", text, re.MULTILINE)) == len(sections)


def test_anchors_within_the_documents_lead_somewhere() -> None:
    for document in ("alerts.md", "dashboards.md"):
        path = ROOT / "docs" / document
        for target, anchor in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", path.read_text()):
            headings = re.findall(
                r"^#+ (.+)$", (path.parent / (target or document)).read_text(), re.MULTILINE
            )
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{document}: {target}#{anchor}"


@needs_promtool
def test_prometheus_understands_the_example() -> None:
    assert "SUCCESS" in promtool("check", "config", FOLDER / "prometheus.yaml")
