"""Verifying many events takes disk, and no more memory than verifying few."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EVENTS = 60_000
ROOM_BYTES = 48 * 1024 * 1024
BUCKETS = 8

PROGRAM = f"""
import resource
import exported_ranges as made
from identity.audit.chain import GENESIS, chained
from identity.audit.evidence import Evidence
from identity.audit.exported import from_line
from identity.audit.report import report_of

def lines():
    heads = dict.fromkeys(range({BUCKETS}), GENESIS)
    for sequence in range(1, {EVENTS} // {BUCKETS} + 1):
        for bucket in heads:
            (each,) = chained(heads[bucket], [made.event(bucket, sequence)])
            heads[bucket] = made.head_of([each])
            if (bucket, sequence) != (5, 7000):
                yield made.line_of(each)

pages = int(open("/proc/self/statm").read().split()[0])
bound = pages * resource.getpagesize() + {ROOM_BYTES}
resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
with Evidence() as evidence:
    source = evidence.new_source("many", is_ordered=True)
    for number, line in enumerate(lines(), 1):
        evidence.add(from_line(line), source, number)
    report = report_of(evidence, [])
print(sum(chain.events for chain in report.chains), *made.told(report))
"""


def test_many_events_are_verified_in_little_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == f"{EVENTS - 1} ('missing', 5, '7000')\n"
