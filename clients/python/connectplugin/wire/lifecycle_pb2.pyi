from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
HEALTH_STATE_DEGRADED: HealthState
HEALTH_STATE_HEALTHY: HealthState
HEALTH_STATE_UNHEALTHY: HealthState
HEALTH_STATE_UNSPECIFIED: HealthState

class GetHealthRequest(_message.Message):
    __slots__ = ["challenge", "runtime_id"]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_ID_FIELD_NUMBER: _ClassVar[int]
    challenge: bytes
    runtime_id: str
    def __init__(self, runtime_id: _Optional[str] = ..., challenge: _Optional[bytes] = ...) -> None: ...

class GetHealthResponse(_message.Message):
    __slots__ = ["proof", "reason", "state", "unavailable_dependencies"]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_DEPENDENCIES_FIELD_NUMBER: _ClassVar[int]
    proof: bytes
    reason: str
    state: HealthState
    unavailable_dependencies: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, state: _Optional[_Union[HealthState, str]] = ..., reason: _Optional[str] = ..., unavailable_dependencies: _Optional[_Iterable[str]] = ..., proof: _Optional[bytes] = ...) -> None: ...

class ReportHealthRequest(_message.Message):
    __slots__ = ["leaving", "reason", "state", "unavailable_dependencies"]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_DEPENDENCIES_FIELD_NUMBER: _ClassVar[int]
    leaving: bool
    reason: str
    state: HealthState
    unavailable_dependencies: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, state: _Optional[_Union[HealthState, str]] = ..., reason: _Optional[str] = ..., unavailable_dependencies: _Optional[_Iterable[str]] = ..., leaving: bool = ...) -> None: ...

class ReportHealthResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ["grace_period_seconds", "reason"]
    GRACE_PERIOD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    grace_period_seconds: int
    reason: str
    def __init__(self, grace_period_seconds: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class ShutdownResponse(_message.Message):
    __slots__ = ["acknowledged"]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    acknowledged: bool
    def __init__(self, acknowledged: bool = ...) -> None: ...

class HealthState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
