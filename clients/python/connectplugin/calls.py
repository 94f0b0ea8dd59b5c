"""Calls of other plugins' services through the host."""
import random
import re
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Optional, Sequence
from urllib.parse import urlsplit

import grpc

from .errors import Closed, HandshakeRefused, HostError, HostNotTrusted, PluginError
from .link import HostLink, Unreachable
from .pace import code_of
from .session import Identity, Session
from .watching import UNAVAILABLE, ServiceState, Watch
from .wire import registry_pb2 as reg

_ANY = "-"  # in the place of a provider: the host chooses
_OWN = ("authorization", "x-plugin-runtime-id", "x-plugin-constraint")  # metadata that is not the caller's to set
NEWS_WAIT = 1.0  # how long a call waits for news of its host, and of its service

_AGAIN, _MOST_AGAIN = 1.0, 60.0  # before a host is asked again that refused to tell of a service


class NoProvider(PluginError, grpc.RpcError):  # type: ignore[misc]
    """There is nobody to call at the moment. Code and details are those of an unavailable service."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Aim:
    """Where a call goes, and with what."""

    path: str  # before that of the method
    metadata: tuple[tuple[str, str], ...]
    credential: Any
    timeout: Optional[float]  # what is left of it


class HostChannel(grpc.Channel):  # type: ignore[misc]
    """What the channels have in common that lead through the host, or to it."""

    def __init__(self, link: HostLink) -> None:
        self._link = link

    def aim(self, timeout: Optional[float]) -> Aim:
        """Says where a call goes that begins now."""
        raise NotImplementedError

    def refused(self, aim: Aim) -> None:
        """Takes account of the host's refusal of a credential."""
        raise NotImplementedError

    def mends(self, aim: Aim, timeout: Optional[float]) -> bool:
        """Takes account of it, too, and reports whether to call once more with another."""
        self.refused(aim)
        return True

    def below(self) -> HostLink:
        return self._link

    def unary_unary(self, method: str, request_serializer: Any = None, response_deserializer: Any = None,
                    **_: Any) -> "_Unary":
        return _Unary(self, "unary_unary", method, request_serializer, response_deserializer)

    def unary_stream(self, method: str, request_serializer: Any = None, response_deserializer: Any = None,
                     **_: Any) -> "_Stream":
        return _Stream(self, "unary_stream", method, request_serializer, response_deserializer)

    def stream_unary(self, method: str, request_serializer: Any = None, response_deserializer: Any = None,
                     **_: Any) -> "_Upload":
        return _Upload(self, "stream_unary", method, request_serializer, response_deserializer)

    def stream_stream(self, method: str, request_serializer: Any = None, response_deserializer: Any = None,
                      **_: Any) -> "_Stream":
        return _Stream(self, "stream_stream", method, request_serializer, response_deserializer)

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: Optional[bool] = False) -> None:
        self._link.channel().subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._link.channel().unsubscribe(callback)

    def __enter__(self) -> "HostChannel":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class ServiceChannel(HostChannel):
    """A channel that leads to the providers of a service type, for generated stubs. The host chooses one for each call; where it
    does not know how, all go to the provider of the moment, which the channel learns from the registry. A unary call that the host refused because it did not know the
    plugin's identity any more is made once more with a new one; the provider saw nothing of the first."""

    def __init__(self, session: Session, link: HostLink, service_type: str, constraint: str) -> None:
        super().__init__(link)
        self._session, self._type, self._constraint = session, service_type, " ".join(constraint.split())
        self._mu = threading.Condition()
        # Guarded by _mu.
        self._route = ""
        self._owner = ""  # the runtime id under which the route is known
        self._next_owner = ""
        self._error: Optional[Exception] = None
        self._watch = self._new_watch()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="connectplugin-" + service_type, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops following the registry. Calls in flight go on."""
        with self._mu:
            self._closed.set()
            self._watch.close()
        self._thread.join()

    def _opened(self, identity: Identity) -> None:
        with self._mu:
            self._next_owner = identity.runtime_id

    def _broken(self) -> None:
        with self._mu:
            self._route = ""

    def _new_watch(self) -> Watch:
        # Each stream begins with the current state: after a break nothing is known, though nothing may have changed.
        return Watch(self._session, self._link, self._type, self._opened, self._broken, resumes=False)

    def _follow(self) -> None:
        """Follows the type until the channel or the plugin ends. A host that refuses that may allow it later: it is asked less and
        less often, and calls fail as refused until then."""
        wait = _AGAIN
        while True:
            error: Optional[Exception] = NoProvider(f"the connection to {self._type!r} is closed")
            ended = True
            try:
                for state in self._watch:
                    route = self._route_of(state)
                    with self._mu:
                        self._route, self._owner, self._error, wait = route, self._next_owner, None, _AGAIN
                        self._mu.notify_all()
            except (Closed, HandshakeRefused, HostNotTrusted) as e:
                error = e
            except (grpc.RpcError, PluginError) as e:
                error, ended = e if isinstance(e, HostError) else None, False
            with self._mu:
                self._route, self._error = "", error
                self._mu.notify_all()
            if ended or self._closed.wait(random.uniform(wait / 2, wait)):
                return
            wait = min(2 * wait, _MOST_AGAIN)
            with self._mu:
                if self._closed.is_set():
                    return
                self._watch.close()
                self._watch = self._new_watch()

    def _route_of(self, state: ServiceState) -> str:
        if state.state == UNAVAILABLE:
            return ""
        if self._session.host_chooses():
            return f"/services/{self._type}/{_ANY}"
        url = state.endpoint_url
        if self._constraint:
            identity = self._session.identity(NEWS_WAIT)
            discover = self._link.call(
                "unary_unary", "/connectplugin.v1.ServiceRegistry/DiscoverService",
                reg.DiscoverServiceRequest.SerializeToString, reg.DiscoverServiceResponse.FromString)
            try:
                answer = discover(reg.DiscoverServiceRequest(service_type=self._type, min_version=self._constraint),
                                  metadata=identity.metadata(), timeout=NEWS_WAIT * 10)
            except grpc.RpcError as e:
                if code_of(e) in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
                    return ""
                raise
            url = answer.endpoint.endpoint_url
        # Only routes through the host are believed, wherever the URL says that it points.
        try:
            path = urlsplit(url).path.rstrip("/")
        except ValueError:
            return ""
        return path if re.fullmatch(re.escape(f"/services/{self._type}/") + r"[A-Za-z0-9._~-]+", path) else ""

    def aim(self, timeout: Optional[float]) -> Aim:
        """The route of the moment, and the identity under which it holds."""
        wait = NEWS_WAIT if timeout is None else min(NEWS_WAIT, timeout)
        until = time.monotonic() + wait
        try:
            identity = self._session.identity(wait)
        except (Unreachable, Closed) as e:
            raise NoProvider(str(e)) from e
        with self._mu:
            self._mu.wait_for(lambda: self._error is not None or (self._route and self._owner == identity.runtime_id),
                              max(0.0, until - time.monotonic()))
            if self._error is not None:
                raise self._error
            if not self._route or self._owner != identity.runtime_id:
                raise NoProvider(f"no provider of {self._type!r} is available")
            route = self._route
        # What the host is told of the provider that it chooses.
        wanted = (("x-plugin-constraint", self._constraint),) if self._constraint and route.endswith("/" + _ANY) else ()
        return Aim(route, (*wanted, *identity.metadata()), identity, timeout)

    def refused(self, aim: Aim) -> None:
        self._session.refused(aim.credential)


class _Multi:
    """What the four kinds of calls have in common."""

    def __init__(self, channel: HostChannel, kind: str, method: str, serializer: Any, deserializer: Any) -> None:
        self._channel, self._kind, self._method = channel, kind, method
        self._serializer, self._deserializer = serializer, deserializer

    def _aimed(self, timeout: Optional[float], metadata: Optional[Sequence[Any]], how: str = "") -> tuple[Any, dict[str, Any], Aim]:
        aim = self._channel.aim(timeout)
        call = self._channel.below().call(self._kind + how, aim.path + self._method, self._serializer, self._deserializer)
        own = [m for m in metadata or () if m[0].lower() not in _OWN]
        return call, {"timeout": aim.timeout, "metadata": (*own, *aim.metadata)}, aim

    def _begun(self, how: str, request: Any, timeout: Optional[float], metadata: Optional[Sequence[Any]], compression: Any) -> Any:
        """Begins a call that goes on by itself, of whose refusal the next one has the use."""
        call, options, aim = self._aimed(timeout, metadata, how)
        begun = begin(call, request, compression=compression, **options)

        def over() -> None:
            if host_forgot(begun, trailers_only=True):  # to ask for the headers here could wait for ever
                self._channel.refused(aim)

        if isinstance(begun, grpc.RpcContext) and not begun.add_callback(over):
            over()
        return begun


def begin(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Begins a call. grpcio has an error of another kind for a channel that was just replaced."""
    try:
        return call(*args, **options)
    except ValueError as e:
        raise NoProvider("the host is away") from e


class _Stream(_Multi, grpc.UnaryStreamMultiCallable, grpc.StreamStreamMultiCallable):  # type: ignore[misc]
    def __call__(self, request: Any, timeout: Optional[float] = None, metadata: Optional[Sequence[Any]] = None,
                 credentials: Any = None, wait_for_ready: Optional[bool] = None, compression: Any = None) -> Any:
        return self._begun("", request, timeout, metadata, compression)


class _Upload(_Multi, grpc.StreamUnaryMultiCallable):  # type: ignore[misc]
    def __call__(self, request_iterator: Iterable[Any], timeout: Optional[float] = None,
                 metadata: Optional[Sequence[Any]] = None, credentials: Any = None,
                 wait_for_ready: Optional[bool] = None, compression: Any = None) -> Any:
        return self.with_call(request_iterator, timeout, metadata, credentials, wait_for_ready, compression)[0]

    def with_call(self, request_iterator: Iterable[Any], timeout: Optional[float] = None,
                  metadata: Optional[Sequence[Any]] = None, credentials: Any = None,
                  wait_for_ready: Optional[bool] = None, compression: Any = None) -> Any:
        call, options, aim = self._aimed(timeout, metadata, ".with_call")
        try:
            return begin(call, iter(request_iterator), compression=compression, **options)
        except grpc.RpcError as e:
            if host_forgot(e):
                self._channel.refused(aim)
            raise

    def future(self, request_iterator: Iterable[Any], timeout: Optional[float] = None,
               metadata: Optional[Sequence[Any]] = None, credentials: Any = None,
               wait_for_ready: Optional[bool] = None, compression: Any = None) -> Any:
        return self._begun(".future", iter(request_iterator), timeout, metadata, compression)


class _Unary(_Multi, grpc.UnaryUnaryMultiCallable):  # type: ignore[misc]
    def __call__(self, request: Any, timeout: Optional[float] = None, metadata: Optional[Sequence[Any]] = None,
                 credentials: Any = None, wait_for_ready: Optional[bool] = None, compression: Any = None) -> Any:
        return self.with_call(request, timeout, metadata, credentials, wait_for_ready, compression)[0]

    def with_call(self, request: Any, timeout: Optional[float] = None, metadata: Optional[Sequence[Any]] = None,
                  credentials: Any = None, wait_for_ready: Optional[bool] = None, compression: Any = None) -> Any:
        until = None if timeout is None else time.monotonic() + timeout
        call, options, aim = self._aimed(timeout, metadata, ".with_call")
        try:
            return begin(call, request, compression=compression, **options)
        except grpc.RpcError as e:
            if not host_forgot(e) or not self._channel.mends(aim, _left(until)):
                raise
        call, options, _ = self._aimed(_left(until), metadata, ".with_call")
        return begin(call, request, compression=compression, **options)

    def future(self, request: Any, timeout: Optional[float] = None, metadata: Optional[Sequence[Any]] = None,
               credentials: Any = None, wait_for_ready: Optional[bool] = None, compression: Any = None) -> Any:
        return self._begun(".future", request, timeout, metadata, compression)


def _left(until: Optional[float]) -> Optional[float]:
    return None if until is None else max(0.0, until - time.monotonic())


def host_forgot(e: Any, trailers_only: bool = False) -> bool:
    """Reports whether the host refused a call because of its credential. A provider's own refusal has no challenge."""
    if code_of(e) is not grpc.StatusCode.UNAUTHENTICATED:
        return False
    fields = [*(() if trailers_only else e.initial_metadata() or ()), *(e.trailing_metadata() or ())]
    return any(key == "www-authenticate" for key, _ in fields)
