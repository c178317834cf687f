from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from grpc_identity.v1 import keys_pb2 as _keys_pb2
from grpc_identity.v1 import sessions_pb2 as _sessions_pb2
from grpc_identity.v1 import tokens_pb2 as _tokens_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UsageStep(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    USAGE_STEP_UNSPECIFIED: _ClassVar[UsageStep]
    USAGE_STEP_BEGUN: _ClassVar[UsageStep]
    USAGE_STEP_ENDED: _ClassVar[UsageStep]
    USAGE_STEP_LOST: _ClassVar[UsageStep]
USAGE_STEP_UNSPECIFIED: UsageStep
USAGE_STEP_BEGUN: UsageStep
USAGE_STEP_ENDED: UsageStep
USAGE_STEP_LOST: UsageStep

class IssueTokensRequest(_message.Message):
    __slots__ = ("subject", "audience", "scopes", "client_kind", "roles", "auth_time", "acr", "amr", "client_context", "idempotency_key")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    CLIENT_KIND_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    AUTH_TIME_FIELD_NUMBER: _ClassVar[int]
    ACR_FIELD_NUMBER: _ClassVar[int]
    AMR_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    subject: str
    audience: _containers.RepeatedScalarFieldContainer[str]
    scopes: _containers.RepeatedScalarFieldContainer[str]
    client_kind: _tokens_pb2.ClientKind
    roles: _containers.RepeatedScalarFieldContainer[str]
    auth_time: _timestamp_pb2.Timestamp
    acr: str
    amr: _containers.RepeatedScalarFieldContainer[str]
    client_context: _tokens_pb2.ClientContext
    idempotency_key: str
    def __init__(self, subject: _Optional[str] = ..., audience: _Optional[_Iterable[str]] = ..., scopes: _Optional[_Iterable[str]] = ..., client_kind: _Optional[_Union[_tokens_pb2.ClientKind, str]] = ..., roles: _Optional[_Iterable[str]] = ..., auth_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., acr: _Optional[str] = ..., amr: _Optional[_Iterable[str]] = ..., client_context: _Optional[_Union[_tokens_pb2.ClientContext, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class IssueTokensResponse(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _tokens_pb2.TokenSet
    def __init__(self, tokens: _Optional[_Union[_tokens_pb2.TokenSet, _Mapping]] = ...) -> None: ...

class RefreshRequest(_message.Message):
    __slots__ = ("refresh_token", "idempotency_key", "scopes", "audience", "client_context")
    REFRESH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    refresh_token: str
    idempotency_key: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    audience: _containers.RepeatedScalarFieldContainer[str]
    client_context: _tokens_pb2.ClientContext
    def __init__(self, refresh_token: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., audience: _Optional[_Iterable[str]] = ..., client_context: _Optional[_Union[_tokens_pb2.ClientContext, _Mapping]] = ...) -> None: ...

class RefreshResponse(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _tokens_pb2.TokenSet
    def __init__(self, tokens: _Optional[_Union[_tokens_pb2.TokenSet, _Mapping]] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("token", "session_id", "subject", "client_id", "all_but_session_id", "reason", "wait_until_applied", "access_tokens_only", "idempotency_key", "client_context", "new_roles")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    ALL_BUT_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WAIT_UNTIL_APPLIED_FIELD_NUMBER: _ClassVar[int]
    ACCESS_TOKENS_ONLY_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    NEW_ROLES_FIELD_NUMBER: _ClassVar[int]
    token: str
    session_id: str
    subject: str
    client_id: str
    all_but_session_id: str
    reason: _sessions_pb2.RevocationReason
    wait_until_applied: _duration_pb2.Duration
    access_tokens_only: bool
    idempotency_key: str
    client_context: _tokens_pb2.ClientContext
    new_roles: Roles
    def __init__(self, token: _Optional[str] = ..., session_id: _Optional[str] = ..., subject: _Optional[str] = ..., client_id: _Optional[str] = ..., all_but_session_id: _Optional[str] = ..., reason: _Optional[_Union[_sessions_pb2.RevocationReason, str]] = ..., wait_until_applied: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., access_tokens_only: bool = ..., idempotency_key: _Optional[str] = ..., client_context: _Optional[_Union[_tokens_pb2.ClientContext, _Mapping]] = ..., new_roles: _Optional[_Union[Roles, _Mapping]] = ...) -> None: ...

class Roles(_message.Message):
    __slots__ = ("roles",)
    ROLES_FIELD_NUMBER: _ClassVar[int]
    roles: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, roles: _Optional[_Iterable[str]] = ...) -> None: ...

class RevokeResponse(_message.Message):
    __slots__ = ("applied", "connected", "pending_verifiers")
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    PENDING_VERIFIERS_FIELD_NUMBER: _ClassVar[int]
    applied: int
    connected: int
    pending_verifiers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, applied: _Optional[int] = ..., connected: _Optional[int] = ..., pending_verifiers: _Optional[_Iterable[str]] = ...) -> None: ...

class GetJWKSRequest(_message.Message):
    __slots__ = ("if_version",)
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    if_version: str
    def __init__(self, if_version: _Optional[str] = ...) -> None: ...

class GetJWKSResponse(_message.Message):
    __slots__ = ("keys", "version", "max_age", "not_modified")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    NOT_MODIFIED_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[_keys_pb2.JsonWebKey]
    version: str
    max_age: _duration_pb2.Duration
    not_modified: bool
    def __init__(self, keys: _Optional[_Iterable[_Union[_keys_pb2.JsonWebKey, _Mapping]]] = ..., version: _Optional[str] = ..., max_age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., not_modified: bool = ...) -> None: ...

class WatchVerifierStateRequest(_message.Message):
    __slots__ = ("verifier_id", "verifier_version", "applied_position", "held_kids", "goodbye")
    VERIFIER_ID_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_VERSION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_POSITION_FIELD_NUMBER: _ClassVar[int]
    HELD_KIDS_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    verifier_id: str
    verifier_version: str
    applied_position: str
    held_kids: _containers.RepeatedScalarFieldContainer[str]
    goodbye: bool
    def __init__(self, verifier_id: _Optional[str] = ..., verifier_version: _Optional[str] = ..., applied_position: _Optional[str] = ..., held_kids: _Optional[_Iterable[str]] = ..., goodbye: bool = ...) -> None: ...

class WatchVerifierStateResponse(_message.Message):
    __slots__ = ("position", "snapshot", "jwks", "revocations", "heartbeat_interval")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    JWKS_FIELD_NUMBER: _ClassVar[int]
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    position: str
    snapshot: bool
    jwks: GetJWKSResponse
    revocations: _containers.RepeatedCompositeFieldContainer[VerifierRevocation]
    heartbeat_interval: _duration_pb2.Duration
    def __init__(self, position: _Optional[str] = ..., snapshot: bool = ..., jwks: _Optional[_Union[GetJWKSResponse, _Mapping]] = ..., revocations: _Optional[_Iterable[_Union[VerifierRevocation, _Mapping]]] = ..., heartbeat_interval: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class VerifierRevocation(_message.Message):
    __slots__ = ("session_id", "token_id", "subject", "client_id", "kid", "up_to_sequence", "forget_at")
    class UpToSequenceEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    KID_FIELD_NUMBER: _ClassVar[int]
    UP_TO_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FORGET_AT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    token_id: str
    subject: str
    client_id: str
    kid: str
    up_to_sequence: _containers.ScalarMap[int, int]
    forget_at: _timestamp_pb2.Timestamp
    def __init__(self, session_id: _Optional[str] = ..., token_id: _Optional[str] = ..., subject: _Optional[str] = ..., client_id: _Optional[str] = ..., kid: _Optional[str] = ..., up_to_sequence: _Optional[_Mapping[int, int]] = ..., forget_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class IntrospectRequest(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class IntrospectResponse(_message.Message):
    __slots__ = ("active", "token_type", "subject", "client_id", "audience", "scopes", "session_id", "token_id", "issued_at", "expires_at", "roles")
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_TYPE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    active: bool
    token_type: _tokens_pb2.TokenType
    subject: str
    client_id: str
    audience: _containers.RepeatedScalarFieldContainer[str]
    scopes: _containers.RepeatedScalarFieldContainer[str]
    session_id: str
    token_id: str
    issued_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    roles: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, active: bool = ..., token_type: _Optional[_Union[_tokens_pb2.TokenType, str]] = ..., subject: _Optional[str] = ..., client_id: _Optional[str] = ..., audience: _Optional[_Iterable[str]] = ..., scopes: _Optional[_Iterable[str]] = ..., session_id: _Optional[str] = ..., token_id: _Optional[str] = ..., issued_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., roles: _Optional[_Iterable[str]] = ...) -> None: ...

class ListSessionsRequest(_message.Message):
    __slots__ = ("current_session_id", "subject", "page_size", "page_token")
    CURRENT_SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    current_session_id: str
    subject: str
    page_size: int
    page_token: str
    def __init__(self, current_session_id: _Optional[str] = ..., subject: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListSessionsResponse(_message.Message):
    __slots__ = ("sessions", "next_page_token")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[_sessions_pb2.Session]
    next_page_token: str
    def __init__(self, sessions: _Optional[_Iterable[_Union[_sessions_pb2.Session, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ExchangeTokenRequest(_message.Message):
    __slots__ = ("subject_token", "audience", "scopes", "idempotency_key", "client_context")
    SUBJECT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    subject_token: str
    audience: _containers.RepeatedScalarFieldContainer[str]
    scopes: _containers.RepeatedScalarFieldContainer[str]
    idempotency_key: str
    client_context: _tokens_pb2.ClientContext
    def __init__(self, subject_token: _Optional[str] = ..., audience: _Optional[_Iterable[str]] = ..., scopes: _Optional[_Iterable[str]] = ..., idempotency_key: _Optional[str] = ..., client_context: _Optional[_Union[_tokens_pb2.ClientContext, _Mapping]] = ...) -> None: ...

class ExchangeTokenResponse(_message.Message):
    __slots__ = ("tokens",)
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens: _tokens_pb2.TokenSet
    def __init__(self, tokens: _Optional[_Union[_tokens_pb2.TokenSet, _Mapping]] = ...) -> None: ...

class EraseSubjectRequest(_message.Message):
    __slots__ = ("subject", "idempotency_key")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    subject: str
    idempotency_key: str
    def __init__(self, subject: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class EraseSubjectResponse(_message.Message):
    __slots__ = ("sessions_removed", "entries_removed")
    SESSIONS_REMOVED_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_REMOVED_FIELD_NUMBER: _ClassVar[int]
    sessions_removed: int
    entries_removed: int
    def __init__(self, sessions_removed: _Optional[int] = ..., entries_removed: _Optional[int] = ...) -> None: ...

class RecordUsageRequest(_message.Message):
    __slots__ = ("spool_id", "records")
    SPOOL_ID_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    spool_id: bytes
    records: _containers.RepeatedCompositeFieldContainer[UsageRecord]
    def __init__(self, spool_id: _Optional[bytes] = ..., records: _Optional[_Iterable[_Union[UsageRecord, _Mapping]]] = ...) -> None: ...

class RecordUsageResponse(_message.Message):
    __slots__ = ("recorded", "already_recorded")
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    ALREADY_RECORDED_FIELD_NUMBER: _ClassVar[int]
    recorded: int
    already_recorded: int
    def __init__(self, recorded: _Optional[int] = ..., already_recorded: _Optional[int] = ...) -> None: ...

class UsageRecord(_message.Message):
    __slots__ = ("sequence", "step", "occurred_at_ms", "method", "subject", "session_id", "token_id", "client_id", "issuer", "ip_address", "user_agent", "status_code", "reason", "traceparent", "lost_records", "lost_since_ms")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    IP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_FIELD_NUMBER: _ClassVar[int]
    STATUS_CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    LOST_RECORDS_FIELD_NUMBER: _ClassVar[int]
    LOST_SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    step: UsageStep
    occurred_at_ms: int
    method: str
    subject: str
    session_id: str
    token_id: str
    client_id: str
    issuer: str
    ip_address: str
    user_agent: str
    status_code: str
    reason: str
    traceparent: str
    lost_records: int
    lost_since_ms: int
    def __init__(self, sequence: _Optional[int] = ..., step: _Optional[_Union[UsageStep, str]] = ..., occurred_at_ms: _Optional[int] = ..., method: _Optional[str] = ..., subject: _Optional[str] = ..., session_id: _Optional[str] = ..., token_id: _Optional[str] = ..., client_id: _Optional[str] = ..., issuer: _Optional[str] = ..., ip_address: _Optional[str] = ..., user_agent: _Optional[str] = ..., status_code: _Optional[str] = ..., reason: _Optional[str] = ..., traceparent: _Optional[str] = ..., lost_records: _Optional[int] = ..., lost_since_ms: _Optional[int] = ...) -> None: ...
