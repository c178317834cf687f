from google.protobuf import struct_pb2 as _struct_pb2
from grpc_identity.v1 import identity_service_pb2 as _identity_service_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClaimsOccasion(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLAIMS_OCCASION_UNSPECIFIED: _ClassVar[ClaimsOccasion]
    CLAIMS_OCCASION_ISSUE: _ClassVar[ClaimsOccasion]
    CLAIMS_OCCASION_REFRESH: _ClassVar[ClaimsOccasion]

class SubjectState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUBJECT_STATE_UNSPECIFIED: _ClassVar[SubjectState]
    SUBJECT_STATE_ACTIVE: _ClassVar[SubjectState]
    SUBJECT_STATE_DISABLED: _ClassVar[SubjectState]
CLAIMS_OCCASION_UNSPECIFIED: ClaimsOccasion
CLAIMS_OCCASION_ISSUE: ClaimsOccasion
CLAIMS_OCCASION_REFRESH: ClaimsOccasion
SUBJECT_STATE_UNSPECIFIED: SubjectState
SUBJECT_STATE_ACTIVE: SubjectState
SUBJECT_STATE_DISABLED: SubjectState

class GetClaimsRequest(_message.Message):
    __slots__ = ("subject", "occasion", "client_id", "session_id")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    OCCASION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    subject: str
    occasion: ClaimsOccasion
    client_id: str
    session_id: str
    def __init__(self, subject: _Optional[str] = ..., occasion: _Optional[_Union[ClaimsOccasion, str]] = ..., client_id: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class GetClaimsResponse(_message.Message):
    __slots__ = ("state", "roles", "claims")
    STATE_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    state: SubjectState
    roles: _identity_service_pb2.Roles
    claims: _struct_pb2.Struct
    def __init__(self, state: _Optional[_Union[SubjectState, str]] = ..., roles: _Optional[_Union[_identity_service_pb2.Roles, _Mapping]] = ..., claims: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ...) -> None: ...
