from google.protobuf import timestamp_pb2 as _timestamp_pb2
from grpc_identity.v1 import tokens_pb2 as _tokens_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionEndReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SESSION_END_REASON_UNSPECIFIED: _ClassVar[SessionEndReason]
    SESSION_END_REASON_EXPIRED_IDLE: _ClassVar[SessionEndReason]
    SESSION_END_REASON_EXPIRED_ABSOLUTE: _ClassVar[SessionEndReason]
    SESSION_END_REASON_REUSE_DETECTED: _ClassVar[SessionEndReason]
    SESSION_END_REASON_WRONG_CLIENT: _ClassVar[SessionEndReason]
    SESSION_END_REASON_REVOKED_BY_USER: _ClassVar[SessionEndReason]
    SESSION_END_REASON_REVOKED_BY_ADMIN: _ClassVar[SessionEndReason]
    SESSION_END_REASON_REVOKED_WITH_OTHERS: _ClassVar[SessionEndReason]
    SESSION_END_REASON_SUBJECT_CUTOFF: _ClassVar[SessionEndReason]
    SESSION_END_REASON_CLIENT_CUTOFF: _ClassVar[SessionEndReason]
    SESSION_END_REASON_CLIENT_DISABLED: _ClassVar[SessionEndReason]
    SESSION_END_REASON_SESSION_CAP: _ClassVar[SessionEndReason]
    SESSION_END_REASON_SUBJECT_DISABLED: _ClassVar[SessionEndReason]

class RevocationReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REVOCATION_REASON_UNSPECIFIED: _ClassVar[RevocationReason]
    REVOCATION_REASON_LOGOUT: _ClassVar[RevocationReason]
    REVOCATION_REASON_CREDENTIAL_CHANGE: _ClassVar[RevocationReason]
    REVOCATION_REASON_COMPROMISE: _ClassVar[RevocationReason]
    REVOCATION_REASON_ACCOUNT_DISABLED: _ClassVar[RevocationReason]
    REVOCATION_REASON_PERMISSIONS_CHANGED: _ClassVar[RevocationReason]
    REVOCATION_REASON_ADMINISTRATIVE: _ClassVar[RevocationReason]

class SessionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SESSION_STATE_UNSPECIFIED: _ClassVar[SessionState]
    SESSION_STATE_ACTIVE: _ClassVar[SessionState]
    SESSION_STATE_REVOKED: _ClassVar[SessionState]
    SESSION_STATE_EXPIRED: _ClassVar[SessionState]
SESSION_END_REASON_UNSPECIFIED: SessionEndReason
SESSION_END_REASON_EXPIRED_IDLE: SessionEndReason
SESSION_END_REASON_EXPIRED_ABSOLUTE: SessionEndReason
SESSION_END_REASON_REUSE_DETECTED: SessionEndReason
SESSION_END_REASON_WRONG_CLIENT: SessionEndReason
SESSION_END_REASON_REVOKED_BY_USER: SessionEndReason
SESSION_END_REASON_REVOKED_BY_ADMIN: SessionEndReason
SESSION_END_REASON_REVOKED_WITH_OTHERS: SessionEndReason
SESSION_END_REASON_SUBJECT_CUTOFF: SessionEndReason
SESSION_END_REASON_CLIENT_CUTOFF: SessionEndReason
SESSION_END_REASON_CLIENT_DISABLED: SessionEndReason
SESSION_END_REASON_SESSION_CAP: SessionEndReason
SESSION_END_REASON_SUBJECT_DISABLED: SessionEndReason
REVOCATION_REASON_UNSPECIFIED: RevocationReason
REVOCATION_REASON_LOGOUT: RevocationReason
REVOCATION_REASON_CREDENTIAL_CHANGE: RevocationReason
REVOCATION_REASON_COMPROMISE: RevocationReason
REVOCATION_REASON_ACCOUNT_DISABLED: RevocationReason
REVOCATION_REASON_PERMISSIONS_CHANGED: RevocationReason
REVOCATION_REASON_ADMINISTRATIVE: RevocationReason
SESSION_STATE_UNSPECIFIED: SessionState
SESSION_STATE_ACTIVE: SessionState
SESSION_STATE_REVOKED: SessionState
SESSION_STATE_EXPIRED: SessionState

class Session(_message.Message):
    __slots__ = ("session_id", "subject", "client_id", "client_kind", "created_at", "last_used_at", "expires_at", "client_context", "scopes", "audience", "current")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    CLIENT_KIND_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    LAST_USED_AT_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    subject: str
    client_id: str
    client_kind: _tokens_pb2.ClientKind
    created_at: _timestamp_pb2.Timestamp
    last_used_at: _timestamp_pb2.Timestamp
    expires_at: _timestamp_pb2.Timestamp
    client_context: _tokens_pb2.ClientContext
    scopes: _containers.RepeatedScalarFieldContainer[str]
    audience: _containers.RepeatedScalarFieldContainer[str]
    current: bool
    def __init__(self, session_id: _Optional[str] = ..., subject: _Optional[str] = ..., client_id: _Optional[str] = ..., client_kind: _Optional[_Union[_tokens_pb2.ClientKind, str]] = ..., created_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., last_used_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., client_context: _Optional[_Union[_tokens_pb2.ClientContext, _Mapping]] = ..., scopes: _Optional[_Iterable[str]] = ..., audience: _Optional[_Iterable[str]] = ..., current: bool = ...) -> None: ...

class SessionStep(_message.Message):
    __slots__ = ("generation", "spent_at", "ip_address", "retries_answered", "recovered")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SPENT_AT_FIELD_NUMBER: _ClassVar[int]
    IP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    RETRIES_ANSWERED_FIELD_NUMBER: _ClassVar[int]
    RECOVERED_FIELD_NUMBER: _ClassVar[int]
    generation: int
    spent_at: _timestamp_pb2.Timestamp
    ip_address: str
    retries_answered: int
    recovered: bool
    def __init__(self, generation: _Optional[int] = ..., spent_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., ip_address: _Optional[str] = ..., retries_answered: _Optional[int] = ..., recovered: bool = ...) -> None: ...
