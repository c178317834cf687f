"""What both gRPC stacks share: the decision about a call, and how a refusal looks on the wire.

A refusal is a gRPC status with ``google.rpc.ErrorInfo`` (domain ``grpc-identity``, the reason), and ``RetryInfo``
where waiting helps. The table below decides which reason is which status. The caller learns the reason; the detail
goes to the log, at level INFO.
"""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from threading import BoundedSemaphore
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from grpc_identity.errors import NotHeldError, PolicyError, Reason, TokenError
from grpc_identity.leases import Lease
from grpc_identity.policy import CompiledPolicy, Policy, Rule, UsageAudit
from grpc_identity.principal import Caller, Principal
from grpc_identity.redaction import keep_metadata_out_of_logs
from grpc_identity.tally import Tally
from grpc_identity.telemetry import report_refusal
from grpc_identity.usage.ports import UsageSink
from grpc_identity.usage.uses import Uses
from grpc_identity.verifier import Verifier

__all__ = [
    "ERROR_DOMAIN",
    "STATUS_CODES",
    "Admitted",
    "Gate",
    "Refusal",
    "behaviour_of",
    "constructor_of",
    "to_status",
]

ERROR_DOMAIN = "grpc-identity"
AUTHORIZATION = "authorization"
_BEARER = "Bearer "

_logger = logging.getLogger("grpc_identity")

STATUS_CODES: dict[Reason, grpc.StatusCode] = {
    Reason.TOKEN_MISSING: grpc.StatusCode.UNAUTHENTICATED,
    Reason.TOKEN_INVALID: grpc.StatusCode.UNAUTHENTICATED,
    Reason.TOKEN_EXPIRED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.TOKEN_NOT_YET_VALID: grpc.StatusCode.UNAUTHENTICATED,
    Reason.TOKEN_REVOKED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.KEY_UNKNOWN: grpc.StatusCode.UNAUTHENTICATED,
    Reason.ISSUER_MISMATCH: grpc.StatusCode.UNAUTHENTICATED,
    Reason.AUDIENCE_MISMATCH: grpc.StatusCode.UNAUTHENTICATED,
    Reason.SCOPE_MISSING: grpc.StatusCode.PERMISSION_DENIED,
    Reason.ROLE_MISSING: grpc.StatusCode.PERMISSION_DENIED,
    Reason.CLAIM_MISSING: grpc.StatusCode.PERMISSION_DENIED,
    Reason.KEYS_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.REVOCATIONS_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.AUDIT_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.VERIFIER_FAILED: grpc.StatusCode.INTERNAL,
}

_MESSAGES: dict[Reason, str] = {
    Reason.TOKEN_MISSING: "This method needs an access token; send `authorization: Bearer ...`.",
    Reason.TOKEN_INVALID: "The access token is not valid.",
    Reason.TOKEN_EXPIRED: "The access token has expired; refresh it.",
    Reason.TOKEN_NOT_YET_VALID: "The access token is not valid yet; compare the clocks.",
    Reason.TOKEN_REVOKED: "The access token was revoked.",
    Reason.KEY_UNKNOWN: "The access token was signed with an unknown key.",
    Reason.ISSUER_MISMATCH: "The access token is from an issuer that is not trusted here.",
    Reason.AUDIENCE_MISMATCH: "The access token is for another audience.",
    Reason.SCOPE_MISSING: "The access token lacks a scope that this method needs.",
    Reason.ROLE_MISSING: "The access token lacks a role that this method needs.",
    Reason.CLAIM_MISSING: "The access token lacks a claim that this method needs.",
    Reason.KEYS_UNAVAILABLE: "Access tokens cannot be verified at the moment; try again.",
    Reason.REVOCATIONS_UNAVAILABLE: "Whether access tokens were revoked is not known at the moment; try again.",
    Reason.AUDIT_UNAVAILABLE: "That the access token is used here cannot be recorded at the moment; try again.",
    Reason.VERIFIER_FAILED: "The access token could not be verified because of a fault in this service.",
}


def to_status(error: TokenError) -> grpc.Status:
    """The status of a refusal, for ``context.abort_with_status``."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason.value, domain=ERROR_DOMAIN)]
    if error.retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(math.ceil(error.retry_after_seconds * 1000))
        details.append(retry)
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    code: int = STATUS_CODES[error.reason].value[0]
    return rpc_status.to_status(status_pb2.Status(code=code, message=_MESSAGES[error.reason], details=packed))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that is refused: ``status`` is what the caller is told. ``uses`` is where that is recorded, if it is."""

    method: str
    error: Exception
    status: grpc.Status
    uses: Uses | None = None

    def reported(self, context: Any) -> grpc.Status:
        """The status, after the host's tracing was told, if it has one; ``context`` is that of the handler.

        Never raises: a refusal stands, whoever fails to hear of it.
        """
        try:
            if self.uses is not None and isinstance(self.error, TokenError):
                principal, metadata = self.error.principal, context.invocation_metadata()
                if principal is not None:
                    code: Any = self.status.code
                    self.uses.ended(
                        self.method, principal, metadata, context.peer(), code.name, self.error.reason.value
                    )
        except Exception:
            _logger.exception("a refusal could not be recorded")
        try:
            report_refusal(
                self.method, self.error, peer=context.peer(), metadata=context.invocation_metadata()
            )
        except Exception:
            _logger.exception("a refusal could not be reported to OpenTelemetry")
        return self.status


@dataclass(frozen=True, slots=True)
class Admitted:
    """A caller that was let in with a token, for calls that may outlive it."""

    verifier: Verifier
    caller: Caller

    def seconds_left(self) -> float:
        """How long the token is still accepted."""
        return self.verifier.seconds_left(self.caller.principal)

    def lease(self, on_end: Callable[[TokenError], None]) -> Lease:
        """Watches over a call; ``on_end`` is called, by any thread, when the token is revoked. Give it back."""
        return self.verifier.lease(self.caller.principal, self.caller.reveal_token(), on_end)

    def refusal(self, method: str, error: Exception) -> Refusal:
        """Counts and logs why the call ends."""
        return _refusal(self.verifier.tally, method, error)

    def release(self, lease: Lease) -> None:
        """The call has ended."""
        self.verifier.leases.remove(lease)


class Gate:
    """Decides about calls by their method and metadata, before any message of theirs is looked at.

    ``max_waiting`` bounds how many calls may wait for keys at a time, so that tokens with unknown keys cannot use
    up what good callers need; the calls above it are asked to try again.
    """

    __slots__ = ("_rule", "_tally", "_verifier", "_verify", "_waiting", "uses")

    def __init__(
        self,
        verifier: Verifier,
        policy: Policy | None,
        *,
        max_waiting: int,
        usage: UsageSink | None = None,
    ) -> None:
        if not isinstance(verifier, Verifier):
            raise TypeError(f"a grpc_identity.Verifier is due, not {type(verifier).__name__}")
        if policy is not None and not isinstance(policy, Policy):
            raise TypeError(f"a grpc_identity.Policy is due, not {type(policy).__name__}")
        keep_metadata_out_of_logs()
        self._verifier = verifier
        self._verify = verifier.verify
        self._tally = verifier.tally
        compiled = (policy or Policy()).compile()
        if usage is not None and not isinstance(usage, UsageSink):
            raise TypeError(f"a grpc_identity.UsageRecorder is due, not {type(usage).__name__}")
        self.uses = _uses(compiled, usage)
        self._rule = compiled.rule
        self._waiting = BoundedSemaphore(max_waiting)

    def admit(self, method: str, metadata: Iterable[tuple[str, Any]] | None) -> Caller | None:
        """The caller, or ``None`` on a public method without a token. Never waits. Raises ``TokenError``."""
        token = _bearer_token(metadata)
        rule = self._rule(method)
        if token is None:
            if rule.is_public:
                self._tally.admitted += 1
                return None
            raise TokenError(Reason.TOKEN_MISSING, "no authorization metadata")
        principal = self._verify(token, rule.audience)
        if rule.requirement is not None:
            _meet(rule, principal)
        self._tally.admitted += 1
        return Caller(principal, token)

    def admitted(self, caller: Caller) -> Admitted:
        """A caller that was admitted just now, for a call that may outlive the token."""
        return Admitted(self._verifier, caller)

    async def admit_async(self, method: str, metadata: Iterable[tuple[str, Any]] | None) -> Caller | None:
        """As ``admit``, after a fetch of keys if one may help."""
        if not self._waiting.acquire(blocking=False):
            raise _too_many_wait()
        try:
            await self._verifier.verify_async(_bearer_token(metadata) or "", self._rule(method).audience)
        finally:
            self._waiting.release()
        return self.admit(method, metadata)

    def admit_waiting(self, method: str, metadata: Iterable[tuple[str, Any]] | None) -> Caller | None:
        """As ``admit``, after a fetch of keys if one may help; blocks the thread meanwhile."""
        if not self._waiting.acquire(blocking=False):
            raise _too_many_wait()
        try:
            self._verifier.verify_waiting(_bearer_token(metadata) or "", self._rule(method).audience)
        finally:
            self._waiting.release()
        return self.admit(method, metadata)

    def may_wait(self, error: NotHeldError, metadata: Iterable[tuple[str, Any]] | None) -> bool:
        """Whether what may bring the missing thing is under way, or was started just now."""
        return self._verifier.fetch_for(error, _bearer_token(metadata) or "") is not None

    def audit(self, method: str) -> UsageAudit:
        """Whether uses of this method are recorded."""
        return UsageAudit.NONE if self.uses is None else self._rule(method).audit

    def refusal(self, method: str, error: Exception) -> Refusal:
        """Counts and logs why a call is refused. An unexpected error refuses, too."""
        refused = _refusal(self._tally, method, error)
        is_audited = self.audit(method) is not UsageAudit.NONE
        return replace(refused, uses=self.uses) if is_audited else refused

    def unrecorded(self, method: str) -> Refusal:
        """The refusal of a call whose use cannot be recorded, and must be."""
        detail = "the use cannot be recorded: the spool is full, or is not there"
        return _refusal(
            self._tally, method, TokenError(Reason.AUDIT_UNAVAILABLE, detail, retry_after_seconds=1.0)
        )


def _refusal(tally: Tally, method: str, error: Exception) -> Refusal:
    reason = error.reason if isinstance(error, TokenError) else Reason.VERIFIER_FAILED
    tally.refused[reason.value] += 1
    return Refusal(method, error, _logged(method, error))


def _logged(method: str, error: Exception) -> grpc.Status:
    if isinstance(error, TokenError):
        _logger.info("refused %r: %s: %s", method, error.reason, error.detail)
        return to_status(error)
    # Without the message of the error: it is not ours, so what is in it is not known.
    where = "".join(traceback.format_tb(error.__traceback__))
    _logger.error("refused %r because verifying failed with %s\n%s", method, type(error).__name__, where)
    return to_status(TokenError(Reason.VERIFIER_FAILED, type(error).__name__))


def behaviour_of(handler: grpc.RpcMethodHandler[Any, Any]) -> Callable[..., Any]:
    """The function of the service that handles the call, whichever of the four kinds it is."""
    behaviour: Any
    if handler.request_streaming:
        behaviour = handler.stream_stream if handler.response_streaming else handler.stream_unary
    else:
        behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary
    return behaviour  # type: ignore[no-any-return]


def constructor_of(
    handler: grpc.RpcMethodHandler[Any, Any],
) -> Callable[..., grpc.RpcMethodHandler[Any, Any]]:
    """What makes a handler of the same kind."""
    if handler.request_streaming:
        return (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
    return (
        grpc.unary_stream_rpc_method_handler
        if handler.response_streaming
        else grpc.unary_unary_rpc_method_handler
    )


def _uses(policy: CompiledPolicy, usage: UsageSink | None) -> Uses | None:
    """What records uses, where a rule asks for it. Raises ``PolicyError`` where there is nothing to do it with."""
    for name, rule in policy.rules():
        if rule.audit is not UsageAudit.NONE:
            if usage is None:
                raise PolicyError(
                    f"{name} asks that each use of a token be recorded, and there is nothing to do it with: give the "
                    "interceptor a UsageRecorder (usage=...), or leave audit out of the rule"
                )
            return Uses(usage)
    return None


def _bearer_token(metadata: Iterable[tuple[str, Any]] | None) -> str | None:
    authorization = None
    for key, value in metadata or ():
        if key == AUTHORIZATION:
            if authorization is not None:
                raise TokenError(Reason.TOKEN_INVALID, "several authorization values")
            authorization = value
    if authorization is None:
        return None
    if not isinstance(authorization, str) or (
        authorization[:7] != _BEARER and authorization[:7].capitalize() != _BEARER
    ):
        raise TokenError(Reason.TOKEN_INVALID, "the authorization value is not of the scheme Bearer")
    return authorization[7:]


def _meet(rule: Rule, principal: Principal) -> None:
    if rule.requirement is not None and (missing := rule.requirement.check(principal)) is not None:
        error = TokenError(
            missing, f"{principal.client_id!r} for {principal.subject!r} lacks {rule.requirement.text}"
        )
        error.principal = principal
        raise error


def _too_many_wait() -> TokenError:
    return TokenError(Reason.KEYS_UNAVAILABLE, "too many calls wait for keys", retry_after_seconds=1.0)
