"""When to try again."""
import random
import time
from typing import Any, Iterator, Union

import grpc

_LEAST, _MOST = 0.25, 5.0
_BUSY, _IDLE = 1.0, 30.0
_MOST_ASKED = 300.0  # that a host's word may add
_RETRY_INFO = b"google.rpc.RetryInfo"


class Pace:
    """How long to wait after failures in a row: any part of a bound that grows with the time that they have lasted, so
    that a short interruption is over soon, and thousands of plugins do not come back at the same moment. Where the host
    has too much to do it is longer."""

    def __init__(self) -> None:
        self._since = 0.0
        self.not_before = 0.0

    def over(self) -> None:
        self._since = 0.0

    def failed(self, error: Exception) -> float:
        now = time.monotonic()
        self._since = self._since or now
        lasted = now - self._since
        if code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED:
            wait = asked_delay(error) + random.uniform(_BUSY / 2, min(max(lasted / 2, _BUSY), _IDLE))
            self.not_before = now + wait
            return wait
        return random.uniform(0, min(max(lasted / 4, _LEAST), _MOST))


def code_of(error: BaseException) -> object:
    """The code of a grpc.RpcError, None of any other error."""
    return error.code() if isinstance(error, grpc.RpcError) and hasattr(error, "code") else None


def asked_delay(error: BaseException) -> float:
    """How many seconds a host asks its client to wait: the retry_delay of a google.rpc.RetryInfo, or Retry-After."""
    fields = dict(iter(_metadata(error)))
    delay = _retry_delay(fields.get("grpc-status-details-bin", b""))
    if delay is None:
        after = fields.get("retry-after", "")
        delay = float(after) if isinstance(after, str) and after.isascii() and after.isdigit() else 0.0
    return min(max(delay, 0.0), _MOST_ASKED)


def _metadata(error: Any) -> Iterator[tuple[str, Union[str, bytes]]]:
    for part in ("initial_metadata", "trailing_metadata"):
        yield from (getattr(error, part, tuple)() or ())


def _retry_delay(status: Union[str, bytes]) -> Union[float, None]:
    """The delay in a google.rpc.Status, None where there is none. Its generated code is a package of its own, of which this
    is all that is needed. What is malformed asks for nothing."""
    try:
        for number, detail in _fields(status if isinstance(status, bytes) else b""):
            told = dict(_fields(detail)) if number == 3 and isinstance(detail, bytes) else {}
            kind, value = told.get(1), told.get(2, b"")
            if isinstance(kind, bytes) and kind.rpartition(b"/")[2] == _RETRY_INFO and isinstance(value, bytes):
                delay = dict(_fields(value)).get(1, b"")
                parts = dict(_fields(delay)) if isinstance(delay, bytes) else {}
                seconds, nanos = parts.get(1, 0), parts.get(2, 0)
                if isinstance(seconds, int) and isinstance(nanos, int) and seconds < 1 << 63 and nanos < 1 << 63:
                    return seconds + nanos * 1e-9
                return 0.0
    except (IndexError, ValueError):
        pass
    return None


def _fields(message: bytes) -> Iterator[tuple[int, Union[int, bytes]]]:
    """The fields of a message of protocol buffers that are varints or bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("a varint of more than ten bytes")

    while at < len(message):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
        elif tag & 7 == 2:
            size = varint()
            if at + size > len(message):
                raise ValueError("a field that ends behind its message")
            at += size
            yield tag >> 3, message[at - size:at]
        elif tag & 7 in (1, 5):
            at += 8 if tag & 7 == 1 else 4
        else:
            raise ValueError("a field of an unknown kind")
