"""A record by itself: what the identity service would refuse is cut to what it takes, and a defect here breaks no call."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpc_identity import Policy, Principal, UsageAudit, Verifier
from grpc_identity.clock import wall_clock
from grpc_identity.testing import InMemoryIssuer
from grpc_identity.usage.delivery import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, request_of
from grpc_identity.usage.spool import MAX_RECORD_BYTES, Batch
from grpc_identity.usage.uses import Uses, address_of
from grpc_identity.v1 import identity_service_pb2 as pb
from identity.rpc.usage import usage_report
from identity.rpc.validation import MAX_USER_AGENT_BYTES

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=700)


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.kept_bytes: list[int] = []

    def put(self, record: bytes, *, keep_bytes: int = 0, kept_bytes: int = 0) -> bool:
        self.records.append(record)
        self.kept_bytes.append(keep_bytes - kept_bytes)
        return True


def principal_of(**said: Any) -> Principal:
    verifier_issuer = InMemoryIssuer(audience="orders")
    known = Verifier(verifier_issuer.trusted()).verify(verifier_issuer.mint(subject="alice"))
    return known._replace(**said)


PRINCIPAL = principal_of()


@given(
    subject=ANYTHING.filter(bool),
    session=st.none() | ANYTHING,
    token=ANYTHING.filter(bool),
    client=ANYTHING,
    issuer=ANYTHING,
    method=ANYTHING,
    agent=ANYTHING,
    trace=ANYTHING,
    peer=ANYTHING,
)
def test_whatever_a_token_and_a_call_say_the_service_takes_the_record(
    subject: str,
    session: str | None,
    token: str,
    client: str,
    issuer: str,
    method: str,
    agent: str,
    trace: str,
    peer: str,
) -> None:
    sink = Kept()
    who = PRINCIPAL._replace(
        subject=subject, session_id=session, token_id=token, client_id=client, issuer=issuer
    )
    metadata = (("user-agent", agent), ("traceparent", trace))
    uses = Uses(sink)
    use = uses.begin("/t.S/M" + method, who, metadata, peer, must=True)
    assert use is not None
    use.end("PERMISSION_DENIED", "SCOPE_MISSING")
    use.end("OK")
    assert len(sink.records) == 2
    assert sum(sink.kept_bytes) == 0
    assert max(map(len, sink.records)) <= MAX_RECORD_BYTES
    batch = Batch([(1, sink.records[0]), (2**53 - 1, sink.records[1])], 0)
    _, (begun, ended) = usage_report(
        pb.RecordUsageRequest.FromString(request_of(bytes(16), batch)), now_ms=int(wall_clock() * 1000)
    )
    assert begun.is_begun
    assert (ended.number, ended.status_code, ended.reason) == (
        2**53 - 1,
        "PERMISSION_DENIED",
        "SCOPE_MISSING",
    )
    if subject.isprintable() and len(subject.encode(errors="replace")) <= 256:
        assert ended.subject == subject.encode(errors="replace").decode()
    assert len(ended.end_user.user_agent.encode()) <= MAX_USER_AGENT_BYTES


def test_a_record_says_what_protobuf_would_say() -> None:
    sink = Kept()
    trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
    before_ms = int(wall_clock() * 1000)
    metadata = (("user-agent", "grpc-python/1"), ("traceparent", trace))
    Uses(sink).ended("/t.S/M", PRINCIPAL, metadata, "ipv4:192.0.2.7:4711", "OK")
    read = pb.UsageRecord.FromString(sink.records[0])
    assert before_ms <= read.occurred_at_ms <= int(wall_clock() * 1000)
    read.occurred_at_ms = 0
    assert read == pb.UsageRecord(
        step=pb.USAGE_STEP_ENDED,
        method="/t.S/M",
        subject="alice",
        session_id=PRINCIPAL.session_id,
        token_id=PRINCIPAL.token_id,
        client_id=PRINCIPAL.client_id,
        issuer=PRINCIPAL.issuer,
        ip_address="192.0.2.7",
        user_agent="grpc-python/1",
        status_code="OK",
        traceparent=trace,
    )


def test_two_tokens_with_one_id_are_told_apart() -> None:
    sink = Kept()
    uses = Uses(sink)
    for issuer in ("https://a.example", "https://b.example", "https://a.example"):
        uses.ended("/t.S/M", PRINCIPAL._replace(issuer=issuer), (), "unix:", "OK")
    read = [pb.UsageRecord.FromString(record).issuer for record in sink.records]
    assert read == ["https://a.example", "https://b.example", "https://a.example"]


def test_a_full_batch_fits_into_a_request() -> None:
    records = [(number, b"x" * (MAX_BATCH_BYTES // MAX_BATCH_RECORDS)) for number in range(1, 257)]
    assert len(request_of(bytes(16), Batch(records, 0))) < 65_536
    assert len(request_of(bytes(16), Batch([(2**53, b"x" * MAX_RECORD_BYTES)], 0))) < 65_536


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:50051", "127.0.0.1"),
        ("ipv6:%5B::1%5D:50051", "::1"),
        ("ipv6:[2001:db8::1]:50051", "2001:db8::1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::1"),
        ("unix:/run/orders.sock", ""),
        ("ipv4:nonsense:1", ""),
        ("", ""),
    ],
)
def test_the_address_of_a_peer(peer: str, address: str) -> None:
    assert address_of(peer) == address


class Broken:
    """A sink with a defect."""

    def put(self, record: bytes, *, keep_bytes: int = 0, kept_bytes: int = 0) -> bool:
        raise RuntimeError("a defect")


@pytest.mark.parametrize("stack", ["sync", "aio"])
@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
async def test_a_sink_that_raises_breaks_no_call_but_those_that_must_be_recorded(
    issuer: InMemoryIssuer, serve: Any, call: Any, refused: Any, stack: str, kind: str
) -> None:
    def answer(request: Any, context: Any) -> Any:
        return [b"answer"] if kind.endswith("stream") else b"answer"

    constructor = getattr(grpc, f"{kind}_rpc_method_handler")
    for audit in (UsageAudit.USE, UsageAudit.MUST):
        policy = Policy().require(f"/t.S/{kind}", audit=audit)
        target = await serve(
            stack, {kind: constructor(answer)}, Verifier(issuer.trusted()), policy, usage=Broken()
        )
        if audit is UsageAudit.USE:
            assert await call(target, kind, issuer.mint()) == [b"answer"]
        else:
            assert (await refused(call(target, kind, issuer.mint()))).reason == "AUDIT_UNAVAILABLE"
