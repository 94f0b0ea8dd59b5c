from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
SERVICE_STATE_AVAILABLE: ServiceState
SERVICE_STATE_DEGRADED: ServiceState
SERVICE_STATE_UNAVAILABLE: ServiceState
SERVICE_STATE_UNSPECIFIED: ServiceState

class DiscoverServiceRequest(_message.Message):
    __slots__ = ["min_version", "service_type"]
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    min_version: str
    service_type: str
    def __init__(self, service_type: _Optional[str] = ..., min_version: _Optional[str] = ...) -> None: ...

class DiscoverServiceResponse(_message.Message):
    __slots__ = ["endpoint", "single_provider"]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    SINGLE_PROVIDER_FIELD_NUMBER: _ClassVar[int]
    endpoint: ServiceEndpoint
    single_provider: bool
    def __init__(self, endpoint: _Optional[_Union[ServiceEndpoint, _Mapping]] = ..., single_provider: bool = ...) -> None: ...

class RegisterServiceRequest(_message.Message):
    __slots__ = ["endpoint_path", "metadata", "service_type", "version"]
    class MetadataEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENDPOINT_PATH_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    endpoint_path: str
    metadata: _containers.ScalarMap[str, str]
    service_type: str
    version: str
    def __init__(self, service_type: _Optional[str] = ..., version: _Optional[str] = ..., endpoint_path: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class RegisterServiceResponse(_message.Message):
    __slots__ = ["registration_id"]
    REGISTRATION_ID_FIELD_NUMBER: _ClassVar[int]
    registration_id: str
    def __init__(self, registration_id: _Optional[str] = ...) -> None: ...

class ServiceEndpoint(_message.Message):
    __slots__ = ["endpoint_url", "metadata", "provider_id", "version"]
    class MetadataEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENDPOINT_URL_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    endpoint_url: str
    metadata: _containers.ScalarMap[str, str]
    provider_id: str
    version: str
    def __init__(self, provider_id: _Optional[str] = ..., version: _Optional[str] = ..., endpoint_url: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class UnregisterServiceRequest(_message.Message):
    __slots__ = ["registration_id"]
    REGISTRATION_ID_FIELD_NUMBER: _ClassVar[int]
    registration_id: str
    def __init__(self, registration_id: _Optional[str] = ...) -> None: ...

class UnregisterServiceResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class WatchServiceEvent(_message.Message):
    __slots__ = ["endpoint", "epoch", "missed", "resync", "sequence", "service_type", "state"]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    RESYNC_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    endpoint: ServiceEndpoint
    epoch: str
    missed: int
    resync: bool
    sequence: int
    service_type: str
    state: ServiceState
    def __init__(self, service_type: _Optional[str] = ..., state: _Optional[_Union[ServiceState, str]] = ..., endpoint: _Optional[_Union[ServiceEndpoint, _Mapping]] = ..., sequence: _Optional[int] = ..., epoch: _Optional[str] = ..., resync: bool = ..., missed: _Optional[int] = ...) -> None: ...

class WatchServiceRequest(_message.Message):
    __slots__ = ["epoch", "resume_after", "service_type"]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    RESUME_AFTER_FIELD_NUMBER: _ClassVar[int]
    SERVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    resume_after: int
    service_type: str
    def __init__(self, service_type: _Optional[str] = ..., resume_after: _Optional[int] = ..., epoch: _Optional[str] = ...) -> None: ...

class ServiceState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
