"""``identity audit verify``: whether exported events are complete and unaltered."""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from identity.cli.audit_files import (
    Files,
    OtlpFiles,
    cannot_tell,
    event_files,
    moment_of,
    progress_over,
    trusted_keys,
)
from identity.cli.connection import Json

if TYPE_CHECKING:
    from rich.table import Table

    from identity.audit.evidence import Evidence
    from identity.audit.report import ChainReport, Report

MAX_SHOWN = 100
MAX_REMARK_CHARS = 2_000
_EVENT_ID = re.compile(r"[0-9a-f]{20}")
_VERDICTS = {0: "good", 1: "faults", 2: "cannot tell"}


def verify(
    files: Files = None,
    otlp_files: OtlpFiles = None,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--keys",
            metavar="URL|FILE",
            help="JWK set of the service: its URL, or a file that was kept; may be repeated.",
        ),
    ] = None,
    kids: Annotated[
        list[str] | None,
        typer.Option("--kid", help="Id of a key of the service that is trusted; may be repeated."),
    ] = None,
    sinks: Annotated[
        list[str] | None, typer.Option("--sink", help="Only events of this sink; may be repeated.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME|EVENT",
            help="Report faults from a time, or an event's id, on; needs a checkpoint that is later.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--to", metavar="TIME|EVENT", help="Up to then; needs a checkpoint that is later."),
    ] = None,
    show_buckets: Annotated[bool, typer.Option("--buckets", help="Show each bucket by itself.")] = False,
    as_json: Json = False,
) -> None:
    """Prove that exported events are complete and unaltered, or name every gap, duplicate, reordering and alteration.

    Every event carries a link of the chain that its sink got; servers sign how far these have got (checkpoints). Events may come in any order,
    from any number of files, any number of times:

        identity audit verify audit.jsonl audit-2026*.jsonl.gz --keys https://id.example/.well-known/jwks.json
        identity audit verify --otlp-json spans.json --keys jwks-of-may.json

    Whose keys are trusted, --keys and --kid say. Keys that have left the set since need not be named: the events that tell of them are
    proved by those of later. What comes after the last checkpoint is consistent and not proved: a tail that was cut off
    there cannot be seen.

    Exit codes: 0 proved, 1 faults were found, 2 it cannot be told (no checkpoint of a trusted key, or none that is later than --from
    and --to; nothing to read).
    """
    from identity.audit.evidence import Evidence
    from identity.audit.reading import ReadError
    from identity.audit.report import report_of
    from identity.clock import SystemClock

    chosen = event_files(files, otlp_files)
    if not chosen:
        raise typer.BadParameter("name at least one FILE, or --otlp-json FILE")
    trusted = trusted_keys(keys, kids)
    now_seconds = SystemClock().now().timestamp()
    with Evidence(frozenset(sinks or ()), now_seconds=now_seconds) as evidence:
        try:
            with progress_over(chosen) as read:
                for file in chosen:
                    source = evidence.new_source(str(file.path), is_ordered=not file.is_otlp)
                    for found in read(file):
                        if found.is_torn:
                            evidence.leave_out_torn(source, found.line)
                        elif found.event is None:
                            evidence.add_unreadable(found.problem, source, found.line)
                        else:
                            evidence.add(found.event, source, found.line)
                            if found.contradicted:
                                evidence.add_contradicted(found.event, found.contradicted, source, found.line)
        except ReadError as error:
            cannot_tell(str(error))
        report = report_of(evidence, trusted, _span(evidence, since, until))
    if as_json:
        typer.echo(json.dumps(_document(report), indent=2))
    else:
        _show(report, show_buckets=show_buckets)
    sys.exit(report.verdict)


def _span(evidence: Evidence, since: str | None, until: str | None) -> Any:
    from identity.audit.findings import Span

    span = Span(_moment(evidence, since, "--from"), _moment(evidence, until, "--to"))
    if span.since_ms is not None and span.until_ms is not None and span.since_ms > span.until_ms:
        raise typer.BadParameter("is later than --to: no event can be between", param_hint="--from")
    return span


def _moment(evidence: Evidence, text: str | None, option: str) -> int | None:
    if text is None or not _EVENT_ID.fullmatch(text):
        return moment_of(text, option)
    times = evidence.times_of(text)
    if not times:
        cannot_tell(f"{option}: there is no event {text}, or it was altered")
    if len(times) > 1:
        cannot_tell(f"{option}: there are several events {text}, and they say different times")
    return times[0]


def _document(report: Report) -> dict[str, Any]:
    from identity.audit.recorded_event import timestamp

    findings = [
        {
            name: value
            for name, value in (asdict(finding) | {"numbers": str(finding.numbers or "")}).items()
            if value not in (None, "", ()) and name != "between_ms"
        }
        for finding in report.findings
    ]
    chains = [
        {
            "sink": chain.sink,
            "bucket": chain.bucket,
            "events": chain.events,
            "numbers": str(chain.numbers or ""),
            "proved": str(chain.proved.numbers) if chain.proved else "",
            "proved_by_checkpoint_of": _time(chain.proved.issued_at_seconds * 1000) if chain.proved else "",
            "after_the_last_checkpoint": chain.unproved,
            "duplicates": chain.duplicates,
            "refused_by_sink": chain.refused,
            "dropped": chain.dropped,
        }
        for chain in report.chains
    ]
    return {
        "verdict": _VERDICTS[report.verdict],
        "findings": findings,
        "more_findings": report.more_findings,
        "asked_for": {
            name: timestamp(moment_ms)
            for name, moment_ms in (("from", report.span.since_ms), ("to", report.span.until_ms))
            if moment_ms is not None
        },
        "faults_left_out": report.left_out,
        "doubts_left_out": report.doubts_left_out,
        "remarks": report.remarks,
        "chains": chains,
        "checkpoints": report.checkpoints,
        "last_checkpoint": {
            sink: _time(seconds * 1000) for sink, seconds in report.checked_until_seconds.items()
        },
        "trusted_keys": report.counting_keys,
        "unknown_keys": report.unknown_keys,
    }


def _show(report: Report, *, show_buckets: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    from identity.cli.audit_shown import printable

    console = Console(soft_wrap=True)
    if report.chains:
        console.print(_by_bucket(report) if show_buckets else _by_sink(report))
    for finding in report.findings[:MAX_SHOWN]:
        where = [finding.sink and f"sink {printable(finding.sink)}"]
        where.append("" if finding.bucket is None else f"bucket {finding.bucket}")
        where.append(f"sequence {finding.numbers}" if finding.numbers else "")
        told = ", ".join(filter(None, where))
        ids = f" ({', '.join(map(printable, finding.event_ids))})" if finding.event_ids else ""
        place = f" [{printable(finding.place, MAX_REMARK_CHARS)}]" if finding.place else ""
        text = printable(finding.text, MAX_REMARK_CHARS)
        console.print(
            Text.assemble(
                (finding.fault.value, "bold red"), f"  {told}{': ' if told else ''}{text}{ids}{place}"
            )
        )
    more = len(report.findings) - MAX_SHOWN
    if more > 0 or report.more_findings:
        console.print(f"and {max(more, 0) + report.more_findings} more; --json has {len(report.findings)}")
    for remark in report.remarks:
        console.print(Text(printable(remark, MAX_REMARK_CHARS), "yellow"))
    colour = {0: "bold green", 1: "bold red", 2: "bold yellow"}[report.verdict]
    console.print(Text(_sentence(report), colour))


def _sentence(report: Report) -> str:
    from identity.audit.findings import EVER

    events = sum(chain.events for chain in report.chains)
    asked = "" if report.span == EVER else " in the time asked for"
    outside = [
        f"{count} {what}"
        for count, what in ((report.left_out, "faults"), (report.doubts_left_out, "numbers in doubt"))
        if count
    ]
    left_out = f"; {' and '.join(outside)} outside of it were left out" if outside else ""
    match report.verdict:
        case 0:
            # Of several sinks, only so much is proved of all.
            last = min(report.checked_until_seconds.values())
            told = f"the checkpoint of {_time(last * 1000)} goes" if last else "the checkpoints go"
            which = f"of {events} events those{asked}" if asked else f"{events} events"
            return f"{which} are complete and unaltered, as far as {told}{left_out}"
        case 1:
            return f"{len(report.findings) + report.more_findings} faults{asked} in {events} events{left_out}"
        case _:
            return (
                f"it cannot be told whether {events} events are complete{asked}: nothing wrong was found, and not all is "
                f"proved{left_out}"
            )


def _by_sink(report: Report) -> Table:
    from rich.table import Table
    from rich.text import Text

    from identity.cli.audit_shown import printable

    by_sink: defaultdict[str, list[ChainReport]] = defaultdict(list)
    for chain in report.chains:
        by_sink[chain.sink].append(chain)
    table = Table(
        "sink",
        "buckets",
        "events",
        "from",
        "to",
        "last checkpoint",
        "after it",
        "duplicates",
        "refused",
        "dropped",
    )
    for sink, chains in by_sink.items():
        first = min((chain.first_ms for chain in chains if chain.numbers), default=0)
        last = max((chain.last_ms for chain in chains if chain.numbers), default=0)
        checked = report.checked_until_seconds.get(sink)
        table.add_row(
            Text(printable(sink)),
            str(len(chains)),
            *_counts(chains, first, last, _time(checked * 1000) if checked else "none"),
        )
    return table


def _by_bucket(report: Report) -> Table:
    from rich.table import Table
    from rich.text import Text

    from identity.cli.audit_shown import printable

    table = Table(
        "sink", "bucket", "sequence", "proved", "events", "from", "to", "checkpoint", "after it", "duplicates", "refused",
        "dropped",
    )  # fmt: skip
    for chain in report.chains:
        proved = chain.proved
        table.add_row(
            Text(printable(chain.sink)),
            str(chain.bucket),
            str(chain.numbers or ""),
            str(proved.numbers) if proved else "",
            *_counts(
                [chain],
                chain.first_ms,
                chain.last_ms,
                _time(proved.issued_at_seconds * 1000) if proved else "none",
            ),
        )
    return table


def _counts(chains: Sequence[ChainReport], first_ms: int, last_ms: int, checked: str) -> Iterator[str]:
    yield str(sum(chain.events for chain in chains))
    yield _time(first_ms)
    yield _time(last_ms)
    yield checked
    for name in ("unproved", "duplicates", "refused", "dropped"):
        yield str(sum(getattr(chain, name) for chain in chains) or "")


def _time(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}" if time_ms else ""
