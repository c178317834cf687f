"""``identity top``: the service at a glance, live."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from identity.cli.connection import DEFAULT_DATA_DIR, DEV_FILE, DataDir, read_dev_file
from identity.cli.settings import ConfigFile, Overrides, settings_of

if TYPE_CHECKING:
    import aiohttp
    from rich.console import Console, RenderableType

    from identity.cli.top_servers import Watched
    from identity.cli.top_trends import Trends


def top(
    urls: Annotated[
        list[str] | None,
        typer.Option(
            "--url",
            "-u",
            metavar="URL",
            help="HTTP side of a server or relay, host:port will do; may be repeated.",
        ),
    ] = None,
    interval_seconds: Annotated[
        float, typer.Option("--interval", "-i", min=0.2, max=3600, help="Seconds between two looks.")
    ] = 2.0,
    once: Annotated[
        bool,
        typer.Option("--once", help="Look twice, an interval apart, print one frame, and end; for scripts."),
    ] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Watch the service live: calls, refreshes, thefts, keys, verifiers, the audit outbox, the store.

    It reads /metrics and /readyz of each process, and nothing else: no credentials, no load worth naming.

        identity top                   # what make run has started
        identity top -u id-1:8080 -u id-2:8080 -u relay-1:8081
        identity top --config identity.toml
        identity top --once --interval 5 > frame.txt

    Rates and latencies are of the last interval, summed over all processes; "in all" is since they were started. What
    all processes read off the same store (outbox, sinks, sessions) is counted once. A process that does not answer is shown as
    such, and asked again. Without a terminal, frames are printed one below the other. Ctrl-C ends it.
    """
    chosen = _chosen(urls, data_dir, config, overrides)
    with contextlib.suppress(KeyboardInterrupt):
        reached = asyncio.run(_watch(chosen, interval_seconds, once=once))
        if once and not reached:
            raise typer.Exit(1)


def _chosen(
    urls: Sequence[str] | None, data_dir: Path | None, config: Path | None, overrides: Sequence[str] | None
) -> Sequence[str]:
    from identity.cli.top_servers import base_url, url_of_listener

    if urls:
        try:
            return [base_url(url) for url in urls]
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--url") from None
    folder = data_dir or DEFAULT_DATA_DIR
    if data_dir or (config is None and not overrides and (folder / DEV_FILE).exists()):
        return [base_url(str(read_dev_file(folder)["http_url"]))]
    return [url_of_listener(settings_of(config, overrides).http.listen)]


async def _watch(urls: Sequence[str], interval_seconds: float, *, once: bool) -> bool:
    """Looks until cancelled, or once. Whether anything was reached in the last round."""
    import aiohttp
    from rich.console import Console
    from rich.live import Live

    from identity.cli.top_servers import Watched
    from identity.cli.top_trends import Trends

    console = Console()
    watched, trends = Watched(urls), Trends()
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        if once:
            await watched.look(http)
            await asyncio.sleep(interval_seconds)
            drawn, reached = await _frame(console, watched, trends, http, interval_seconds)
            console.print(drawn)
            return reached
        if not console.is_terminal:
            typer.echo(f"no terminal: a frame every {interval_seconds:g} s, until Ctrl-C", err=True)
            while True:
                console.print((await _frame(console, watched, trends, http, interval_seconds))[0])
                await asyncio.sleep(interval_seconds)
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                drawn, _ = await _frame(console, watched, trends, http, interval_seconds)
                live.update(drawn, refresh=True)
                await asyncio.sleep(interval_seconds)


async def _frame(
    console: Console, watched: Watched, trends: Trends, http: aiohttp.ClientSession, interval_seconds: float
) -> tuple[RenderableType, bool]:
    from identity.cli.top_readings import read
    from identity.cli.top_view import frame
    from identity.clock import SystemClock

    reading = read(await watched.look(http))
    trends.note(reading)
    reached = sum(not process.state.problem for process in reading.processes)
    heading = (
        f"{reached} of {len(reading.processes)} answer · {reading.calls:.1f} calls/s {trends.line('calls')} · "
        f"every {interval_seconds:g} s · {SystemClock().now():%H:%M:%S} UTC"
    )
    return frame(reading, trends, width=console.width, heading=heading), reached > 0
