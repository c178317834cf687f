from google.protobuf import timestamp_pb2 as _timestamp_pb2
from grpc_identity.v1 import tokens_pb2 as _tokens_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

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
    __slots__ = ("session_id", "subject", "client_id", "client_kind", "created_at", "last_used_at", "expires_at", "client_context", "scopes", "audience")
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
    def __init__(self, session_id: _Optional[str] = ..., subject: _Optional[str] = ..., client_id: _Optional[str] = ..., client_kind: _Optional[_Union[_tokens_pb2.ClientKind, str]] = ..., created_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., last_used_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., client_context: _Optional[_Union[_tokens_pb2.ClientContext, _Mapping]] = ..., scopes: _Optional[_Iterable[str]] = ..., audience: _Optional[_Iterable[str]] = ...) -> None: ...
