"""A frame of ``identity top``, drawn. What a server has named is printed as text only: no markup, no control characters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from identity.cli.top_readings import Counted, Latency, MethodReading, ProcessReading, Reading
from identity.cli.top_trends import POINTS, Trends

TWO_COLUMNS_FROM = 118
SHORT_TREND = 12
MAX_METHODS = 12
MAX_REASONS = 2
MAX_NAME = 40
BAR_CHARS = 20
NOTED_AT, FILLING_AT, FULL_AT = 0.5, 0.8, 1.0
LONG_LAG_SECONDS, LAG_SECONDS = 120.0, 15.0
SOON_SECONDS = 24 * 3600.0
UNKNOWN = "-"

# In the order in which they are shown; what no one has heard of comes last.
_VERDICT_STYLES = {
    "ROTATED": "green", "REPEATED": "green", "RECOVERED": "bold yellow", "REPORTED": "bold yellow",
    "REUSED": "bold red", "WRONG_CLIENT": "bold red", "REVOKED": "yellow", "EXPIRED": "", "UNKNOWN": "yellow",
    "SCOPE_EXCEEDED": "yellow", "AUDIENCE_EXCEEDED": "yellow", "RATE_LIMITED": "yellow", "OUTBOX_FULL": "bold red",
}  # fmt: skip
_ALWAYS_SHOWN = ("ROTATED", "REPEATED", "REUSED", "WRONG_CLIENT")
_THEFTS = ("reuse", "wrong_client")


def frame(reading: Reading, trends: Trends, *, width: int, heading: str) -> RenderableType:
    """All of it, for a terminal of ``width`` characters."""
    left = [_refreshes(reading, trends), _revocations(reading)]
    right = [_keys(reading), _audit(reading, trends), _store(reading)]
    body: list[RenderableType] = [Text.assemble(("identity top", "bold"), "  ", heading), _processes(reading)]
    if not any(process.state.look for process in reading.processes):
        return Group(*body)
    body.append(_methods(reading.methods, trends, POINTS if width >= TWO_COLUMNS_FROM else SHORT_TREND))
    if width >= TWO_COLUMNS_FROM:
        columns = Table.grid(expand=True)
        columns.add_column(ratio=1)
        columns.add_column(ratio=1)
        columns.add_row(Group(*left), Group(*right))
        body.append(columns)
    else:
        body += [*left, *right]
    return Group(*body)


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(
        content, title=title, title_align="left", box=box.ROUNDED, border_style="dim", padding=(0, 1)
    )


def _table(*columns: str, right: Iterable[str] = ()) -> Table:
    made = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=True)
    return made


def _processes(reading: Reading) -> RenderableType:
    numbers = ("calls/s", "refused/s", "p50", "p95", "p99", "cpu", "memory", "up")
    rows = _table("process", "state", *numbers, right=numbers)
    for process in reading.processes:
        rows.add_row(_text(process.state.url.removeprefix("http://")), _state(process), *_figures(process))
    return _panel("processes", rows)


def _state(process: ProcessReading) -> Text:
    state = process.state
    if state.problem:
        return _text(state.problem, "bold red")
    names = ", ".join(state.impairments)
    match state.ready:
        case None:
            return Text("readiness unknown", "yellow")
        case True:
            return _text(f"ready, but {names}", "yellow") if names else Text("ready", "green")
        case False:
            return _text(f"not ready: {names}", "bold red")


def _figures(process: ProcessReading) -> Sequence[str | Text]:
    if not process.state.look:
        return [UNKNOWN] * 8
    rates: Sequence[str | Text] = [UNKNOWN] * 5
    if process.state.interval:
        rates = [
            _rate(process.calls),
            _warn_rate(process.refused),
            *_latency(process.latency),
        ]
    cpu = UNKNOWN if process.cpu is None else f"{process.cpu:.0%}"
    return [*rates, cpu, _bytes(process.memory), _span(process.uptime)]


def _methods(methods: Sequence[MethodReading], trends: Trends, points: int) -> RenderableType:
    numbers = ("calls/s", "refused/s", "p50", "p95", "p99")
    rows = _table("method", "", *numbers, "refused for", right=numbers)
    for method in methods[:MAX_METHODS]:
        rows.add_row(
            _text(method.name),
            Text(trends.line("method", method.name, points=points), "cyan"),
            _rate(method.calls),
            _warn_rate(method.refused),
            *(_latency(method.latency) if method.latency else ("stream", "", "")),
            _text(", ".join(method.reasons[:MAX_REASONS])),
        )
    if len(methods) > MAX_METHODS:
        rows.add_row(Text(f"and {len(methods) - MAX_METHODS} more", "dim"))
    return _panel("calls", rows if methods else Text("none yet", "dim"))


def _refreshes(reading: Reading, trends: Trends) -> RenderableType:
    rows = _table("verdict", "", "/s", "in all", right=("/s", "in all"))
    found = reading.refreshes
    order = [*_VERDICT_STYLES, *sorted(found.keys() - _VERDICT_STYLES)]
    for verdict in order:
        counted = found.get(verdict, Counted(0, 0))
        if counted.total or (verdict in _ALWAYS_SHOWN and found):
            style = _VERDICT_STYLES.get(verdict, "yellow") if counted.total else "dim"
            # What is over is to be seen, and should not alarm for ever.
            style = style if counted.rate or "red" not in style else "yellow"
            trend = Text(trends.line("refresh", verdict), style)
            rows.add_row(_text(verdict, style), trend, _rate(counted.rate), f"{counted.total:,.0f}")
    return _panel("refreshes", rows)


def _revocations(reading: Reading) -> RenderableType:
    rows = _table("taken away", "/s", "in all", right=("/s", "in all"))
    for kind, counted in sorted(
        reading.revocations.items(), key=lambda item: (item[0] not in _THEFTS, item[0])
    ):
        if counted.total or kind in _THEFTS:
            name = f"sessions, by theft ({kind})" if kind in _THEFTS else kind
            style = "bold red" if counted.rate else "yellow" if counted.total else "dim"
            rows.add_row(
                _text(name, style if kind in _THEFTS else ""), _rate(counted.rate), f"{counted.total:,.0f}"
            )
    sessions = ", ".join(f"{count:,.0f} in {window}" for window, count in reading.sessions.items())
    facts = _facts(
        ("sessions, about", sessions or UNKNOWN),
        ("worst address, refused/min", _number(reading.worst_address)),
        ("refusals folded", f"{_rate(reading.folded.rate)}/s, {reading.folded.total:,.0f} in all"),
    )
    return _panel("sessions", Group(rows, facts))


def _keys(reading: Reading) -> RenderableType:
    rows: list[tuple[str, str | Text]] = []
    for key in reading.keys:
        late = key.left is not None and key.left < 0
        style = (
            "bold red" if late else "yellow" if key.left is not None and key.left < SOON_SECONDS else "green"
        )
        until = f"overdue for {_span(-(key.left or 0))}" if late else f"{_span(key.left)} left"
        rows.append(("key", Text(f"{_text(key.kid[:12])}  {_span(key.age)} old, {until}", style)))
    if reading.processes and not reading.keys:
        rows.append(("key", UNKNOWN))
    verifiers = reading.verifiers
    laggards = reading.laggards or 0
    return _panel(
        "keys and verifiers",
        _facts(
            *rows,
            ("next takes over in", _span(reading.next_rotation)),
            ("published", _counts(reading.key_states)),
            ("refresh secret", f"{_span(reading.secret_age)} old"),
            ("verifiers", f"{_counts(verifiers)}, furthest behind {_number(reading.verifiers_behind)}"),
            *([("lack a due key", Text(_number(laggards), "bold yellow"))] if laggards else []),
        ),
    )


def _audit(reading: Reading, trends: Trends) -> RenderableType:
    dead = reading.dead_letters or 0
    lost = reading.uses_lost
    uses = Text(f"{_rate(lost.rate)}/s, {lost.total:,.0f} in all", "bold red" if lost.rate else "yellow")
    facts = _facts(
        ("outbox", Text.assemble(_bar(reading.outbox_fullest), f"  {_number(reading.outbox_events)} events")),
        ("oldest", _lag(reading.outbox_oldest)),
        ("dead letters", Text(_number(reading.dead_letters), "bold yellow" if dead else "")),
        *([("uses lost, hosts say", uses)] if lost.total else []),
    )
    rows = _table("sink", "", "delivered/s", "behind", "lag", "", right=("delivered/s", "behind", "lag"))
    for sink in reading.sinks:
        state = {None: Text(""), True: Text("takes", "green"), False: Text("takes nothing", "bold red")}[
            sink.up
        ]
        trend = Text(trends.line("sink", sink.name, points=SHORT_TREND), "cyan")
        rows.add_row(
            _text(sink.name), trend, _rate(sink.delivered), _number(sink.behind), _lag(sink.lag), state
        )
    return _panel("audit", Group(facts, rows))


def _store(reading: Reading) -> RenderableType:
    latency = " / ".join(_latency(reading.store_latency))
    errors = Text(f"{_rate(reading.store_errors)}/s", "bold red" if reading.store_errors else "")
    rows: list[tuple[str, str | Text]] = [
        ("round trips", Text.assemble(f"{_rate(reading.round_trips)}/s, failed ", errors)),
        ("of calls, p50 / p95 / p99", latency),
        ("connections", f"{_counts(reading.connections)}; calls waiting: {_number(reading.store_waiting)}"),
    ]
    if reading.circuit_open:
        rows.append(("claims source", Text("left alone: it did not answer", "bold red")))
    return _panel("store", _facts(*rows))


def _facts(*rows: tuple[str, str | Text]) -> Table:
    made = Table.grid(padding=(0, 1))
    for name, value in rows:
        made.add_row(Text(name, "dim"), value if isinstance(value, Text) else Text(value))
    return made


def _bar(share: float | None) -> Text:
    if share is None:
        return Text(UNKNOWN)
    style = "green"
    for at, worse in ((NOTED_AT, "yellow"), (FILLING_AT, "red"), (FULL_AT, "bold red")):
        style = worse if share >= at else style
    filled = min(round(share * BAR_CHARS), BAR_CHARS)
    return Text.assemble(("█" * filled, style), ("░" * (BAR_CHARS - filled), "dim"), (f" {share:.0%}", style))


def _lag(seconds: float | None) -> Text:
    style = "" if seconds is None or seconds < LAG_SECONDS else "yellow"
    return Text(_span(seconds), "bold red" if seconds and seconds >= LONG_LAG_SECONDS else style)


def _text(text: str, style: str = "") -> Text:
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return Text(shown if len(shown) <= MAX_NAME else shown[: MAX_NAME - 1] + "…", style)


def _counts(found: Mapping[str, float]) -> str:
    return _text(", ".join(f"{count:,.0f} {name}" for name, count in found.items()) or UNKNOWN).plain


def _rate(value: float) -> str:
    return (
        "0"
        if not value
        else f"{value:,.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 0.1
        else f"{value:.2g}"
    )


def _warn_rate(value: float) -> Text:
    return Text(_rate(value), "yellow" if value else "dim")


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def _latency(latency: Latency) -> Sequence[str]:
    return [_short_span(each) for each in (latency.p50, latency.p95, latency.p99)]


def _short_span(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    return (
        f"{seconds * 1000:.1f}ms"
        if seconds < 0.1
        else f"{seconds * 1000:.0f}ms"
        if seconds < 1
        else f"{seconds:.1f}s"
    )


def _span(seconds: float | None) -> str:
    """The two largest units.

    >>> _span(93_784.0)
    '1d 2h'
    """
    if seconds is None:
        return UNKNOWN
    whole = round(seconds)
    parts = ((whole // 86_400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s"))
    first = next((at for at, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count}{unit}" for count, unit in parts[first : first + 2] if count or not whole)


def _bytes(count: float | None) -> str:
    return UNKNOWN if count is None else f"{count / 1024 / 1024:,.0f}MiB"
