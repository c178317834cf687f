"""What an auditor has been given, gathered and sorted: any order in, chain by chain out.

Sorting is done by SQLite in a temporary file, so that memory does not grow with the number of events: some 250 bytes of disk
each. What is kept in memory grows with faults and explanations only: altered events (``MAX_SUSPECTS`` a sink), events that a sink
has refused, dropped numbers, names of keys.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from types import TracebackType
from typing import Any, Self

from grpc_identity.claims import MAX_LEEWAY_SECONDS
from identity.audit.checkpoints import Checkpoint, NotACheckpointError, read
from identity.audit.explanations import (
    Dropped,
    Explained,
    Numbers,
    Place,
    RefusedBySink,
    explanations,
    joined,
)
from identity.audit.exported import ExportedEvent
from identity.audit.file_order import ChainLink
from identity.audit.findings import Fault, Finding, Findings
from identity.audit.suspects import Suspect, Suspects
from identity.audit.verification import MAX_VARIANTS, ChainEvidence, Claim

BATCH = 1_000
CACHE_KIB = 16 * 1024
MAX_ISSUERS = 100
"""Somebody may have put in checkpoints of any issuer."""

_TABLES = """
CREATE TABLE event (
  sink TEXT NOT NULL, bucket INTEGER NOT NULL, sequence INTEGER NOT NULL, id TEXT NOT NULL, time_ms INTEGER NOT NULL,
  previous BLOB NOT NULL, link BLOB NOT NULL, source INTEGER NOT NULL, line INTEGER NOT NULL
);
CREATE TABLE claim (
  sink TEXT NOT NULL, bucket INTEGER NOT NULL, sequence INTEGER NOT NULL, link BLOB NOT NULL, kid TEXT NOT NULL,
  issued_at INTEGER NOT NULL, last_issued_at INTEGER NOT NULL, PRIMARY KEY (sink, bucket, sequence, link, kid)
) WITHOUT ROWID;
CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID;
"""
# Without an index: one sort of everything reads and writes the file in order, an index would do so all over it.
_EVENTS = "SELECT * FROM event ORDER BY sink, bucket, sequence, source, line"
_NO_MORE: tuple[Any, Iterator[Any]] = (None, iter(()))
_CLAIMS = "SELECT sequence, link, kid, issued_at, last_issued_at FROM claim WHERE sink = ? AND bucket = ? ORDER BY sequence"


class Evidence:
    """Fill it with ``add``, then walk ``chains``. ``sinks``: only events of these; none: of all.

    ``now_seconds``: a checkpoint that is later than that proves events, and no time; ``None``: whatever it says is believed.
    """

    def __init__(self, sinks: frozenset[str] = frozenset(), *, now_seconds: float | None = None) -> None:
        self._wanted = sinks
        self._latest_seconds = None if now_seconds is None else now_seconds + MAX_LEEWAY_SECONDS
        # The empty name is a file that vanishes with the connection.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            f"PRAGMA cache_size=-{CACHE_KIB}; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;"
            + _TABLES
        )
        self._database.execute("BEGIN")
        self._events: list[tuple[str, int, int, str, int, bytes, bytes, int, int]] = []
        self._suspects: defaultdict[str, Suspects] = defaultdict(Suspects)
        self._names: set[tuple[str, int]] = set()
        self._explained: dict[Explained, None] = {}
        self._sources: list[tuple[str, bool]] = []
        self.findings = Findings()
        self.signers: set[tuple[str, str]] = set()
        self.issuers: set[str] = set()
        self.still_to_come: dict[tuple[str, str], int] = {}
        """When checkpoints say they were signed that is later than now; the latest of each sink and key."""
        self.torn: list[str] = []
        self.asked_for: dict[str, Sequence[Place]] = {}
        self.checkpoints = 0
        self.events = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def new_source(self, name: str, *, is_ordered: bool) -> int:
        """A file that is about to be read, and its number. ``is_ordered``: what is further down came later."""
        self._sources.append((name, is_ordered))
        return len(self._sources) - 1

    def add(self, found: ExportedEvent, source: int, line: int) -> None:
        """An event, in any order, any number of times."""
        event = found.event
        self._note_checkpoint(found, source, line)
        if self._wanted and found.sink not in self._wanted:
            return
        self.events += 1
        if not found.is_sound:
            suspect = Suspect(
                found.sink, event.bucket, event.sequence, event.event_id, event.time_ms,
                found.digest, found.previous, found.link, source, line,
            )  # fmt: skip
            self._suspects[found.sink].add(suspect)
            return
        place = Place(found.sink, event.bucket, event.sequence, found.link)
        self._explained.update((Explained(place, says), None) for says in explanations(event))
        row = (
            found.sink, event.bucket, event.sequence, event.event_id, event.time_ms,
            found.previous, found.link, source, line,
        )  # fmt: skip
        self._names.add((found.sink, event.bucket))
        self._events.append(row)
        if len(self._events) >= BATCH:
            self._flush()

    def add_unreadable(self, problem: str, source: int, line: int) -> None:
        """A line, or a span, that is no event."""
        self.findings.add(Finding(Fault.UNREADABLE, problem, place=self.place(source, line)))

    def times_of(self, event_id: str) -> Sequence[int]:
        """When the sound events of that id say they were recorded (ms); one, unless somebody has put in another.

        It matters from then on whether one of them is proved (``asked_for``).
        """
        self._flush()
        found = self._database.execute(
            "SELECT sink, bucket, sequence, link, time_ms FROM event WHERE id = ? LIMIT ?",
            (event_id, MAX_VARIANTS),
        ).fetchall()
        self.asked_for[event_id] = [Place(*row[:-1]) for row in found]
        return sorted({row[-1] for row in found})

    def place(self, source: int, line: int) -> str:
        """For people."""
        return f"{self._sources[source][0]}:{line}"

    def suspects(self) -> Iterator[Suspect]:
        """The altered events of all sinks."""
        for suspects in self._suspects.values():
            yield from suspects

    @property
    def more_suspects(self) -> int:
        """Altered events that are not among them."""
        return sum(suspects.more for suspects in self._suspects.values())

    def add_contradicted(self, found: ExportedEvent, names: Sequence[str], source: int, line: int) -> None:
        """Attributes beside an event that say what it does not. Of an altered one that is the same alteration."""
        if found.is_sound and (not self._wanted or found.sink in self._wanted):
            event = found.event
            text = f"beside the event stands what it does not say: {', '.join(names)}"
            numbers = Numbers(event.sequence, event.sequence)
            self.findings.add(
                Finding(
                    Fault.CONTRADICTED, text, found.sink, event.bucket, numbers, (event.event_id,),
                    self.place(source, line),
                )
            )  # fmt: skip

    def leave_out_torn(self, source: int, line: int) -> None:
        """The end of a file, without an end of its line. It hides nothing: an event that was there is missing without it."""
        self.torn.append(self.place(source, line))

    @property
    def explained(self) -> Collection[Explained]:
        """What sound events say about the audit. Whether that counts is for ``identity.audit.trust`` to say."""
        return self._explained.keys()

    def chains(self, counts: Callable[[Place], bool] = lambda _: False) -> Iterator[ChainEvidence]:
        """Each chain of which there is an event, or a checkpoint of a sink that there are events of.

        ``counts``: whether what the event there explains is believed. Walk each before the next; all may be walked again.
        """
        self._flush()
        for suspects in self._suspects.values():
            suspects.lift()
        names = self._names | {
            (sink, bucket) for sink, suspects in self._suspects.items() for bucket in suspects.buckets
        }
        sinks = {sink for sink, _ in names}
        claimed = self._database.execute("SELECT DISTINCT sink, bucket FROM claim")
        names |= {(sink, bucket) for sink, bucket in claimed if sink in sinks}
        ordered = frozenset(number for number, (_, is_ordered) in enumerate(self._sources) if is_ordered)
        explaining = _Explaining(self._explained, counts)
        for place in (place for places in self.asked_for.values() for place in places):
            explaining.events[place.sink, place.bucket].add((place.sequence, place.link))
        sorted_events = groupby(self._database.execute(_EVENTS), itemgetter(0, 1))
        chain, rows = next(sorted_events, _NO_MORE)
        for sink, bucket in sorted(names):
            has_events = chain == (sink, bucket)
            yield ChainEvidence(
                sink,
                bucket,
                (ChainLink(*row[2:]) for row in rows) if has_events else (),
                self._suspects[sink],
                explaining.refused.get((sink, bucket), {}),
                explaining.dropped_of(sink, bucket, counts=True),
                explaining.dropped_of(sink, bucket, counts=False),
                explaining.events.get((sink, bucket), frozenset()),
                map(Claim._make, self._database.execute(_CLAIMS, (sink, bucket))),
                ordered,
            )
            if has_events:
                chain, rows = next(sorted_events, _NO_MORE)

    def _flush(self) -> None:
        self._database.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self._events)
        self._events.clear()

    def _note_checkpoint(self, found: ExportedEvent, source: int, line: int) -> None:
        event = found.event
        if not event.checkpoint or self._has_seen(found):
            return
        try:
            checkpoint = read(event.checkpoint)
        except NotACheckpointError as error:
            # In an altered event that is the same alteration, and named as such.
            if found.is_sound and (not self._wanted or found.sink in self._wanted):
                self._see(found)
                numbers = Numbers(event.sequence, event.sequence)
                self.findings.add(
                    Finding(
                        Fault.CHECKPOINT_FORGED, str(error), found.sink, event.bucket, numbers, (event.event_id,),
                        self.place(source, line),
                    )
                )  # fmt: skip
            return
        self._see(found)
        self._keep(checkpoint)

    def _has_seen(self, found: ExportedEvent) -> bool:
        # The same event of several sinks has the same digest.
        seen = self._database.execute("SELECT 1 FROM seen WHERE digest = ?", (found.digest,))
        return seen.fetchone() is not None

    def _see(self, found: ExportedEvent) -> None:
        self._database.execute("INSERT INTO seen VALUES (?)", (found.digest,))

    def _keep(self, checkpoint: Checkpoint) -> None:
        self.checkpoints += 1
        signer, issued_at = (checkpoint.sink, checkpoint.kid), checkpoint.issued_at_seconds
        self.signers.add(signer)
        if len(self.issuers) < MAX_ISSUERS:
            self.issuers.add(checkpoint.issuer)
        is_to_come = self._latest_seconds is not None and issued_at > self._latest_seconds
        if is_to_come:
            self.still_to_come[signer] = max(issued_at, self.still_to_come.get(signer, 0))
        self._database.executemany(
            "INSERT INTO claim VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "issued_at = min(issued_at, excluded.issued_at), last_issued_at = max(last_issued_at, excluded.last_issued_at)",
            [
                (
                    checkpoint.sink,
                    bucket,
                    head.sequence,
                    head.link,
                    checkpoint.kid,
                    issued_at,
                    0 if is_to_come else issued_at,
                )
                for bucket, head in checkpoint.heads.items()
            ],
        )


class _Explaining:
    """Explanations by the chain that they are about; one that counts from any event counts."""

    def __init__(self, explained: Iterable[Explained], counts: Callable[[Place], bool]) -> None:
        self.events: defaultdict[tuple[str, int], set[tuple[int, bytes]]] = defaultdict(set)
        self.refused: defaultdict[tuple[str, int], dict[int, dict[bytes, bool]]] = defaultdict(dict)
        self._dropped: defaultdict[tuple[str, int, bool], list[Numbers]] = defaultdict(list)
        for place, says in explained:
            self.events[place.sink, place.bucket].add((place.sequence, place.link))
            match says:
                case RefusedBySink():
                    digests = self.refused[says.sink, says.bucket].setdefault(says.sequence, {})
                    digests[says.digest] = digests.get(says.digest, False) or counts(place)
                case Dropped():
                    self._dropped[says.sink, says.bucket, counts(place)].append(says.numbers)
                case _:
                    pass

    def dropped_of(self, sink: str, bucket: int, *, counts: bool) -> Sequence[Numbers]:
        """Numbers that the sink never had, as is said of all sinks or of this one."""
        return joined(
            numbers for name in ("", sink) for numbers in self._dropped.get((name, bucket, counts), ())
        )
