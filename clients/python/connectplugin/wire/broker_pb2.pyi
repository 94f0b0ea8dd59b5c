from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CapabilityGrant(_message.Message):
    __slots__ = ["bearer_token", "capability_type", "endpoint_url", "expires_at", "grant_id", "version"]
    BEARER_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_TYPE_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_URL_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    bearer_token: str
    capability_type: str
    endpoint_url: str
    expires_at: _timestamp_pb2.Timestamp
    grant_id: str
    version: str
    def __init__(self, grant_id: _Optional[str] = ..., endpoint_url: _Optional[str] = ..., bearer_token: _Optional[str] = ..., capability_type: _Optional[str] = ..., version: _Optional[str] = ..., expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RequestCapabilityRequest(_message.Message):
    __slots__ = ["capability_type", "min_version", "reason"]
    CAPABILITY_TYPE_FIELD_NUMBER: _ClassVar[int]
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    capability_type: str
    min_version: str
    reason: str
    def __init__(self, capability_type: _Optional[str] = ..., min_version: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class RequestCapabilityResponse(_message.Message):
    __slots__ = ["grant"]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    grant: CapabilityGrant
    def __init__(self, grant: _Optional[_Union[CapabilityGrant, _Mapping]] = ...) -> None: ...
