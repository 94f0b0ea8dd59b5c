"""The state of a service type, followed over the loss of the host and of the identity."""
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Callable, Iterator, Mapping, Optional

import grpc

from .errors import Closed, HostError
from .link import HostLink, Unreachable
from .pace import code_of
from .session import Identity, Session
from .wire import registry_pb2 as reg

UNAVAILABLE = reg.SERVICE_STATE_UNAVAILABLE
AVAILABLE = reg.SERVICE_STATE_AVAILABLE
DEGRADED = reg.SERVICE_STATE_DEGRADED

_FIRST_WAIT, _MOST_WAIT = 0.1, 5.0
_OLD = 1.0  # the age from which on a stream was of use
_FINAL = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT,
          grpc.StatusCode.UNIMPLEMENTED)


@dataclass(frozen=True)
class ServiceState:
    """The whole state of a service type after a change."""

    service_type: str
    state: int
    """UNAVAILABLE, AVAILABLE or DEGRADED."""
    provider_id: str = ""
    version: str = ""
    endpoint_url: str = ""
    """The provider's route through the host."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """The provider's own word; nothing in it is to be trusted."""
    sequence: int = 0
    resync: bool = False
    """States before this one were missed."""
    missed: int = 0
    """How many, where the host knows it."""


class Watch:
    """Iterates over the states of one type. Each state comes once; a broken stream is resumed where it was. It ends with
    a grpc.RpcError where the host refuses the watch, and quietly when it or the plugin is closed. Who leaves a loop over it, and keeps
    it nowhere else, has ended it at the host, too."""

    def __init__(self, session: Session, link: HostLink, service_type: str,
                 opened: Callable[[Identity], None] = lambda _: None, broken: Callable[[], None] = lambda: None,
                 resumes: bool = True) -> None:
        # What is followed knows nothing of the Watch, so that this goes when nobody has it any more, and its stream with it.
        self._following = _Following(session, link, service_type, opened, broken, resumes)
        self._states = self._following.states()

    def __iter__(self) -> Iterator[ServiceState]:
        return self

    def __next__(self) -> ServiceState:
        return next(self._states)

    def close(self) -> None:
        """Ends the iteration, also from another thread."""
        self._following.close()


class _Following:
    def __init__(self, session: Session, link: HostLink, service_type: str, opened: Callable[[Identity], None], broken: Callable[[], None],
                 resumes: bool) -> None:
        self._session, self._link, self._type, self._resumes = session, link, service_type, resumes
        self._opened, self._broken = opened, broken
        self._closed = threading.Event()
        self._mu = threading.Lock()
        self._stream: Optional[grpc.Call] = None
        self._sequence, self._epoch = 0, ""
        self._last: Optional[reg.WatchServiceEvent] = None
        self._failures = 0

    def close(self) -> None:
        self._closed.set()
        with self._mu:
            if self._stream is not None:
                self._stream.cancel()

    def states(self) -> Iterator[ServiceState]:
        while not self._closed.is_set():
            identity: Optional[Identity] = None
            came = float("inf")  # the first state
            try:
                identity = self._session.identity(_MOST_WAIT)
                for event in self._open(identity):
                    came = min(came, time.monotonic())
                    if self._is_new(event):
                        yield _state_of(event)
            except Closed:
                return
            except Unreachable:
                pass
            except grpc.RpcError as e:
                if self._closed.is_set():
                    return
                if code_of(e) in _FINAL:
                    raise HostError(e) from None
                if code_of(e) is grpc.StatusCode.UNAUTHENTICATED and identity is not None:
                    self._session.refused(identity)
            except ValueError:
                pass  # grpcio's word for a channel that was replaced
            self._broken()
            self._failures = 1 if time.monotonic() - came >= _OLD else self._failures + 1
            wait = min(_FIRST_WAIT * 2 ** min(self._failures - 1, 10), _MOST_WAIT)
            self._closed.wait(random.uniform(wait / 2, wait))

    def _open(self, identity: Identity) -> Iterator[reg.WatchServiceEvent]:
        call = self._link.call(
            "unary_stream", "/connectplugin.v1.ServiceRegistry/WatchService",
            reg.WatchServiceRequest.SerializeToString, reg.WatchServiceEvent.FromString)
        request = reg.WatchServiceRequest(service_type=self._type)
        if self._resumes:
            request.resume_after, request.epoch = self._sequence, self._epoch
        stream = call(request, metadata=identity.metadata())
        with self._mu:
            self._stream = stream
        if self._closed.is_set():
            stream.cancel()
        self._opened(identity)
        try:
            yield from stream
        finally:
            stream.cancel()

    def _is_new(self, event: reg.WatchServiceEvent) -> bool:
        """Remembers where the watch is, and reports whether the state was not seen yet."""
        if not self._resumes:
            return True
        if not event.epoch:  # a host of the first wire version
            same, self._last = self._last == event, event
            return not same
        if event.epoch == self._epoch and 0 < event.sequence <= self._sequence:
            return False
        self._sequence, self._epoch = event.sequence, event.epoch
        return True


def _state_of(event: reg.WatchServiceEvent) -> ServiceState:
    e = event.endpoint
    return ServiceState(event.service_type, event.state, e.provider_id, e.version, e.endpoint_url, dict(e.metadata),
                        event.sequence, event.resync, event.missed)
