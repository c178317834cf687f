"""Which series and labels a query names, and what promtool says of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

from identity.errors import Reason
from identity.telemetry.instruments import ATTRIBUTES, INSTRUMENTS, Kind, label_of

ROOT = Path(__file__).parents[2]
PROMTOOL = shutil.which("promtool") or str(ROOT / ".venv/bin/promtool")
needs_promtool = pytest.mark.skipif(
    not Path(PROMTOOL).exists(), reason="promtool is missing; on Debian: make promtool"
)

# Labels that scraping adds, or that a query makes.
FREE_LABELS = {"job", "instance", "le"}
LABELS_OF = {
    name: {*each.labels, *FREE_LABELS}
    for each in INSTRUMENTS
    for name in (
        [f"{each.prometheus_name}_{suffix}" for suffix in ("bucket", "count", "sum")]
        if each.kind is Kind.HISTOGRAM
        else [each.prometheus_name]
    )
}
# What labels can be, where that is a closed set.
VALUES_OF: dict[str, set[str]] = {
    "rpc_response_status_code": {code.name for code in grpc.StatusCode},
    "error_type": {"", *(reason.value for reason in Reason)},
} | {
    label_of(name): set(re.findall(r"`(\w+)`", ATTRIBUTES[name]))
    for name in (
        "identity.refresh.verdict",
        "identity.revocation.kind",
        "identity.event.outcome",
        "identity.window",
        "identity.store.lane",
    )
}
_WORDS = {
    "and",
    "or",
    "unless",
    "on",
    "by",
    "without",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "bool",
}


def series_in(query: str) -> set[str]:
    """The names of series."""
    bare = re.sub(r'"[^"]*"', "", query)
    bare = re.sub(r"\[[^\]]*\]|\{[^}]*\}|offset \w+", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    names = re.findall(r"(?<![\w.:$])([a-zA-Z_][\w:]*)\b(?!\s*\()", bare)
    return {name for name in names if name not in _WORDS}


def labels_in(query: str) -> set[str]:
    """The names of labels, of matchers and of groups."""
    labels = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", query))
    for group in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", query):
        labels |= {label.strip() for label in group.split(",") if label.strip()}
    return labels


def unknown_values_in(query: str) -> set[str]:
    """Values of labels that are compared with, and are none of that label's."""
    compared = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', query)
    return {
        f"{label}={value}"
        for label, values in compared
        if label in VALUES_OF
        for value in values.split("|")
        if value not in VALUES_OF[label]
    }


def promtool(*arguments: str | Path) -> str:
    """Runs it; what it says is what a failing test shows."""
    ran = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False, timeout=55)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    return said
