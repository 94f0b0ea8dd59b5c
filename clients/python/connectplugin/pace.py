"""When to try again."""
import random
import time

import grpc

_LEAST, _MOST = 0.25, 5.0
_BUSY, _IDLE = 1.0, 30.0


class Pace:
    """How long to wait after failures in a row: any part of a bound that grows with the time that they have lasted, so
    that a short interruption is over soon, and thousands of plugins do not come back at the same moment. Where the host
    has too much to do it is longer."""

    def __init__(self) -> None:
        self._since = 0.0

    def over(self) -> None:
        self._since = 0.0

    def failed(self, error: Exception) -> float:
        now = time.monotonic()
        self._since = self._since or now
        lasted = now - self._since
        if code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return random.uniform(_BUSY / 2, min(max(lasted / 2, _BUSY), _IDLE))
        return random.uniform(0, min(max(lasted / 4, _LEAST), _MOST))


def code_of(error: BaseException) -> object:
    """The code of a grpc.RpcError, None of any other error."""
    return error.code() if isinstance(error, grpc.RpcError) and hasattr(error, "code") else None
