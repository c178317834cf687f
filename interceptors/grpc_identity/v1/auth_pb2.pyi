from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UsageAudit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    USAGE_AUDIT_UNSPECIFIED: _ClassVar[UsageAudit]
    USAGE_AUDIT_USE: _ClassVar[UsageAudit]
    USAGE_AUDIT_MUST: _ClassVar[UsageAudit]
USAGE_AUDIT_UNSPECIFIED: UsageAudit
USAGE_AUDIT_USE: UsageAudit
USAGE_AUDIT_MUST: UsageAudit
AUTH_FIELD_NUMBER: _ClassVar[int]
auth: _descriptor.FieldDescriptor
SERVICE_AUTH_FIELD_NUMBER: _ClassVar[int]
service_auth: _descriptor.FieldDescriptor

class AuthRule(_message.Message):
    __slots__ = ("public", "scopes", "roles", "audience", "audit")
    PUBLIC_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    public: bool
    scopes: _containers.RepeatedScalarFieldContainer[str]
    roles: _containers.RepeatedScalarFieldContainer[str]
    audience: _containers.RepeatedScalarFieldContainer[str]
    audit: UsageAudit
    def __init__(self, public: bool = ..., scopes: _Optional[_Iterable[str]] = ..., roles: _Optional[_Iterable[str]] = ..., audience: _Optional[_Iterable[str]] = ..., audit: _Optional[_Union[UsageAudit, str]] = ...) -> None: ...
