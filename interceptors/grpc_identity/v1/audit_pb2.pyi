from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AuditOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIT_OUTCOME_UNSPECIFIED: _ClassVar[AuditOutcome]
    AUDIT_OUTCOME_SUCCESS: _ClassVar[AuditOutcome]
    AUDIT_OUTCOME_REFUSED: _ClassVar[AuditOutcome]
    AUDIT_OUTCOME_BEGUN: _ClassVar[AuditOutcome]

class AuditSeverity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIT_SEVERITY_UNSPECIFIED: _ClassVar[AuditSeverity]
    AUDIT_SEVERITY_INFO: _ClassVar[AuditSeverity]
    AUDIT_SEVERITY_WARNING: _ClassVar[AuditSeverity]
    AUDIT_SEVERITY_ERROR: _ClassVar[AuditSeverity]
AUDIT_OUTCOME_UNSPECIFIED: AuditOutcome
AUDIT_OUTCOME_SUCCESS: AuditOutcome
AUDIT_OUTCOME_REFUSED: AuditOutcome
AUDIT_OUTCOME_BEGUN: AuditOutcome
AUDIT_SEVERITY_UNSPECIFIED: AuditSeverity
AUDIT_SEVERITY_INFO: AuditSeverity
AUDIT_SEVERITY_WARNING: AuditSeverity
AUDIT_SEVERITY_ERROR: AuditSeverity

class ReuseEvidence(_message.Message):
    __slots__ = ("distance", "since_spent_ms", "key", "address", "user_agent", "device")
    DISTANCE_FIELD_NUMBER: _ClassVar[int]
    SINCE_SPENT_MS_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    distance: int
    since_spent_ms: int
    key: bool
    address: str
    user_agent: str
    device: str
    def __init__(self, distance: _Optional[int] = ..., since_spent_ms: _Optional[int] = ..., key: bool = ..., address: _Optional[str] = ..., user_agent: _Optional[str] = ..., device: _Optional[str] = ...) -> None: ...

class AuditEvent(_message.Message):
    __slots__ = ("event_id", "bucket", "sequence", "time", "type", "outcome", "reason", "client_id", "subject", "session_id", "ip_address", "user_agent", "traceparent", "severity", "token_id", "key_id", "method", "generation", "device_label", "detail", "reuse", "audience", "scope", "count", "reported_by", "status_code", "occurred_at", "subject_is_pseudonym", "checkpoint", "session_expires_at")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    BUCKET_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    IP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_LABEL_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    REUSE_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    REPORTED_BY_FIELD_NUMBER: _ClassVar[int]
    STATUS_CODE_FIELD_NUMBER: _ClassVar[int]
    OCCURRED_AT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_IS_PSEUDONYM_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    SESSION_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    bucket: int
    sequence: int
    time: _timestamp_pb2.Timestamp
    type: str
    outcome: AuditOutcome
    reason: str
    client_id: str
    subject: str
    session_id: str
    ip_address: str
    user_agent: str
    traceparent: str
    severity: AuditSeverity
    token_id: str
    key_id: str
    method: str
    generation: int
    device_label: str
    detail: str
    reuse: ReuseEvidence
    audience: str
    scope: str
    count: int
    reported_by: str
    status_code: str
    occurred_at: _timestamp_pb2.Timestamp
    subject_is_pseudonym: bool
    checkpoint: str
    session_expires_at: _timestamp_pb2.Timestamp
    def __init__(self, event_id: _Optional[str] = ..., bucket: _Optional[int] = ..., sequence: _Optional[int] = ..., time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., type: _Optional[str] = ..., outcome: _Optional[_Union[AuditOutcome, str]] = ..., reason: _Optional[str] = ..., client_id: _Optional[str] = ..., subject: _Optional[str] = ..., session_id: _Optional[str] = ..., ip_address: _Optional[str] = ..., user_agent: _Optional[str] = ..., traceparent: _Optional[str] = ..., severity: _Optional[_Union[AuditSeverity, str]] = ..., token_id: _Optional[str] = ..., key_id: _Optional[str] = ..., method: _Optional[str] = ..., generation: _Optional[int] = ..., device_label: _Optional[str] = ..., detail: _Optional[str] = ..., reuse: _Optional[_Union[ReuseEvidence, _Mapping]] = ..., audience: _Optional[str] = ..., scope: _Optional[str] = ..., count: _Optional[int] = ..., reported_by: _Optional[str] = ..., status_code: _Optional[str] = ..., occurred_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., subject_is_pseudonym: bool = ..., checkpoint: _Optional[str] = ..., session_expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
