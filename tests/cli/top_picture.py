"""Draws the picture of ``identity top`` in the docs: ``python tests/cli/top_picture.py docs/images/top.svg``."""

from __future__ import annotations

import io
import random
import re
import sys
from pathlib import Path

from metric_pages import CountingProcess, a_busy_server, a_second_of
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI

from identity.cli.top_metrics import Interval, Look
from identity.cli.top_readings import read
from identity.cli.top_servers import ServerState
from identity.cli.top_trends import Trends
from identity.cli.top_view import frame
from identity.telemetry import instruments as table
from identity.telemetry.instruments import Where

WIDTH = 128
SECONDS = 2.0
# Without fonts from elsewhere: a picture in the docs asks nobody for anything.
_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def _a_relay() -> CountingProcess:
    relay = CountingProcess(Where.RELAY)
    relay.set(table.SINK_UP, "otlp", to=1)
    relay.set(table.SINK_UP, "file", to=1)
    relay.set(table.MEMORY_USAGE, to=61 * 1024 * 1024)
    relay.set(table.UPTIME, to=4 * 3600 + 60)
    return relay


def draw(path: Path) -> None:
    """Half a minute of a busy service, on a clock of its own."""
    chance = random.Random(8)
    processes = {"http://id-1:8080": a_busy_server(), "http://relay-1:8081": _a_relay()}
    server, relay = processes.values()
    trends = Trends()
    looks: dict[str, Look] = {}
    for round_number in range(31):
        a_second_of(server, chance.uniform(1.2, 2.8))
        if round_number == 30:
            server.add(table.REFRESHES, "REUSED")
            server.add(table.REVOCATIONS, "reuse")
        relay.add(table.SINK_DELIVERED, "otlp", count=chance.randint(30, 90))
        relay.add(table.SINK_DELIVERED, "file", count=chance.randint(60, 70))
        relay.add(table.CPU_TIME, "user", count=0.11)
        states = []
        for url, process in processes.items():
            look = Look.read(process.page(), round_number * SECONDS)
            interval = Interval(looks[url], look) if url in looks else None
            states.append(ServerState(url, "", look, interval, ready=True))
            looks[url] = look
        states.append(ServerState("http://id-2:8080", "connection refused"))
        reading = read(states)
        trends.note(reading)
    heading = f"2 of 3 answer · {reading.calls:.1f} calls/s {trends.line('calls')} · every 2 s · 09:41:00 UTC"
    console = Console(width=WIDTH, record=True, file=io.StringIO())
    console.print(frame(reading, trends, width=WIDTH, heading=heading))
    console.save_svg(str(path), title="identity top", theme=MONOKAI, code_format=_FORMAT)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
