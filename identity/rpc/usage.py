"""Reports of uses, checked: one record at a time, so that the one that is refused is named."""

from __future__ import annotations

import ipaddress
import re

import grpc

from grpc_identity.v1 import identity_service_pb2 as pb
from identity.audit.event import NOBODY, EndUser
from identity.errors import field_invalid
from identity.rpc.authentication import well_formed_traceparent
from identity.rpc.validation import MAX_USER_AGENT_BYTES, unfit_text
from identity.sessions.usage import ReportedLoss, ReportedUse
from identity.telemetry.redaction import holds_secret, redacted

SPOOL_ID_BYTES = 16
MAX_RECORDS = 256
MAX_TEXT_BYTES = 256
MAX_NUMBER = 2**53 - 1
DAY_MS = 86_400_000
MAX_AHEAD_MS = DAY_MS
"""A host whose clock is further ahead takes every token for expired, and has no use to report."""
MAX_AGE_MS = 366 * DAY_MS
"""As long may a spool have waited. No sink has a time that it cannot say in between."""
_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_STATUS_CODES = frozenset(code.name for code in grpc.StatusCode)


def usage_report(
    request: pb.RecordUsageRequest, *, now_ms: int
) -> tuple[bytes, tuple[ReportedUse | ReportedLoss, ...]]:
    """The spool and its records. Raises ``FIELD_INVALID``."""
    if len(request.spool_id) != SPOOL_ID_BYTES:
        raise field_invalid("spool_id", f"has {SPOOL_ID_BYTES} bytes")
    if not 1 <= len(request.records) <= MAX_RECORDS:
        raise field_invalid("records", f"has {len(request.records)} entries; 1 to {MAX_RECORDS} are allowed")
    before = 0
    reported: list[ReportedUse | ReportedLoss] = []
    for place, record in enumerate(request.records):
        at = f"records[{place}]"
        if not before < record.sequence <= MAX_NUMBER:
            raise field_invalid(f"{at}.sequence", "does not rise, or is too high")
        before = record.sequence
        reported.append(
            _loss(at, record, now_ms) if record.step == pb.USAGE_STEP_LOST else _use(at, record, now_ms)
        )
    return request.spool_id, tuple(reported)


def _loss(at: str, record: pb.UsageRecord, now_ms: int) -> ReportedLoss:
    if not record.lost_records:
        raise field_invalid(f"{at}.lost_records", "is how many records were lost")
    # Of a use that was refused for its time as well, and by a clock that may have been set back in between; what is refused here
    # nobody hears of.
    since_ms, until_ms = sorted(
        _nearest_time(said, now_ms) for said in (record.lost_since_ms, record.occurred_at_ms)
    )
    return ReportedLoss(
        number=record.sequence,
        as_reported=record.SerializeToString(),
        records=record.lost_records,
        since_ms=since_ms,
        until_ms=until_ms,
    )


def _use(at: str, record: pb.UsageRecord, now_ms: int) -> ReportedUse:
    if record.step not in (pb.USAGE_STEP_BEGUN, pb.USAGE_STEP_ENDED):
        raise field_invalid(f"{at}.step", "is not a step this service knows")
    is_begun = record.step == pb.USAGE_STEP_BEGUN
    if record.reason and not _REASON.fullmatch(record.reason):
        raise field_invalid(f"{at}.reason", "is not a reason")
    if (record.status_code not in _STATUS_CODES) if not is_begun else record.status_code:
        raise field_invalid(f"{at}.status_code", "is the name of a gRPC status when the call has ended")
    return ReportedUse(
        number=record.sequence,
        as_reported=record.SerializeToString(),
        is_begun=is_begun,
        occurred_at_ms=_time(f"{at}.occurred_at_ms", record.occurred_at_ms, now_ms),
        method=_name(f"{at}.method", record.method, required=True),
        subject=_name(f"{at}.subject", record.subject, required=True),
        session_id=_name(f"{at}.session_id", record.session_id),
        token_id=_name(f"{at}.token_id", record.token_id, required=True),
        client_id=_name(f"{at}.client_id", record.client_id),
        issuer=_name(f"{at}.issuer", record.issuer),
        end_user=_end_user(at, record),
        status_code=record.status_code,
        reason=record.reason,
        traceparent=well_formed_traceparent(record.traceparent),
    )


def _time(field: str, milliseconds: int, now_ms: int) -> int:
    if not now_ms - MAX_AGE_MS <= milliseconds <= now_ms + MAX_AHEAD_MS:
        raise field_invalid(field, "is more than 366 days ago, or more than a day ahead")
    return milliseconds


def _nearest_time(milliseconds: int, now_ms: int) -> int:
    return min(max(milliseconds, now_ms - MAX_AGE_MS), now_ms + MAX_AHEAD_MS)


def _end_user(at: str, record: pb.UsageRecord) -> EndUser:
    address = ""
    if record.ip_address:
        try:
            address = ipaddress.ip_address(record.ip_address).compressed
        except ValueError:
            raise field_invalid(f"{at}.ip_address", "is not an IPv4 or IPv6 address") from None
    user_agent = _text(f"{at}.user_agent", record.user_agent, max_bytes=MAX_USER_AGENT_BYTES)
    # What a caller sends there must not keep its use out of the audit.
    return EndUser(address, redacted(user_agent)) if address or user_agent else NOBODY


def _text(field: str, value: str, *, max_bytes: int = MAX_TEXT_BYTES, required: bool = False) -> str:
    if unfit := unfit_text(value, max_bytes=max_bytes, required=required):
        raise field_invalid(field, unfit)
    return value


def _name(field: str, value: str, *, required: bool = False) -> str:
    """Without a token, if one was put there. Elsewhere that is refused; here the use would be lost, and other issuers may give
    names that look like ours of tokens."""
    text = _text(field, value, required=required)
    return redacted(text) if holds_secret(text) else text
