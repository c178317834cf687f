"""From an ``IdentityError`` to a gRPC status with ``google.rpc`` details; the one table of codes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from identity.errors import IdentityError, Reason
from identity.telemetry.redaction import redacted

DOMAIN = "grpc-identity"
MAX_VIOLATIONS = 8

STATUS_CODES: Mapping[Reason, grpc.StatusCode] = MappingProxyType(
    {
        Reason.CLIENT_UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
        Reason.CLIENT_DISABLED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.GRANT_MISSING: grpc.StatusCode.PERMISSION_DENIED,
        Reason.SUBJECT_NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.AUDIENCE_NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.SCOPE_NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.ROLE_NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.REVOCATION_NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.SUBJECT_DISABLED: grpc.StatusCode.PERMISSION_DENIED,
        Reason.FIELD_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.TOKEN_TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
        Reason.IDEMPOTENCY_KEY_REUSED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.REFRESH_TOKEN_INVALID: grpc.StatusCode.UNAUTHENTICATED,
        Reason.REFRESH_TOKEN_EXPIRED: grpc.StatusCode.UNAUTHENTICATED,
        Reason.REFRESH_TOKEN_REUSED: grpc.StatusCode.UNAUTHENTICATED,
        Reason.FAMILY_REVOKED: grpc.StatusCode.UNAUTHENTICATED,
        Reason.SUBJECT_TOKEN_INVALID: grpc.StatusCode.UNAUTHENTICATED,
        Reason.CLIENT_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
        Reason.CLIENT_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.KEY_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        Reason.SECRET_STILL_NEEDED: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.PREVIOUS_KEK_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
        Reason.KEYRING_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.RATE_LIMITED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        Reason.STORE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.AUDIT_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.SIGNER_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.CLAIMS_SOURCE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        Reason.NOT_IMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
        Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    }
)


def status_of(error: IdentityError) -> grpc.Status:
    """The status to abort with. Details stay well below the size at which trailers get lost.

    A text may name what the caller has asked for, and a token that was put into the wrong field is not told back: callers log errors.
    """
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if error.retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(math.ceil(error.retry_after_seconds * 1000))
        details.append(retry)
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field, description=redacted(violation.description)
                    )
                    for violation in error.violations[:MAX_VIOLATIONS]
                ]
            )
        )
    status = status_pb2.Status(code=STATUS_CODES[error.reason].value[0], message=redacted(error.message))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)
