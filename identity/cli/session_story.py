"""The story of a session, as ``identity sessions explain`` draws it."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from grpc_identity.v1 import admin_service_pb2 as admin_pb
from grpc_identity.v1 import sessions_pb2

__all__ = ["ENDINGS", "story"]

# What happened, for people; a test keeps it equal to the proto.
ENDINGS = {
    "EXPIRED_IDLE": "was not used for its idle lifetime",
    "EXPIRED_ABSOLUTE": "reached its absolute end",
    "REUSE_DETECTED": "a refresh token that was spent before came back: somebody holds a copy",
    "WRONG_CLIENT": "another client presented its refresh token: somebody holds a copy",
    "REVOKED_BY_USER": "revoked by the client it belongs to",
    "REVOKED_BY_ADMIN": "revoked by an administrator",
    "REVOKED_WITH_OTHERS": "the person logged out everywhere else",
    "SUBJECT_CUTOFF": "everything of the subject was revoked",
    "CLIENT_CUTOFF": "everything of the client was revoked",
    "CLIENT_DISABLED": "the client was disabled",
    "SUBJECT_DISABLED": "the claims source said that the subject may have no tokens any more",
    "SESSION_CAP": "made room for another session of the subject at this client",
}


def story(explained: admin_pb.ExplainSessionResponse) -> Iterator[Text]:
    """A line an event, oldest first."""
    session = explained.session
    yield Text.assemble(
        (session.session_id, "bold"), f"  {session.subject} at {session.client_id}", _place(session)
    )
    yield _line(session.created_at, "●", "green", "started")
    if explained.earlier_steps:
        yield Text.assemble(
            "                      ", ("┆", "dim"), f" {explained.earlier_steps} earlier refreshes"
        )
    for step in explained.steps:
        what = f"refreshed: generation {step.generation} spent"
        if step.recovered:
            what += "; the store had lost writes and was caught up with"
        if step.retries_answered:
            what += f"; the answer was repeated {step.retries_answered} times"
        if step.ip_address:
            what += f"; from {step.ip_address}"
        yield _line(step.spent_at, "│", "cyan", what)
    if explained.state == sessions_pb2.SESSION_STATE_ACTIVE:
        yield _line(session.expires_at, "○", "dim", "will reach its absolute end; it is alive")
        return
    name = sessions_pb2.SessionEndReason.Name(explained.end_reason).removeprefix("SESSION_END_REASON_")
    what = f"ended: {name}, {ENDINGS.get(name, 'for a reason this program does not know')}"
    if explained.revocation_reason:
        said = sessions_pb2.RevocationReason.Name(explained.revocation_reason)
        what += f"; said was {said.removeprefix('REVOCATION_REASON_')}"
    if explained.ended_by_client_id:
        what += f"; by {explained.ended_by_client_id}"
    yield _line(explained.ended_at, "✕", "red", what)


def _line(at: Timestamp, mark: str, style: str, what: str) -> Text:
    return Text.assemble((f"{at.ToDatetime():%Y-%m-%d %H:%M:%S}", "dim"), "   ", (mark, style), f" {what}")


def _place(session: sessions_pb2.Session) -> str:
    context = session.client_context
    known = [context.device_label, context.ip_address]
    return "".join(f", {item}" for item in known if item)
