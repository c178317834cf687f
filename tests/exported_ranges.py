"""Exported events as a good run of the service leaves them, for those who then do something to them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grpc_identity.jwk import to_jwk
from identity.audit import checkpoints
from identity.audit.chain import GENESIS, ChainedEvent, ChainHead, chained
from identity.audit.evidence import Evidence
from identity.audit.exported import from_line
from identity.audit.findings import Span
from identity.audit.line import line_of as the_sinks_line_of
from identity.audit.recorded_event import NotAnEventError, RecordedEvent, canonical
from identity.audit.report import Report, report_of

START_MS = 1_790_000_000_000
SECOND_MS = 1_000
ISSUER = "https://id.example"


class Key:
    """A signing key, whose id is its thumbprint."""

    def __init__(self, seed: int) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self.public_jwk = to_jwk(self.private.public_key())
        self.kid = self.public_jwk["kid"]

    def checkpoint(
        self, sink: str, heads: Mapping[int, ChainHead], at_ms: int, *, issuer: str = ISSUER
    ) -> str:
        """One checkpoint of all heads."""
        (signing_input,) = checkpoints.signing_inputs(
            issuer=issuer,
            issued_at_seconds=at_ms // 1000,
            sink=sink,
            heads=heads,
            algorithm="EdDSA",
            public_jwk=self.public_jwk,
        )
        return checkpoints.compact(signing_input, self.private.sign(signing_input))


@cache
def key(seed: int = 1) -> Key:
    return Key(seed)


def event(bucket: int, sequence: int, **fields: object) -> RecordedEvent:
    """One refresh of alice, unless it is told otherwise."""
    told: dict[str, object] = {
        "event_id": f"{bucket:04x}{sequence:016x}",
        "bucket": bucket,
        "sequence": sequence,
        "time_ms": START_MS + sequence * SECOND_MS,
        "type": "tokens.refreshed",
        "outcome": "success",
        "client_id": "web",
        "subject": "alice",
        "session_id": f"s{bucket}",
        "generation": sequence,
        "ip_address": "203.0.113.7",
    }
    return RecordedEvent(**(told | fields))  # type: ignore[arg-type]


def checkpoint_event(
    bucket: int, sequence: int, signer: Key, heads: Mapping[int, ChainHead], *, sink: str = "file"
) -> RecordedEvent:
    """The event that a server records of a checkpoint."""
    return event(
        bucket,
        sequence,
        type="audit.checkpoint",
        subject="",
        session_id="",
        generation=None,
        checkpoint=signer.checkpoint(sink, heads, START_MS + sequence * SECOND_MS),
    )


def chain_of(
    events: Sequence[RecordedEvent], *, unsent: Iterable[int] = (), head: ChainHead = GENESIS
) -> list[ChainedEvent]:
    """The chain over these. ``unsent`` are sequence numbers that are links of it, and that the sink does not take."""
    unsent = set(unsent)
    return [each for each in chained(head, events) if each.event.sequence not in unsent]


def head_of(chain: Sequence[ChainedEvent]) -> ChainHead:
    return ChainHead(chain[-1].event.sequence, chain[-1].link)


def line_of(each: ChainedEvent, sink: str = "file") -> bytes:
    return the_sinks_line_of(each, sink)


def checked_range(
    buckets: int = 3, events: int = 8, after: int = 2, *, signer: Key | None = None, sink: str = "file"
) -> list[bytes]:
    """Lines of a file: in each bucket so many events, a checkpoint over all, and some after it."""
    signer = signer or key()
    chains = [chain_of([event(bucket, number + 1) for number in range(events)]) for bucket in range(buckets)]
    heads = {bucket: head_of(chain) for bucket, chain in enumerate(chains)}
    told = checkpoint_event(0, events + 1, signer, heads, sink=sink)
    lines = [line_of(each, sink) for number in range(events) for each in (chain[number] for chain in chains)]
    for bucket, chain in enumerate(chains):
        more = [event(bucket, events + 2 + number) for number in range(after)]
        more = [replace(each, sequence=each.sequence - 1) for each in more] if bucket else [told, *more]
        lines += [line_of(each, sink) for each in chain_of(more, head=head_of(chain))]
    return lines


def checked_chain(
    events: Sequence[RecordedEvent], *, unsent: Iterable[int] = (), signer: Key | None = None
) -> list[ChainedEvent]:
    """The chain over events of one bucket, and a checkpoint over all of them behind it."""
    chain = list(chained(GENESIS, events))
    last = chain[-1].event
    head = {last.bucket: head_of(chain)}
    told = checkpoint_event(last.bucket, last.sequence + 1, signer or key(), head)
    chain += chain_of([told], head=head_of(chain))
    gone = set(unsent)
    return [each for each in chain if each.event.sequence not in gone]


def twice_checked_lines(*, without: Iterable[int] = ()) -> list[bytes]:
    """Of bucket 1: five events, a checkpoint, three events, a checkpoint."""
    first = checked_chain([event(1, number + 1) for number in range(5)])
    chain = [*first, *chain_of([event(1, number) for number in (7, 8, 9)], head=head_of(first))]
    chain += chain_of([checkpoint_event(1, 10, key(), {1: head_of(chain)})], head=head_of(chain))
    gone = set(without)
    return [line_of(each) for each in chain if each.event.sequence not in gone]


def lines_of(chain: Iterable[ChainedEvent], sink: str = "file") -> list[bytes]:
    return [line_of(each, sink) for each in chain]


def verified(
    *files: Iterable[bytes],
    keys: Sequence[str] | None = None,
    is_ordered: bool = True,
    sinks: Iterable[str] = (),
    span: Span | None = None,
    now_seconds: float | None = None,
) -> Report:
    """The report over these files, with the first key trusted."""
    with Evidence(frozenset(sinks), now_seconds=now_seconds) as evidence:
        for number, lines in enumerate(files):
            source = evidence.new_source(f"audit-{number}.jsonl", is_ordered=is_ordered)
            for line_number, line in enumerate(lines, 1):
                try:
                    evidence.add(from_line(line), source, line_number)
                except NotAnEventError as error:
                    evidence.add_unreadable(str(error), source, line_number)
        return report_of(evidence, [key().kid] if keys is None else keys, span or Span())


def told(report: Report) -> list[tuple[str, int | None, str]]:
    """Fault, bucket and numbers of each finding."""
    return [(each.fault.value, each.bucket, str(each.numbers or "")) for each in report.findings]


def place_of(line: bytes) -> tuple[int, str]:
    """Bucket and sequence number, as a line has them."""
    members = json.loads(line)
    return members.get("bucket", 0), members["sequence"]


def chain_lines(lines: Iterable[bytes]) -> list[ChainedEvent]:
    """The events of lines, as a sink got them."""
    found = [from_line(line) for line in lines]
    return [ChainedEvent(each.event, canonical(each.event), each.previous, each.link) for each in found]
