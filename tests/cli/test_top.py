"""``identity top``, of a running service and of pages made for it."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cli.metric_pages import REFRESH, WATCH, CountingProcess, a_busy_server, a_second_of
from rich.console import Console
from typer.testing import CliRunner

from identity.cli.main import app
from identity.cli.top_metrics import Interval, Look
from identity.cli.top_readings import Reading, read
from identity.cli.top_servers import ServerState
from identity.cli.top_trends import MAX_TRENDS, Trends, sparkline
from identity.cli.top_view import frame
from identity.telemetry import instruments as table
from identity.telemetry.instruments import Where

TOP = [sys.executable, "-m", "identity", "top", "--interval", "0.2"]


def reading_of(*processes: CountingProcess, seconds: float = 1.0, meanwhile: Any = None) -> Reading:
    """Of two looks at these, with ``meanwhile`` in between."""
    before = [Look.read(process.page(), 0.0) for process in processes]
    if meanwhile:
        meanwhile()
    after = [Look.read(process.page(), seconds) for process in processes]
    return read(
        [
            ServerState(f"http://id-{at}:8080", "", later, Interval(earlier, later), ready=True)
            for at, (earlier, later) in enumerate(zip(before, after, strict=True))
        ]
    )


def drawn(reading: Reading, width: int = 130) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(frame(reading, Trends(), width=width, heading=""))
    return capture.get()


def row(text: str, name: str) -> str:
    """The line, or the part of it within its panel, that begins with that name."""
    for line in text.splitlines():
        for part in line.split("│"):
            shown = " ".join(part.split())
            if f"{shown} ".startswith(f"{name} "):
                return shown
    raise AssertionError(f"no row {name} in\n{text}")


def test_rates_are_summed_and_what_all_read_off_one_store_is_not() -> None:
    one, other = a_busy_server(), a_busy_server()

    def happens() -> None:
        for server in (one, other):
            server.call(REFRESH, times=10)
            server.add(table.REFRESHES, "ROTATED", count=10)
        other.set(table.OUTBOX_EVENTS, to=6_000)

    reading = reading_of(one, other, seconds=2.0, meanwhile=happens)
    assert reading.calls == 10.0
    assert reading.refreshes["ROTATED"].rate == 10.0
    assert reading.refreshes["ROTATED"].total == 2 * 48_221
    assert reading.outbox_events == 6_000
    assert reading.sessions == {"15m": 1830.0, "24h": 21_406.0}
    assert reading.verifiers == {"connected": 28.0, "lost": 2.0}


def test_a_method_shows_why_calls_were_refused_and_a_stream_has_no_latency() -> None:
    server = CountingProcess()

    def happens() -> None:
        a_second_of(server)
        server.call(REFRESH, status="UNAVAILABLE", reason="STORE_UNAVAILABLE", times=3)
        server.call(WATCH, seconds=900, status="CANCELLED")

    text = drawn(reading_of(server, meanwhile=happens))
    refresh = row(text, "Refresh")
    assert refresh.startswith("Refresh 30.0 4.0 ")
    assert refresh.endswith("STORE_UNAVAILABLE, REFRESH_TOKEN_EXPIRED")
    assert row(text, "WatchVerifierState") == "WatchVerifierState 1.0 1.0 stream CANCELLED"
    assert row(text, "id-0:8080").startswith("id-0:8080 ready 35.0 5.0 2.7ms")


def test_thefts_keys_verifiers_outbox_and_sinks_are_shown() -> None:
    server, relay = a_busy_server(), CountingProcess(Where.RELAY)
    relay.set(table.SINK_UP, "otlp", to=0)
    relay.set(table.SINK_UP, "file", to=1)

    def happens() -> None:
        server.add(table.REFRESHES, "REUSED")
        server.add(table.REVOCATIONS, "reuse")
        relay.add(table.SINK_DELIVERED, "file", count=40)
        server.round_trip(times=20)
        server.round_trip(error="TimeoutError", times=2)

    text = drawn(reading_of(server, relay, meanwhile=happens))
    assert row(text, "REUSED") == "REUSED 1.0 3"
    assert row(text, "sessions, by theft (reuse)") == "sessions, by theft (reuse) 1.0 3"
    assert row(text, "key Qm3kT9wq1xYz") == "key Qm3kT9wq1xYz 88d 14h old, 1d 9h left"
    assert row(text, "verifiers") == "verifiers 14 connected, 1 lost, furthest behind 2"
    assert "56% 5,312 events" in row(text, "outbox")
    assert row(text, "otlp") == "otlp 0 5,312 21s takes nothing"
    assert row(text, "file") == "file 40.0 12 0s takes"
    assert row(text, "round trips") == "round trips 22.0/s, failed 2.0/s"
    assert row(text, "of calls, p50 / p95 / p99").endswith("0.4ms / 0.5ms / 0.5ms")


def test_a_key_that_should_have_stopped_and_laggards_are_named() -> None:
    server = a_busy_server()
    server.set(table.SIGNING_KEY_TIME_LEFT, "Qm3kT9wq1xYz7Lr0", to=-7200)
    server.set(table.VERIFIER_LAGGARDS, to=3)
    server.set(table.CLAIMS_CIRCUIT_OPEN, to=1)
    text = drawn(reading_of(server))
    assert row(text, "key").endswith("overdue for 2h")
    assert row(text, "lack a due key") == "lack a due key 3"
    assert "left alone" in row(text, "claims source")


def test_uses_that_hosts_say_are_lost_are_shown_where_there_are_any() -> None:
    one, other = CountingProcess(), CountingProcess()
    assert "uses lost" not in drawn(reading_of(one, other))
    one.add(table.USES_LOST, count=800)
    lost = reading_of(one, other, meanwhile=lambda: other.add(table.USES_LOST, count=47))
    assert row(drawn(lost), "uses lost, hosts say") == "uses lost, hosts say 47.0/s, 847 in all"


def test_what_is_not_there_is_not_made_up() -> None:
    look = Look.read("python_info 1\n", 0)
    text = drawn(read([ServerState("http://old:8080", "", look, Interval(look, Look.read("a 1\n", 1)))]))
    assert row(text, "outbox") == "outbox - - events"
    assert row(text, "key") == "key -"
    assert row(text, "old:8080").startswith("old:8080 readiness unknown 0 0 - - - - -")


@pytest.mark.parametrize("width", [40, 80, 118, 200])
def test_a_frame_fits_its_terminal_and_is_text_only(width: int) -> None:
    server = a_busy_server()
    server.set(table.SINK_BEHIND, "[red]\x1b]0;owned\x07[/red]", to=1)
    server.call("evil.Service/\x1b[2J\u202e[bold]", times=5)
    text = drawn(reading_of(server, meanwhile=lambda: a_second_of(server)), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert not set("\x1b\x07\u202e") & set(text)
    if width >= 80:
        assert "?[2J?[bold]" in text
        assert "[red]" in text


def test_a_sparkline_is_as_high_as_its_values_and_never_hides_one() -> None:
    assert sparkline([0, 1, 4, 8]) == "▁▂▅█"
    assert sparkline([0, 1, 1000]) == "▁▂█"
    assert sparkline([0, 0]) == "▁▁"
    assert sparkline([]) == ""


def test_trends_are_bounded_whatever_servers_name() -> None:
    trends = Trends()
    server = CountingProcess()
    for number in range(MAX_TRENDS + 50):
        server.add(table.REFRESHES, f"VERDICT_{number:03}")
    for _ in range(2):
        trends.note(reading_of(server))
    drawn_lines = [trends.line("refresh", f"VERDICT_{number:03}") for number in range(MAX_TRENDS + 50)]
    assert sum(map(bool, drawn_lines)) == MAX_TRENDS - 1
    assert trends.line("calls") == "▁▁"


# The command itself.


@pytest.fixture
def busy_url() -> Iterator[str]:
    """A server whose counters rise with each look."""
    server = a_busy_server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            a_second_of(server)
            body = server.page() if self.path == "/metrics" else '{"problems":[]}'
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{http.server_port}"
        http.shutdown()


def run_top(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["top", *arguments], env={"NO_COLOR": "1", "COLUMNS": "130"})


def test_one_frame_for_scripts(busy_url: str) -> None:
    answer = run_top("--once", "--interval", "0.2", "-u", busy_url, "-u", "127.0.0.1:1")
    assert answer.exit_code == 0, answer.output
    assert "1 of 2 answer" in answer.output
    assert row(answer.output, busy_url).startswith(f"{busy_url} ready ")
    assert row(answer.output, "127.0.0.1:1").startswith("127.0.0.1:1 connection refused")
    assert "\x1b" not in answer.output


def test_where_nothing_answers_one_frame_says_so_and_fails() -> None:
    answer = run_top("--once", "--interval", "0.2", "-u", "127.0.0.1:1")
    assert answer.exit_code == 1
    assert "0 of 1 answer" in answer.output
    assert run_top("--once", "-u", "ftp://id.example").exit_code == 2


def test_without_url_it_goes_where_the_settings_lead(busy_url: str, tmp_path: Path) -> None:
    config = tmp_path / "identity.toml"
    config.write_text(f'issuer = "https://id.example"\n[http]\nlisten = "{busy_url}"\n')
    answer = run_top("--once", "--interval", "0.2", "--config", str(config))
    assert "1 of 1 answer" in answer.output, answer.output
    (tmp_path / "dev.json").write_text(f'{{"http_url": "http://{busy_url}"}}')
    answer = run_top("--once", "--interval", "0.2", "--data-dir", str(tmp_path))
    assert "1 of 1 answer" in answer.output, answer.output


def test_without_a_terminal_it_prints_frames_until_ctrl_c(busy_url: str) -> None:
    environment = os.environ | {"COLUMNS": "130"}
    with subprocess.Popen(
        [*TOP, "-u", busy_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout
        assert process.stderr
        frames = 0
        for line in process.stdout:
            frames += "identity top" in line
            if frames == 3:
                process.send_signal(signal.SIGINT)
                break
        process.stdout.read()
        assert process.stderr.read() == "no terminal: a frame every 0.2 s, until Ctrl-C\n"
        assert process.wait(20) == 0


def test_a_reader_that_has_seen_enough_ends_it_quietly(busy_url: str) -> None:
    with subprocess.Popen(
        [*TOP, "-u", busy_url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith("identity top")
        process.stdout.close()
        process.wait(20)
        assert process.stderr.read().count("\n") == 1


def test_on_a_terminal_it_draws_over_itself_and_leaves_it_as_it_was(busy_url: str) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "130", "LINES": "40"}
    process = subprocess.Popen(
        [*TOP, "-u", busy_url], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    screen = b""
    try:
        while screen.count(b"identity top") < 3:
            assert select.select([ours], [], [], 20)[0], screen
            screen += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        while b"\x1b[?1049l" not in screen:
            assert select.select([ours], [], [], 20)[0], screen
            screen += os.read(ours, 65_536)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    entered, left = screen.index(b"\x1b[?1049h"), screen.rindex(b"\x1b[?1049l")
    assert entered < left
    assert screen.rindex(b"\x1b[?25h") > screen.index(b"\x1b[?25l")
    assert b"Traceback" not in screen
    assert re.search("[▁▂▃▄▅▆▇█]{2}", screen.decode(errors="replace"))


async def test_a_running_service_is_shown_as_it_is(service: Any, new_session: Any) -> None:
    running = asyncio.create_task(
        asyncio.to_thread(run_top, "--once", "--interval", "2", "-u", service.addresses.http_url)
    )
    while not running.done():
        await (await new_session()).refresh()
    answer = await running
    assert answer.exit_code == 0, answer.output
    url = service.addresses.http_url.removeprefix("http://")
    assert row(answer.output, url).startswith(f"{url} ready ")
    for method in ("Refresh", "IssueTokens"):
        assert float(row(answer.output, method).split()[1]) > 0
    assert float(row(answer.output, "ROTATED").split()[1]) > 0
    assert "old, " in row(answer.output, "key")
    assert not row(answer.output, "round trips").startswith("round trips 0/s")
