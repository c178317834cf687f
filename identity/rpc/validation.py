"""Requests, checked: what a field may hold is decided here, once, and said in the proto's comments."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from grpc_identity.v1 import identity_service_pb2 as service_pb2
from grpc_identity.v1 import tokens_pb2
from identity.audit.event import NOBODY, EndUser
from identity.errors import FieldViolation, IdentityError, Reason, field_invalid
from identity.sessions.exchange import ExchangeRequest
from identity.sessions.issue import IssueRequest
from identity.sessions.refresh import RefreshRequest
from identity.sessions.revoke import (
    AccessTokensTarget,
    ClientTarget,
    OthersTarget,
    RevocationCause,
    SessionTarget,
    SubjectTarget,
    Target,
    TokenTarget,
)
from identity.telemetry.redaction import holds_secret, redacted
from identity.tokens.lifetimes import ClientKind
from identity.tokens.names import MAX_NAME_CHARACTERS, is_spelt_as_name

MAX_NAME_BYTES = 128
MAX_USER_AGENT_BYTES = 512
MAX_AUDIENCES = 16
MAX_SCOPES = 32
MAX_ROLES = 16
MAX_AMR = 8
MAX_TOKEN_BYTES = 2048
# They have to fit into access tokens of sessions whose other claims are not known here.
MAX_NEW_ROLES_CHARACTERS = 256
MAX_WAIT_SECONDS = 60
MAX_POSITION_BYTES = 4096
MAX_HELD_KIDS = 64
CLOCK_SKEW_SECONDS = 30
_MISPLACED = "holds a token or a secret, which does not belong there"


def unfit_text(value: str, *, max_bytes: int, required: bool) -> str:
    """Why a field cannot hold this; empty where it can."""
    if required and not value:
        return "is required"
    if len(value) > max_bytes or len(value.encode()) > max_bytes:
        return f"has more than {max_bytes} bytes"
    if value and not value.isprintable():
        return "has characters that cannot be printed"
    return ""


class _Checker:
    """Gathers every violation, so that a caller sees them all at once."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def refuse(self, field: str, description: str) -> None:
        self._violations.append(FieldViolation(field, description))

    def name(self, field: str, value: str, *, required: bool = False) -> str:
        """What is recorded and told to others."""
        if holds_secret(value):
            self.refuse(field, _MISPLACED)
        return self.text(field, value, required=required)

    def text(self, field: str, value: str, *, max_bytes: int = MAX_NAME_BYTES, required: bool = False) -> str:
        if unfit := unfit_text(value, max_bytes=max_bytes, required=required):
            self.refuse(field, unfit)
        return value

    def names(self, field: str, values: Sequence[str], *, at_most: int, at_least: int = 0) -> tuple[str, ...]:
        """Names as RFC 6749, section 3.3 has them: printable ASCII without space, quote and backslash."""
        if not at_least <= len(values) <= at_most:
            self.refuse(field, f"has {len(values)} entries; {at_least} to {at_most} are allowed")
            return ()
        for place, value in enumerate(values):
            if not value or len(value) > MAX_NAME_CHARACTERS:
                self.refuse(f"{field}[{place}]", f"has no character or more than {MAX_NAME_CHARACTERS}")
            elif not is_spelt_as_name(value):
                self.refuse(
                    f"{field}[{place}]", "may hold printable ASCII without space, quote and backslash"
                )
            elif holds_secret(value):
                self.refuse(f"{field}[{place}]", _MISPLACED)
        unique = tuple(dict.fromkeys(values))
        if len(unique) != len(values):
            self.refuse(field, "names something twice")
        return unique

    def done(self) -> None:
        if self._violations:
            first = self._violations[0]
            raise IdentityError(
                Reason.FIELD_INVALID,
                f"{first.field}: {first.description}",
                violations=tuple(self._violations),
            )


def issue_request(request: service_pb2.IssueTokensRequest, *, now_seconds: int) -> IssueRequest:
    """Raises ``FIELD_INVALID``."""
    check = _Checker()
    checked = IssueRequest(
        subject=check.name("subject", request.subject),
        audience=check.names("audience", request.audience, at_most=MAX_AUDIENCES, at_least=1),
        scopes=check.names("scopes", request.scopes, at_most=MAX_SCOPES),
        client_kind=_client_kind(check, request.client_kind),
        roles=check.names("roles", request.roles, at_most=MAX_ROLES),
        auth_time_seconds=_auth_time(check, request, now_seconds),
        acr=check.name("acr", request.acr),
        amr=check.names("amr", request.amr, at_most=MAX_AMR),
        idempotency_key=check.text("idempotency_key", request.idempotency_key),
    )
    if not request.subject:
        for field in ("client_kind", "auth_time", "acr", "amr"):
            if getattr(request, field) and (field != "auth_time" or request.HasField("auth_time")):
                check.refuse(field, "speaks of a subject; a service token has none")
    check.done()
    return checked


def refresh_request(request: service_pb2.RefreshRequest) -> RefreshRequest:
    """Raises ``FIELD_INVALID``. A malformed token is not a field error: it is an invalid token."""
    check = _Checker()
    checked = RefreshRequest(
        refresh_token=request.refresh_token,
        idempotency_key=check.text("idempotency_key", request.idempotency_key),
        scopes=check.names("scopes", request.scopes, at_most=MAX_SCOPES) if request.scopes else (),
        audience=check.names("audience", request.audience, at_most=MAX_AUDIENCES) if request.audience else (),
    )
    if not request.refresh_token:
        check.refuse("refresh_token", "is required")
    elif len(request.refresh_token) > MAX_TOKEN_BYTES:
        check.refuse("refresh_token", f"has more than {MAX_TOKEN_BYTES} characters")
    check.done()
    return checked


def exchange_request(request: service_pb2.ExchangeTokenRequest) -> ExchangeRequest:
    """Raises ``FIELD_INVALID``. A malformed token is not a field error: it is an invalid token."""
    check = _Checker()
    checked = ExchangeRequest(
        subject_token=token(request.subject_token, field="subject_token"),
        audience=check.names("audience", request.audience, at_most=MAX_AUDIENCES),
        scopes=check.names("scopes", request.scopes, at_most=MAX_SCOPES),
    )
    check.text("idempotency_key", request.idempotency_key)
    check.done()
    return checked


def revoke_target(request: service_pb2.RevokeRequest) -> tuple[Target, RevocationCause]:
    """Raises ``FIELD_INVALID``."""
    check = _Checker()
    check.text("idempotency_key", request.idempotency_key)
    target = _named_target(check, request)
    causes = list(RevocationCause)
    if not 0 <= request.reason < len(causes):
        check.refuse("reason", "is not a reason this service knows")
    if request.access_tokens_only:
        new_roles = check.names("new_roles", request.new_roles.roles, at_most=MAX_ROLES)
        if not isinstance(target, SubjectTarget):
            check.refuse("access_tokens_only", "goes with a subject")
        elif sum(len(role) for role in new_roles) > MAX_NEW_ROLES_CHARACTERS:
            check.refuse("new_roles", f"have more than {MAX_NEW_ROLES_CHARACTERS} characters together")
        else:
            target = AccessTokensTarget(target.subject, new_roles if request.HasField("new_roles") else None)
    elif request.HasField("new_roles"):
        check.refuse("new_roles", "go with access_tokens_only")
    check.done()
    return target, causes[request.reason]


def _named_target(check: _Checker, request: service_pb2.RevokeRequest) -> Target:
    match request.WhichOneof("target"):
        case "token":
            return TokenTarget(check.text("token", request.token, max_bytes=MAX_TOKEN_BYTES, required=True))
        case "session_id":
            return SessionTarget(check.text("session_id", request.session_id, required=True))
        case "all_but_session_id":
            return OthersTarget(check.text("all_but_session_id", request.all_but_session_id, required=True))
        case "subject":
            return SubjectTarget(check.name("subject", request.subject, required=True))
        case "client_id":
            return ClientTarget(check.name("client_id", request.client_id, required=True))
        case _:
            raise field_invalid(
                "target", "one of token, session_id, all_but_session_id, subject and client_id is required"
            )


def seconds_to_wait(request: service_pb2.RevokeRequest) -> float | None:
    """How long to wait for verifiers; ``None`` for not at all. Raises ``FIELD_INVALID``."""
    if not request.HasField("wait_until_applied"):
        return None
    seconds = request.wait_until_applied.ToTimedelta().total_seconds()
    if not 0 < seconds <= MAX_WAIT_SECONDS:
        raise field_invalid("wait_until_applied", f"is more than 0 and at most {MAX_WAIT_SECONDS} seconds")
    return seconds


def verifier_report(request: service_pb2.WatchVerifierStateRequest) -> service_pb2.WatchVerifierStateRequest:
    """What a verifier says of itself. Raises ``FIELD_INVALID``."""
    check = _Checker()
    check.text("verifier_id", request.verifier_id, required=True)
    check.text("verifier_version", request.verifier_version)
    check.text("applied_position", request.applied_position, max_bytes=MAX_POSITION_BYTES)
    if len(request.held_kids) > MAX_HELD_KIDS:
        check.refuse("held_kids", f"has more than {MAX_HELD_KIDS} entries")
    for place, kid in enumerate(request.held_kids[:MAX_HELD_KIDS]):
        check.text(f"held_kids[{place}]", kid)
    check.done()
    return request


def end_user(context: tokens_pb2.ClientContext) -> EndUser:
    """Raises ``FIELD_INVALID``. The address in its canonical form, so that budgets and audit agree."""
    check = _Checker()
    address = ""
    if context.ip_address:
        try:
            address = ipaddress.ip_address(context.ip_address).compressed
        except ValueError:
            check.refuse("client_context.ip_address", "is not an IPv4 or IPv6 address")
    user_agent = check.text("client_context.user_agent", context.user_agent, max_bytes=MAX_USER_AGENT_BYTES)
    device_label = check.text("client_context.device_label", context.device_label)
    check.done()
    if not (address or user_agent or device_label):
        return NOBODY
    # It is not the caller who has chosen these.
    return EndUser(address, redacted(user_agent), redacted(device_label))


def token(text: str, *, field: str = "token") -> str:
    """Raises ``FIELD_INVALID``."""
    check = _Checker()
    check.text(field, text, max_bytes=MAX_TOKEN_BYTES, required=True)
    check.done()
    return text


def subject(text: str) -> str:
    """Raises ``FIELD_INVALID``."""
    check = _Checker()
    check.name("subject", text, required=True)
    check.done()
    return text


def idempotency_key(text: str) -> str:
    """Raises ``FIELD_INVALID``."""
    check = _Checker()
    check.text("idempotency_key", text)
    check.done()
    return text


def kid(text: str) -> str:
    """Raises ``FIELD_INVALID``."""
    check = _Checker()
    check.text("kid", text, required=True)
    check.done()
    return text


def _client_kind(check: _Checker, kind: tokens_pb2.ClientKind) -> ClientKind:
    match kind:
        case tokens_pb2.CLIENT_KIND_UNSPECIFIED | tokens_pb2.CLIENT_KIND_WEB:
            return ClientKind.WEB
        case tokens_pb2.CLIENT_KIND_MOBILE:
            return ClientKind.MOBILE
        case _:
            check.refuse("client_kind", "is not a kind this service knows")
            return ClientKind.WEB


def _auth_time(check: _Checker, request: service_pb2.IssueTokensRequest, now_seconds: int) -> int | None:
    if not request.HasField("auth_time"):
        return None
    moment: Timestamp = request.auth_time
    if not 0 < moment.seconds <= now_seconds + CLOCK_SKEW_SECONDS:
        check.refuse("auth_time", "is not a time in the past")
    return moment.seconds
