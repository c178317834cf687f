"""The Grafana dashboards are fresh, ask for what there is, and are whole."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
from deploy.promql import LABELS_OF, ROOT, labels_in, needs_promtool, promtool, series_in, unknown_values_in

from identity.telemetry.instruments import INSTRUMENTS

FOLDER = ROOT / "deploy/grafana/dashboards"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: Any) -> list[Any]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


QUERIES = [
    pytest.param(target["expr"], id=f"{name}-{panel['title']}-{target['refId']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
    for target in panel["targets"]
]
LEGENDS = [
    (target["expr"], target["legendFormat"])
    for dashboard in DASHBOARDS.values()
    for panel in panels(dashboard)
    for target in panel["targets"]
]


def test_the_dashboards_are_fresh(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "deploy/grafana/make", tmp_path], check=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in FOLDER.iterdir()}, "run: make dashboards"


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_what_there_is(query: str) -> None:
    found = series_in(query)
    assert found
    assert found <= LABELS_OF.keys()
    for name in found:
        assert labels_in(query) <= LABELS_OF[name] | {"job", "instance"}
    assert not unknown_values_in(query)


def test_every_instrument_can_be_seen() -> None:
    shown = {name for query in QUERIES for name in series_in(str(query.values[0]))}
    by_base = {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown}
    assert {each.prometheus_name for each in INSTRUMENTS} - shown <= by_base


def test_a_legend_names_labels_that_its_query_keeps() -> None:
    for query, legend in LEGENDS:
        kept = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")}
        assert set(re.findall(r"{{(\w+)}}", legend)) <= kept - {"le"}, query


@needs_promtool
def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    values = {"$__rate_interval": "5m", "$job": ".+", "$instance": ".+"}
    rules = []
    for number, query in enumerate(QUERIES):
        expression = str(query.values[0])
        for variable, value in values.items():
            expression = expression.replace(variable, value)
        rules.append({"record": f"query:{number}", "expr": expression})
    path = tmp_path / "queries.yaml"
    # JSON is YAML.
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"SUCCESS: {len(QUERIES)} rules found" in promtool("check", "rules", path)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_whole(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"grpc-identity-{name}"
    assert [each["name"] for each in dashboard["templating"]["list"]] == ["datasource", "job", "instance"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(titles) == len(set(titles))
    for panel in panels(dashboard):
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith("."), panel["title"]
        assert defaults["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        steps = [step["value"] for step in defaults["thresholds"]["steps"][1:]]
        assert all(lower < upper for lower, upper in pairwise(steps))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_panel_lies_on_another(name: str) -> None:
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


def test_a_query_of_something_unknown_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from identity.telemetry import instruments

    monkeypatch.syspath_prepend(ROOT / "deploy/grafana/make")
    import queries

    with pytest.raises(ValueError, match="has no attribute"):
        queries.rate(instruments.REFRESHES, "identity.client.id")
    with pytest.raises(ValueError, match="another kind"):
        queries.rate(instruments.CALL_DURATION)
