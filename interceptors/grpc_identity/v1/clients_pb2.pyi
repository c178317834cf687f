from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Grant(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GRANT_UNSPECIFIED: _ClassVar[Grant]
    GRANT_ISSUE: _ClassVar[Grant]
    GRANT_CLIENT_CREDENTIALS: _ClassVar[Grant]
    GRANT_REFRESH: _ClassVar[Grant]
    GRANT_REVOKE: _ClassVar[Grant]
    GRANT_INTROSPECT: _ClassVar[Grant]
    GRANT_LIST_SESSIONS: _ClassVar[Grant]
    GRANT_EXCHANGE: _ClassVar[Grant]
    GRANT_ERASE: _ClassVar[Grant]
    GRANT_ADMIN: _ClassVar[Grant]
    GRANT_VERIFY: _ClassVar[Grant]
    GRANT_REPORT_USAGE: _ClassVar[Grant]

class ReusePolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REUSE_POLICY_UNSPECIFIED: _ClassVar[ReusePolicy]
    REUSE_POLICY_ENFORCE: _ClassVar[ReusePolicy]
    REUSE_POLICY_REPORT: _ClassVar[ReusePolicy]
GRANT_UNSPECIFIED: Grant
GRANT_ISSUE: Grant
GRANT_CLIENT_CREDENTIALS: Grant
GRANT_REFRESH: Grant
GRANT_REVOKE: Grant
GRANT_INTROSPECT: Grant
GRANT_LIST_SESSIONS: Grant
GRANT_EXCHANGE: Grant
GRANT_ERASE: Grant
GRANT_ADMIN: Grant
GRANT_VERIFY: Grant
GRANT_REPORT_USAGE: Grant
REUSE_POLICY_UNSPECIFIED: ReusePolicy
REUSE_POLICY_ENFORCE: ReusePolicy
REUSE_POLICY_REPORT: ReusePolicy

class ClientPolicy(_message.Message):
    __slots__ = ("grants", "subjects", "audiences", "scopes", "roles", "access_token_ttl", "web_session_ttl", "mobile_session_ttl", "session_idle_ttl", "refresh_leeway", "may_forward_client_context", "calls_per_second", "concurrent_calls", "max_sessions_per_subject", "reuse_policy")
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    AUDIENCES_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    ACCESS_TOKEN_TTL_FIELD_NUMBER: _ClassVar[int]
    WEB_SESSION_TTL_FIELD_NUMBER: _ClassVar[int]
    MOBILE_SESSION_TTL_FIELD_NUMBER: _ClassVar[int]
    SESSION_IDLE_TTL_FIELD_NUMBER: _ClassVar[int]
    REFRESH_LEEWAY_FIELD_NUMBER: _ClassVar[int]
    MAY_FORWARD_CLIENT_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CALLS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    CONCURRENT_CALLS_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_PER_SUBJECT_FIELD_NUMBER: _ClassVar[int]
    REUSE_POLICY_FIELD_NUMBER: _ClassVar[int]
    grants: _containers.RepeatedScalarFieldContainer[Grant]
    subjects: _containers.RepeatedScalarFieldContainer[str]
    audiences: _containers.RepeatedScalarFieldContainer[str]
    scopes: _containers.RepeatedScalarFieldContainer[str]
    roles: _containers.RepeatedScalarFieldContainer[str]
    access_token_ttl: _duration_pb2.Duration
    web_session_ttl: _duration_pb2.Duration
    mobile_session_ttl: _duration_pb2.Duration
    session_idle_ttl: _duration_pb2.Duration
    refresh_leeway: _duration_pb2.Duration
    may_forward_client_context: bool
    calls_per_second: int
    concurrent_calls: int
    max_sessions_per_subject: int
    reuse_policy: ReusePolicy
    def __init__(self, grants: _Optional[_Iterable[_Union[Grant, str]]] = ..., subjects: _Optional[_Iterable[str]] = ..., audiences: _Optional[_Iterable[str]] = ..., scopes: _Optional[_Iterable[str]] = ..., roles: _Optional[_Iterable[str]] = ..., access_token_ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., web_session_ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., mobile_session_ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., session_idle_ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., refresh_leeway: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., may_forward_client_context: bool = ..., calls_per_second: _Optional[int] = ..., concurrent_calls: _Optional[int] = ..., max_sessions_per_subject: _Optional[int] = ..., reuse_policy: _Optional[_Union[ReusePolicy, str]] = ...) -> None: ...

class Client(_message.Message):
    __slots__ = ("client_id", "display_name", "policy", "disabled", "created_at", "secrets")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    display_name: str
    policy: ClientPolicy
    disabled: bool
    created_at: _timestamp_pb2.Timestamp
    secrets: _containers.RepeatedCompositeFieldContainer[ClientSecretInfo]
    def __init__(self, client_id: _Optional[str] = ..., display_name: _Optional[str] = ..., policy: _Optional[_Union[ClientPolicy, _Mapping]] = ..., disabled: bool = ..., created_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., secrets: _Optional[_Iterable[_Union[ClientSecretInfo, _Mapping]]] = ...) -> None: ...

class ClientSecretInfo(_message.Message):
    __slots__ = ("secret_id", "created_at")
    SECRET_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    secret_id: str
    created_at: _timestamp_pb2.Timestamp
    def __init__(self, secret_id: _Optional[str] = ..., created_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
