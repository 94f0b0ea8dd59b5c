from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Capability(_message.Message):
    __slots__ = ["endpoint", "type", "version"]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    endpoint: str
    type: str
    version: str
    def __init__(self, type: _Optional[str] = ..., version: _Optional[str] = ..., endpoint: _Optional[str] = ...) -> None: ...

class HandshakeRequest(_message.Message):
    __slots__ = ["app_protocol_version", "client_metadata", "client_nonce", "client_proof", "core_protocol_version", "issued_at", "magic_cookie_key", "magic_cookie_value", "max_protocol_version", "min_protocol_version", "provides", "requested_plugins", "requires", "self_id", "self_version"]
    class ClientMetadataEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    APP_PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_METADATA_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NONCE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_PROOF_FIELD_NUMBER: _ClassVar[int]
    CORE_PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    MAGIC_COOKIE_KEY_FIELD_NUMBER: _ClassVar[int]
    MAGIC_COOKIE_VALUE_FIELD_NUMBER: _ClassVar[int]
    MAX_PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    MIN_PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROVIDES_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_PLUGINS_FIELD_NUMBER: _ClassVar[int]
    REQUIRES_FIELD_NUMBER: _ClassVar[int]
    SELF_ID_FIELD_NUMBER: _ClassVar[int]
    SELF_VERSION_FIELD_NUMBER: _ClassVar[int]
    app_protocol_version: int
    client_metadata: _containers.ScalarMap[str, str]
    client_nonce: bytes
    client_proof: bytes
    core_protocol_version: int
    issued_at: _timestamp_pb2.Timestamp
    magic_cookie_key: str
    magic_cookie_value: str
    max_protocol_version: int
    min_protocol_version: int
    provides: _containers.RepeatedCompositeFieldContainer[ServiceDeclaration]
    requested_plugins: _containers.RepeatedScalarFieldContainer[str]
    requires: _containers.RepeatedCompositeFieldContainer[ServiceDependency]
    self_id: str
    self_version: str
    def __init__(self, core_protocol_version: _Optional[int] = ..., app_protocol_version: _Optional[int] = ..., magic_cookie_key: _Optional[str] = ..., magic_cookie_value: _Optional[str] = ..., requested_plugins: _Optional[_Iterable[str]] = ..., client_metadata: _Optional[_Mapping[str, str]] = ..., self_id: _Optional[str] = ..., self_version: _Optional[str] = ..., client_nonce: _Optional[bytes] = ..., min_protocol_version: _Optional[int] = ..., max_protocol_version: _Optional[int] = ..., provides: _Optional[_Iterable[_Union[ServiceDeclaration, _Mapping]]] = ..., requires: _Optional[_Iterable[_Union[ServiceDependency, _Mapping]]] = ..., issued_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., client_proof: _Optional[bytes] = ...) -> None: ...

class HandshakeResponse(_message.Message):
    __slots__ = ["app_protocol_version", "challenge_response", "core_protocol_version", "host_capabilities", "min_protocol_version", "plugins", "runtime_id", "runtime_token", "server_metadata", "server_nonce", "token_expires_at", "warnings"]
    class ServerMetadataEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    APP_PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    CORE_PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    HOST_CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    MIN_PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    PLUGINS_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_ID_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SERVER_METADATA_FIELD_NUMBER: _ClassVar[int]
    SERVER_NONCE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    app_protocol_version: int
    challenge_response: bytes
    core_protocol_version: int
    host_capabilities: _containers.RepeatedCompositeFieldContainer[Capability]
    min_protocol_version: int
    plugins: _containers.RepeatedCompositeFieldContainer[PluginInfo]
    runtime_id: str
    runtime_token: str
    server_metadata: _containers.ScalarMap[str, str]
    server_nonce: bytes
    token_expires_at: _timestamp_pb2.Timestamp
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, core_protocol_version: _Optional[int] = ..., app_protocol_version: _Optional[int] = ..., plugins: _Optional[_Iterable[_Union[PluginInfo, _Mapping]]] = ..., server_metadata: _Optional[_Mapping[str, str]] = ..., host_capabilities: _Optional[_Iterable[_Union[Capability, _Mapping]]] = ..., runtime_id: _Optional[str] = ..., runtime_token: _Optional[str] = ..., server_nonce: _Optional[bytes] = ..., challenge_response: _Optional[bytes] = ..., token_expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., min_protocol_version: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class PluginInfo(_message.Message):
    __slots__ = ["name", "provides", "requires", "service_path", "version"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROVIDES_FIELD_NUMBER: _ClassVar[int]
    REQUIRES_FIELD_NUMBER: _ClassVar[int]
    SERVICE_PATH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    provides: _containers.RepeatedCompositeFieldContainer[ServiceDeclaration]
    requires: _containers.RepeatedCompositeFieldContainer[ServiceDependency]
    service_path: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., service_path: _Optional[str] = ..., provides: _Optional[_Iterable[_Union[ServiceDeclaration, _Mapping]]] = ..., requires: _Optional[_Iterable[_Union[ServiceDependency, _Mapping]]] = ...) -> None: ...

class ServiceDeclaration(_message.Message):
    __slots__ = ["path", "type", "version"]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    path: str
    type: str
    version: str
    def __init__(self, type: _Optional[str] = ..., version: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class ServiceDependency(_message.Message):
    __slots__ = ["min_version", "required_for_startup", "type", "watch_for_changes"]
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FOR_STARTUP_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    WATCH_FOR_CHANGES_FIELD_NUMBER: _ClassVar[int]
    min_version: str
    required_for_startup: bool
    type: str
    watch_for_changes: bool
    def __init__(self, type: _Optional[str] = ..., min_version: _Optional[str] = ..., required_for_startup: bool = ..., watch_for_changes: bool = ...) -> None: ...
