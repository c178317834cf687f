from google.protobuf import timestamp_pb2 as _timestamp_pb2
from grpc_identity.v1 import clients_pb2 as _clients_pb2
from grpc_identity.v1 import keys_pb2 as _keys_pb2
from grpc_identity.v1 import sessions_pb2 as _sessions_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateClientRequest(_message.Message):
    __slots__ = ("client_id", "display_name", "policy")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    display_name: str
    policy: _clients_pb2.ClientPolicy
    def __init__(self, client_id: _Optional[str] = ..., display_name: _Optional[str] = ..., policy: _Optional[_Union[_clients_pb2.ClientPolicy, _Mapping]] = ...) -> None: ...

class CreateClientResponse(_message.Message):
    __slots__ = ("client", "client_secret")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_SECRET_FIELD_NUMBER: _ClassVar[int]
    client: _clients_pb2.Client
    client_secret: str
    def __init__(self, client: _Optional[_Union[_clients_pb2.Client, _Mapping]] = ..., client_secret: _Optional[str] = ...) -> None: ...

class GetClientRequest(_message.Message):
    __slots__ = ("client_id",)
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    def __init__(self, client_id: _Optional[str] = ...) -> None: ...

class GetClientResponse(_message.Message):
    __slots__ = ("client",)
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    client: _clients_pb2.Client
    def __init__(self, client: _Optional[_Union[_clients_pb2.Client, _Mapping]] = ...) -> None: ...

class ListClientsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListClientsResponse(_message.Message):
    __slots__ = ("clients", "next_page_token")
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    clients: _containers.RepeatedCompositeFieldContainer[_clients_pb2.Client]
    next_page_token: str
    def __init__(self, clients: _Optional[_Iterable[_Union[_clients_pb2.Client, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateClientRequest(_message.Message):
    __slots__ = ("client_id", "display_name", "policy")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    display_name: str
    policy: _clients_pb2.ClientPolicy
    def __init__(self, client_id: _Optional[str] = ..., display_name: _Optional[str] = ..., policy: _Optional[_Union[_clients_pb2.ClientPolicy, _Mapping]] = ...) -> None: ...

class UpdateClientResponse(_message.Message):
    __slots__ = ("client",)
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    client: _clients_pb2.Client
    def __init__(self, client: _Optional[_Union[_clients_pb2.Client, _Mapping]] = ...) -> None: ...

class SetClientDisabledRequest(_message.Message):
    __slots__ = ("client_id", "disabled")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    disabled: bool
    def __init__(self, client_id: _Optional[str] = ..., disabled: bool = ...) -> None: ...

class SetClientDisabledResponse(_message.Message):
    __slots__ = ("client",)
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    client: _clients_pb2.Client
    def __init__(self, client: _Optional[_Union[_clients_pb2.Client, _Mapping]] = ...) -> None: ...

class RotateClientSecretRequest(_message.Message):
    __slots__ = ("client_id", "revoke_previous")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    REVOKE_PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    revoke_previous: bool
    def __init__(self, client_id: _Optional[str] = ..., revoke_previous: bool = ...) -> None: ...

class RotateClientSecretResponse(_message.Message):
    __slots__ = ("client", "client_secret")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_SECRET_FIELD_NUMBER: _ClassVar[int]
    client: _clients_pb2.Client
    client_secret: str
    def __init__(self, client: _Optional[_Union[_clients_pb2.Client, _Mapping]] = ..., client_secret: _Optional[str] = ...) -> None: ...

class ListKeysRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListKeysResponse(_message.Message):
    __slots__ = ("keys", "steps")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[_keys_pb2.SigningKey]
    steps: _containers.RepeatedCompositeFieldContainer[_keys_pb2.KeyStep]
    def __init__(self, keys: _Optional[_Iterable[_Union[_keys_pb2.SigningKey, _Mapping]]] = ..., steps: _Optional[_Iterable[_Union[_keys_pb2.KeyStep, _Mapping]]] = ...) -> None: ...

class RotateKeysRequest(_message.Message):
    __slots__ = ("now", "idempotency_key")
    NOW_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    now: bool
    idempotency_key: str
    def __init__(self, now: bool = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class RotateKeysResponse(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: _keys_pb2.SigningKey
    def __init__(self, key: _Optional[_Union[_keys_pb2.SigningKey, _Mapping]] = ...) -> None: ...

class RevokeKeyRequest(_message.Message):
    __slots__ = ("kid",)
    KID_FIELD_NUMBER: _ClassVar[int]
    kid: str
    def __init__(self, kid: _Optional[str] = ...) -> None: ...

class RevokeKeyResponse(_message.Message):
    __slots__ = ("active_key",)
    ACTIVE_KEY_FIELD_NUMBER: _ClassVar[int]
    active_key: _keys_pb2.SigningKey
    def __init__(self, active_key: _Optional[_Union[_keys_pb2.SigningKey, _Mapping]] = ...) -> None: ...

class RotateRefreshTokenSecretRequest(_message.Message):
    __slots__ = ("force",)
    FORCE_FIELD_NUMBER: _ClassVar[int]
    force: bool
    def __init__(self, force: bool = ...) -> None: ...

class RotateRefreshTokenSecretResponse(_message.Message):
    __slots__ = ("secret_number",)
    SECRET_NUMBER_FIELD_NUMBER: _ClassVar[int]
    secret_number: int
    def __init__(self, secret_number: _Optional[int] = ...) -> None: ...

class ResealKeyringRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResealKeyringResponse(_message.Message):
    __slots__ = ("resealed", "kek_fingerprint", "previous_kek_fingerprint")
    RESEALED_FIELD_NUMBER: _ClassVar[int]
    KEK_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_KEK_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    resealed: int
    kek_fingerprint: str
    previous_kek_fingerprint: str
    def __init__(self, resealed: _Optional[int] = ..., kek_fingerprint: _Optional[str] = ..., previous_kek_fingerprint: _Optional[str] = ...) -> None: ...

class ListVerifiersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListVerifiersResponse(_message.Message):
    __slots__ = ("verifiers",)
    VERIFIERS_FIELD_NUMBER: _ClassVar[int]
    verifiers: _containers.RepeatedCompositeFieldContainer[Verifier]
    def __init__(self, verifiers: _Optional[_Iterable[_Union[Verifier, _Mapping]]] = ...) -> None: ...

class Verifier(_message.Message):
    __slots__ = ("verifier_id", "verifier_version", "applied_position", "held_kids", "last_seen_at", "client_id", "behind", "connected")
    VERIFIER_ID_FIELD_NUMBER: _ClassVar[int]
    VERIFIER_VERSION_FIELD_NUMBER: _ClassVar[int]
    APPLIED_POSITION_FIELD_NUMBER: _ClassVar[int]
    HELD_KIDS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_AT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    verifier_id: str
    verifier_version: str
    applied_position: str
    held_kids: _containers.RepeatedScalarFieldContainer[str]
    last_seen_at: _timestamp_pb2.Timestamp
    client_id: str
    behind: int
    connected: bool
    def __init__(self, verifier_id: _Optional[str] = ..., verifier_version: _Optional[str] = ..., applied_position: _Optional[str] = ..., held_kids: _Optional[_Iterable[str]] = ..., last_seen_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., client_id: _Optional[str] = ..., behind: _Optional[int] = ..., connected: bool = ...) -> None: ...

class ExplainSessionRequest(_message.Message):
    __slots__ = ("session_id",)
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    def __init__(self, session_id: _Optional[str] = ...) -> None: ...

class ExplainSessionResponse(_message.Message):
    __slots__ = ("session", "state", "end_reason", "ended_at", "revocation_reason", "ended_by_client_id", "generation", "steps", "earlier_steps")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    END_REASON_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    REVOCATION_REASON_FIELD_NUMBER: _ClassVar[int]
    ENDED_BY_CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    EARLIER_STEPS_FIELD_NUMBER: _ClassVar[int]
    session: _sessions_pb2.Session
    state: _sessions_pb2.SessionState
    end_reason: _sessions_pb2.SessionEndReason
    ended_at: _timestamp_pb2.Timestamp
    revocation_reason: _sessions_pb2.RevocationReason
    ended_by_client_id: str
    generation: int
    steps: _containers.RepeatedCompositeFieldContainer[_sessions_pb2.SessionStep]
    earlier_steps: int
    def __init__(self, session: _Optional[_Union[_sessions_pb2.Session, _Mapping]] = ..., state: _Optional[_Union[_sessions_pb2.SessionState, str]] = ..., end_reason: _Optional[_Union[_sessions_pb2.SessionEndReason, str]] = ..., ended_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., revocation_reason: _Optional[_Union[_sessions_pb2.RevocationReason, str]] = ..., ended_by_client_id: _Optional[str] = ..., generation: _Optional[int] = ..., steps: _Optional[_Iterable[_Union[_sessions_pb2.SessionStep, _Mapping]]] = ..., earlier_steps: _Optional[int] = ...) -> None: ...
