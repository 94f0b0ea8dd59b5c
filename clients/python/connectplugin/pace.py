"""When to try again."""
import random
import time
from typing import Any, Iterator, Optional, Union

import grpc

_LOST, _LEAST, _MOST = 0.1, 0.25, 5.0  # as a client in Go
_BUSY, _IDLE = 1.0, 30.0
_OLD = 1.0  # the age from which on a connection, or an identity, was of use
_MOST_BRIEF = 4  # identities in a row that the host forgot before that age, of which the last has to wait
_MOST_ASKED = 300.0  # that a host's word may add
_RETRY_INFO = b"google.rpc.RetryInfo"


class Pace:
    """How long to wait after failures in a row: any part of a bound that grows with the time that they have lasted, so
    that a short interruption is over soon, and thousands of plugins do not come back at the same moment. Where the host
    has too much to do it is longer. What held for less than a second, a connection or an identity, does not end them."""

    def __init__(self) -> None:
        self._since: Optional[float] = None  # when the failures in a row began
        self._reached: Optional[float] = None  # when the host first took the plugin after the last failure
        self._brief = 0  # identities in a row that were forgotten at once

    def reached(self) -> None:
        """The host has taken the plugin, or still does."""
        if self._reached is None:
            self._reached = time.monotonic()

    def failed(self, error: Exception) -> float:
        """An attempt failed."""
        lasted = self._lasted()
        if code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return asked_delay(error) + random.uniform(_BUSY / 2, min(max(lasted / 2, _BUSY), _IDLE))
        return random.uniform(0, min(max(lasted / 4, _LEAST), _MOST))

    def lost(self) -> float:
        """The connection ended, over which the host had taken the plugin."""
        lasted = self._lasted()
        return random.uniform(0, min(max(lasted / 4, _LEAST), _MOST) if lasted > 0 else _LOST)

    def forgotten(self, given: float) -> float:
        """The host does not know the identity any more that it gave then, by time.monotonic."""
        self._lasted()
        self._brief = self._brief + 1 if time.monotonic() - given < _OLD else 0
        if self._brief < _MOST_BRIEF:
            return 0.0
        most = min(_LOST * 2.0 ** min(self._brief - _MOST_BRIEF, 10), _MOST)
        return random.uniform(most / 2, most)

    def _lasted(self) -> float:
        """How long the failures have lasted, of which there is one now."""
        now = time.monotonic()
        if self._since is None or (self._reached is not None and now - self._reached >= _OLD):
            self._since = now
        self._reached = None
        return now - self._since


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
