"""What a signature over a chain proves, and whose signature counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import exported_ranges as made
import pytest

from grpc_identity.claims import ACCESS_TOKEN_TYPE
from grpc_identity.errors import TokenError
from grpc_identity.jwk import KeySet
from grpc_identity.jws import verify_compact
from grpc_identity.testing import InMemoryIssuer
from identity.audit import checkpoints
from identity.audit.chain import GENESIS, ChainedEvent, ChainHead
from identity.audit.checkpoints import NotACheckpointError, read
from identity.audit.findings import Span
from identity.audit.report import Report, Verdict

OURS, OTHER, NEXT = made.key(1), made.key(2), made.key(3)
HEADS = {3: ChainHead(17, bytes(range(32))), 0: ChainHead(4, bytes(32))}


def with_checkpoint(lines: list[bytes], change: Any) -> list[bytes]:
    """The same range, with another checkpoint in its event, written as a sink would have got it."""
    at = next(number for number, line in enumerate(lines) if b'"checkpoint"' in line)
    before = [json.loads(line) for line in lines[: at + 1] if made.place_of(line)[0] == 0]
    members = before[-1]
    events = [made.event(0, number + 1) for number in range(len(before) - 1)]
    told = made.event(
        0, len(before), type="audit.checkpoint", subject="", session_id="", generation=None,
        checkpoint=change(members["checkpoint"]),
    )  # fmt: skip
    after = [made.event(0, len(before) + 1), made.event(0, len(before) + 2)]
    rewritten = [made.line_of(each) for each in made.chain_of([*events, told, *after])]
    return [line for line in lines if made.place_of(line)[0] != 0] + rewritten


def test_a_checkpoint_says_what_was_signed() -> None:
    checkpoint = read(OURS.checkpoint("file", HEADS, made.START_MS))
    assert (checkpoint.sink, checkpoint.heads, checkpoint.kid) == ("file", HEADS, OURS.kid)
    assert (checkpoint.issuer, checkpoint.issued_at_seconds) == (made.ISSUER, made.START_MS // 1000)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_an_altered_checkpoint_is_none(part: int) -> None:
    parts = OURS.checkpoint("file", HEADS, made.START_MS).split(".")
    for at in range(0, len(parts[part]), 7):
        letter = "A" if parts[part][at] != "A" else "B"
        altered = [*parts]
        altered[part] = parts[part][:at] + letter + parts[part][at + 1 :]
        with pytest.raises(NotACheckpointError):
            read(".".join(altered))


def test_a_checkpoint_of_a_key_that_another_name_is_given_is_none() -> None:
    (signing_input,) = checkpoints.signing_inputs(
        issuer=made.ISSUER,
        issued_at_seconds=1,
        sink="file",
        heads=HEADS,
        algorithm="EdDSA",
        public_jwk=OTHER.public_jwk | {"kid": OURS.kid},
    )
    with pytest.raises(NotACheckpointError, match="no key with the kid"):
        read(checkpoints.compact(signing_input, OTHER.private.sign(signing_input)))


def test_an_access_token_is_no_checkpoint_and_no_checkpoint_an_access_token() -> None:
    issuer = InMemoryIssuer(audience="orders")
    with pytest.raises(NotACheckpointError, match="typ"):
        read(issuer.mint())
    with pytest.raises(TokenError, match="typ"):
        verify_compact(
            OURS.checkpoint("file", HEADS, 0), KeySet.from_jwks([OURS.public_jwk]), typ=ACCESS_TOKEN_TYPE
        )


def test_many_buckets_take_several_checkpoints_that_a_reader_takes() -> None:
    heads = {bucket: ChainHead(10**12, bytes([bucket % 256]) * 32) for bucket in range(150)}
    inputs = checkpoints.signing_inputs(
        issuer=made.ISSUER,
        issued_at_seconds=1,
        sink="file",
        heads=heads,
        algorithm="EdDSA",
        public_jwk=OURS.public_jwk,
    )
    found = [read(checkpoints.compact(each, OURS.private.sign(each))) for each in inputs]
    assert len(found) == 3
    assert {bucket: head for each in found for bucket, head in each.heads.items()} == heads


def test_a_checkpoint_that_was_altered_before_it_was_exported_is_named() -> None:
    lines = with_checkpoint(made.checked_range(), lambda token: token[:-2] + "AA")
    report = made.verified(lines)
    assert made.told(report) == [("checkpoint_forged", 0, "9")]


def test_a_forged_checkpoint_is_named_in_the_sinks_asked_for_whatever_was_read_before() -> None:
    told = made.checkpoint_event(0, 1, OURS, HEADS)
    forged = made.event(0, 1, type="audit.checkpoint", checkpoint=told.checkpoint[:-2] + "AA")
    chain = made.chain_of([forged])
    files = (made.lines_of(chain, "otlp"), made.lines_of(chain))
    assert ("checkpoint_forged", 0, "1") in made.told(made.verified(*files, sinks=["file"]))


def test_a_sink_is_checked_as_far_as_the_bucket_that_is_checked_least() -> None:
    """Of two checkpoints that were signed together, for some of the buckets each, one was taken away with the tail of a bucket."""
    chains = {
        bucket: made.chain_of([made.event(bucket, number + 1) for number in range(4)]) for bucket in (1, 2)
    }
    asked = Span(until_ms=made.START_MS + 40 * made.SECOND_MS)

    def verdict(*told: tuple[int, Mapping[int, int]], kept: int) -> Verdict:
        """``told``: checkpoints, each with its second and how far it says that buckets have got."""
        own: list[ChainedEvent] = []
        for sequence, (seconds, said) in enumerate(told, 1):
            heads = {bucket: made.head_of(chains[bucket][:count]) for bucket, count in said.items()}
            heads |= {0: made.head_of(own)} if own else {}
            token = OURS.checkpoint("file", heads, made.START_MS + seconds * made.SECOND_MS)
            event = made.event(0, sequence, type="audit.checkpoint", checkpoint=token)
            own += made.chain_of([event], head=made.head_of(own) if own else GENESIS)
        lines = made.lines_of([*own, *chains[1], *chains[2][:kept]])
        return made.verified(lines, is_ordered=False, span=asked).verdict

    early, some, others = (3, {1: 2, 2: 2}), (50, {1: 4}), (50, {2: 4})
    assert verdict(early, some, others, kept=4) is Verdict.GOOD
    assert verdict(early, some, others, kept=3) is Verdict.FAULTS
    assert verdict(early, some, kept=3) is Verdict.CANNOT_TELL


def test_what_a_checkpoint_says_was_there_is_missed_from_before_that() -> None:
    """An old file was removed, and a bucket was idle from then to well after the time that is asked for begins."""
    idle = made.chain_of([made.event(2, sequence) for sequence in (1, 2, 3)])
    late = made.event(2, 4, time_ms=made.START_MS + 100 * made.SECOND_MS)
    idle += made.chain_of([late], head=made.head_of(idle))
    chain: list[ChainedEvent] = []
    for sequence, (seconds, had) in enumerate([(10, 3), (200, 4)], 1):
        heads = {2: made.head_of(idle[:had])} | ({1: made.head_of(chain)} if chain else {})
        token = OURS.checkpoint("file", heads, made.START_MS + seconds * made.SECOND_MS)
        event = made.event(1, sequence, type="audit.checkpoint", checkpoint=token)
        chain += made.chain_of([event], head=made.head_of(chain) if chain else GENESIS)
    kept = made.lines_of([*chain, idle[3]])

    def asked_from(seconds: int, **options: Any) -> Report:
        return made.verified(kept, span=Span(since_ms=made.START_MS + seconds * made.SECOND_MS), **options)

    report = asked_from(50)
    assert (made.told(report), report.left_out, report.verdict) == ([], 1, Verdict.GOOD)
    assert made.told(asked_from(5)) == [("missing", 2, "1-3")]
    # Whoever takes away what is younger has no such checkpoint, and one that nobody trusts says nothing.
    assert made.told(asked_from(50, keys=[OTHER.kid])) == [("missing", 2, "1-3")]


def test_a_checkpoint_from_later_than_now_proves_events_and_no_time() -> None:
    lines, now = made.twice_checked_lines(), made.START_MS // 1000 + 7
    signed = [6, 10]  # seconds after the start
    early, late = (Span(until_ms=made.START_MS + second * made.SECOND_MS) for second in signed)

    def verdict(span: Span, now_seconds: float) -> Verdict:
        return made.verified(lines, span=span, now_seconds=now_seconds).verdict

    assert verdict(late, now) is Verdict.GOOD  # give or take a leeway
    assert verdict(late, now - 30) is Verdict.CANNOT_TELL
    assert verdict(early, now - 30) is Verdict.GOOD
    report = made.verified(lines, now_seconds=now - 30)
    assert report.verdict is Verdict.GOOD
    assert [str(chain.proved.numbers) for chain in report.chains if chain.proved] == ["1-9"]
    assert any("is later than now" in remark for remark in report.remarks)
    # One that nobody trusts is not worth a word.
    untrusted = made.verified(lines, keys=[OTHER.kid], now_seconds=now - 30)
    assert not any("is later than now" in remark for remark in untrusted.remarks)
    assert made.verified(lines, now_seconds=0).checked_until_seconds == {"file": 0}


@pytest.mark.parametrize(
    ("bucket", "sequence", "at_ms"),
    [(2**70, 1, made.START_MS), (1, 2**70, made.START_MS), (1, 1, 10**20), (1, 1, -1000)],
)
def test_what_cannot_be_is_no_checkpoint(bucket: int, sequence: int, at_ms: int) -> None:
    with pytest.raises(NotACheckpointError):
        read(OURS.checkpoint("file", {bucket: ChainHead(sequence, bytes(32))}, at_ms))


def test_a_checkpoint_of_a_key_that_nobody_trusts_proves_nothing() -> None:
    report = made.verified(made.checked_range(signer=OTHER))
    assert report.verdict is Verdict.CANNOT_TELL
    assert report.unknown_keys == [OTHER.kid]
    assert all(chain.proved is None for chain in report.chains)
    assert made.verified(made.checked_range(signer=OTHER), keys=[OTHER.kid]).verdict is Verdict.GOOD


def test_exports_of_two_services_are_told_from_a_store_that_lost_writes() -> None:
    def of_another_service(token: str) -> str:
        return OTHER.checkpoint("file", read(token).heads, made.START_MS, issuer="https://other.example")

    others = with_checkpoint(made.checked_range(), of_another_service)
    (remark,) = [each for each in made.verified(made.checked_range(), others).remarks if "issuers" in each]
    assert "2 issuers (https://id.example, https://other.example)" in remark
    assert not any("issuers" in each for each in made.verified(made.checked_range()).remarks)


def test_whoever_has_named_keys_is_told_that_these_do_not_vouch_for_a_checkpoint() -> None:
    (unnamed,) = [each for each in made.verified(made.checked_range(), keys=[]).remarks if "unknown" in each]
    assert unnamed.endswith("name a JWK set with --keys")
    named = made.verified(made.checked_range(), keys=[OTHER.kid]).remarks
    assert any("none of the keys that were named vouches" in each for each in named)


def test_when_a_checkpoint_that_differs_was_signed_is_told_as_a_time() -> None:
    chain = made.checked_chain([made.event(1, number + 1) for number in range(3)])
    others = made.chain_of([made.event(1, number + 1, subject="bob") for number in range(3)])
    told = chain[-1].event
    forged = [*others, *made.chain_of([told], head=made.head_of(others))]
    (finding,) = made.verified(made.lines_of(forged)).findings
    assert finding.fault == "checkpoint_differs"
    assert "has signed at 2026-09-21T" in finding.text


def test_a_checkpoint_of_another_sink_proves_nothing_of_this_one() -> None:
    def of_another_sink(token: str) -> str:
        checkpoint = read(token)
        return OURS.checkpoint("otlp", checkpoint.heads, checkpoint.issued_at_seconds * 1000)

    report = made.verified(with_checkpoint(made.checked_range(), of_another_sink))
    assert report.findings == []
    assert report.verdict is Verdict.CANNOT_TELL
    assert all(chain.proved is None for chain in report.chains)


def test_what_one_sink_was_told_of_another_counts_there() -> None:
    chain = made.chain_of([made.event(1, number + 1) for number in range(4)])
    told = made.checkpoint_event(0, 1, OURS, {1: made.head_of(chain)}, sink="otlp")
    otlp = [made.line_of(each, "otlp") for each in chain]
    file = [made.line_of(each) for each in made.chain_of([told])]
    report = made.verified([*otlp, *file], sinks=["otlp"])
    assert [chain.sink for chain in report.chains] == ["otlp"]
    assert report.verdict is Verdict.GOOD


def rotated(*, revoked: bool = False) -> list[bytes]:
    """A range in which one key signs, makes room for the next, and is removed; the last checkpoint is the next one's."""
    old, new = OURS, NEXT
    first = [made.event(0, 1, type="key.created", key_id=old.kid), made.event(0, 2)]
    chain = made.chain_of(first)
    events = [
        made.checkpoint_event(0, 3, old, {0: made.head_of(chain)}),
        made.event(0, 4, type="key.created", key_id=new.kid),
        made.event(0, 5),
    ]
    chain += made.chain_of(events, head=made.head_of(chain))
    events = [
        made.checkpoint_event(0, 6, old, {0: made.head_of(chain)}),
        made.event(0, 7, type="key.revoked" if revoked else "key.removed", key_id=old.kid),
    ]
    chain += made.chain_of(events, head=made.head_of(chain))
    chain += made.chain_of(
        [made.checkpoint_event(0, 8, new, {0: made.head_of(chain)})], head=made.head_of(chain)
    )
    return [made.line_of(each) for each in chain]


def test_the_key_of_today_vouches_for_one_that_was_removed_since() -> None:
    report = made.verified(rotated(), keys=[NEXT.kid])
    assert report.counting_keys == sorted([OURS.kid, NEXT.kid])
    assert report.verdict is Verdict.GOOD
    assert [str(chain.proved.numbers) for chain in report.chains if chain.proved] == ["1-7"]


def test_a_key_of_before_vouches_for_its_successor() -> None:
    report = made.verified(rotated(), keys=[OURS.kid])
    assert report.counting_keys == sorted([OURS.kid, NEXT.kid])
    assert report.verdict is Verdict.GOOD


def test_an_archive_from_before_the_key_of_today_is_proved_by_the_key_of_then_by_name() -> None:
    archive = rotated()[:6]
    assert made.verified(archive, keys=[NEXT.kid]).verdict is Verdict.CANNOT_TELL
    assert made.verified(archive, keys=[OURS.kid]).verdict is Verdict.GOOD


def test_nobody_vouches_for_a_key_that_was_revoked() -> None:
    report = made.verified(rotated(revoked=True), keys=[NEXT.kid])
    assert report.counting_keys == [NEXT.kid]
    assert report.unknown_keys == [OURS.kid]
    # What it signed is proved by what came after.
    assert report.verdict is Verdict.GOOD


def test_an_audit_cannot_vouch_for_itself() -> None:
    forged = [
        made.event(0, 1, type="key.created", key_id=OTHER.kid),
        made.event(0, 2, subject="mallory"),
    ]
    chain = made.chain_of(forged)
    chain += made.chain_of(
        [made.checkpoint_event(0, 3, OTHER, {0: made.head_of(chain)})], head=made.head_of(chain)
    )
    report = made.verified([made.line_of(each) for each in chain], keys=[OURS.kid])
    assert report.counting_keys == []
    assert report.verdict is Verdict.CANNOT_TELL
