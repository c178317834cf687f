from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class KeyState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KEY_STATE_UNSPECIFIED: _ClassVar[KeyState]
    KEY_STATE_PENDING: _ClassVar[KeyState]
    KEY_STATE_ACTIVE: _ClassVar[KeyState]
    KEY_STATE_RETIRED: _ClassVar[KeyState]
    KEY_STATE_REMOVED: _ClassVar[KeyState]
    KEY_STATE_REVOKED: _ClassVar[KeyState]
KEY_STATE_UNSPECIFIED: KeyState
KEY_STATE_PENDING: KeyState
KEY_STATE_ACTIVE: KeyState
KEY_STATE_RETIRED: KeyState
KEY_STATE_REMOVED: KeyState
KEY_STATE_REVOKED: KeyState

class JsonWebKey(_message.Message):
    __slots__ = ("kty", "use", "alg", "kid", "crv", "x", "y", "n", "e")
    KTY_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    ALG_FIELD_NUMBER: _ClassVar[int]
    KID_FIELD_NUMBER: _ClassVar[int]
    CRV_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    E_FIELD_NUMBER: _ClassVar[int]
    kty: str
    use: str
    alg: str
    kid: str
    crv: str
    x: str
    y: str
    n: str
    e: str
    def __init__(self, kty: _Optional[str] = ..., use: _Optional[str] = ..., alg: _Optional[str] = ..., kid: _Optional[str] = ..., crv: _Optional[str] = ..., x: _Optional[str] = ..., y: _Optional[str] = ..., n: _Optional[str] = ..., e: _Optional[str] = ...) -> None: ...

class SigningKey(_message.Message):
    __slots__ = ("public_key", "state", "created_at", "activates_at", "retires_at", "removed_at", "provider", "activates_by", "lacking_verifiers", "holding_verifiers", "needed_until")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    ACTIVATES_AT_FIELD_NUMBER: _ClassVar[int]
    RETIRES_AT_FIELD_NUMBER: _ClassVar[int]
    REMOVED_AT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    ACTIVATES_BY_FIELD_NUMBER: _ClassVar[int]
    LACKING_VERIFIERS_FIELD_NUMBER: _ClassVar[int]
    HOLDING_VERIFIERS_FIELD_NUMBER: _ClassVar[int]
    NEEDED_UNTIL_FIELD_NUMBER: _ClassVar[int]
    public_key: JsonWebKey
    state: KeyState
    created_at: _timestamp_pb2.Timestamp
    activates_at: _timestamp_pb2.Timestamp
    retires_at: _timestamp_pb2.Timestamp
    removed_at: _timestamp_pb2.Timestamp
    provider: str
    activates_by: _timestamp_pb2.Timestamp
    lacking_verifiers: _containers.RepeatedScalarFieldContainer[str]
    holding_verifiers: _containers.RepeatedScalarFieldContainer[str]
    needed_until: _timestamp_pb2.Timestamp
    def __init__(self, public_key: _Optional[_Union[JsonWebKey, _Mapping]] = ..., state: _Optional[_Union[KeyState, str]] = ..., created_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., activates_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., retires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., removed_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., provider: _Optional[str] = ..., activates_by: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., lacking_verifiers: _Optional[_Iterable[str]] = ..., holding_verifiers: _Optional[_Iterable[str]] = ..., needed_until: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class KeyStep(_message.Message):
    __slots__ = ("at", "at_latest", "kid", "state")
    AT_FIELD_NUMBER: _ClassVar[int]
    AT_LATEST_FIELD_NUMBER: _ClassVar[int]
    KID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    at: _timestamp_pb2.Timestamp
    at_latest: _timestamp_pb2.Timestamp
    kid: str
    state: KeyState
    def __init__(self, at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., at_latest: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., kid: _Optional[str] = ..., state: _Optional[_Union[KeyState, str]] = ...) -> None: ...
