"""What a dashboard is, and its form in Grafana's JSON (schema 39, Grafana 10 and newer)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from identity.telemetry.instruments import READY

COLUMNS = 24
TAG = "grpc-identity"
GREEN, YELLOW, ORANGE, RED = "green", "yellow", "orange", "red"
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Thresholds = Sequence[tuple[float, str]]
"""From which value on it has which colour; below the first it is green."""


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and how its series are called: a text, or ``{{label}}``."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """``unit``: as Grafana calls it (``reqps``, ``s``, ``percentunit``). ``names``: values that stand for words."""

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Literal["timeseries", "stat", "gauge", "table"] = "timeseries"
    thresholds: Thresholds = ()
    width: int = 8
    height: int = 8
    stacked: bool = False
    maximum: float | None = None
    names: Mapping[int, tuple[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, from left to right; they go on below where there is no room."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """``name`` is that of the file, and of the dashboard in links."""

    name: str
    title: str
    description: str
    rows: Sequence[Row]


def as_json(dashboard: Dashboard) -> dict[str, Any]:
    """What Grafana imports or is provisioned with."""
    return {
        "uid": f"{TAG}-{dashboard.name}",
        "title": f"grpc-identity / {dashboard.title}",
        "description": dashboard.description,
        "tags": [TAG],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "links": [
            {
                "title": "grpc-identity", "type": "dashboards", "tags": [TAG], "asDropdown": True, "includeVars": True,
                "keepTime": True, "icon": "external link", "targetBlank": False, "tooltip": "", "url": "",
            }
        ],
        "panels": list(_placed(dashboard.rows)),
    }  # fmt: skip


def _variables() -> list[dict[str, Any]]:
    def values_of(label: str, series: str) -> dict[str, Any]:
        query = f"label_values({series}, {label})"
        return {
            "name": label, "label": label.capitalize(), "type": "query", "datasource": _DATASOURCE,
            "query": {"query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"}, "definition": query,
            "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".+",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "hide": 0, "options": [], "regex": "",
        }  # fmt: skip

    return [
        {
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0,
            "current": {}, "options": [], "refresh": 1, "regex": "", "multi": False, "includeAll": False,
        },
        values_of("job", READY.prometheus_name),
        values_of("instance", f'{READY.prometheus_name}{{job=~"$job"}}'),
    ]  # fmt: skip


def _placed(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for row in rows:
        number += 1
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": place,
            "panels": [],
        }
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height})
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def _panel(panel: Panel, number: int, place: Mapping[str, int]) -> dict[str, Any]:
    is_graph = panel.kind == "timeseries"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "targets": [_target(panel, query, at) for at, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel, is_graph=is_graph), "overrides": []},
        "options": _options(panel),
    } | ({"transformations": _TABLE_COLUMNS} if panel.kind == "table" else {})


def _target(panel: Panel, query: Query, at: int) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + at),
        "datasource": _DATASOURCE,
        "expr": query.expression,
        "legendFormat": query.legend or "__auto",
        "instant": panel.kind != "timeseries",
        "range": panel.kind == "timeseries",
        "format": "table" if panel.kind == "table" else "time_series",
    }


def _defaults(panel: Panel, *, is_graph: bool) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": GREEN, "value": None}]
    steps += [{"color": colour, "value": at} for at, colour in panel.thresholds]
    made: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if is_graph else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [],
    }
    if panel.unit in {"percentunit", "s", "reqps", "short", "bytes", "cps"} and panel.names is None:
        made["min"] = 0
    if panel.maximum is not None:
        made["max"] = panel.maximum
    if panel.names:
        options = {str(at): {"text": text, "color": colour} for at, (text, colour) in panel.names.items()}
        made["mappings"] = [{"type": "value", "options": options}]
    if is_graph:
        made["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 40 if panel.stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.thresholds else "off"},
        }
    return made


def _options(panel: Panel) -> dict[str, Any]:
    latest = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "timeseries":
            return {
                "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"], "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }  # fmt: skip
        case "stat":
            return {"reduceOptions": latest, "colorMode": "value", "graphMode": "none", "textMode": "auto"}
        case "gauge":
            return {"reduceOptions": latest, "showThresholdLabels": False, "showThresholdMarkers": True}
        case "table":
            return {"showHeader": True, "cellHeight": "sm", "footer": {"show": False}}


_TABLE_COLUMNS = [
    {
        "id": "organize",
        "options": {"excludeByName": {"Time": True, "Value": True}, "indexByName": {}, "renameByName": {}},
    }
]
