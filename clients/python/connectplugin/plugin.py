"""A plugin process."""
import _thread
import contextlib
import logging
import re
import signal
import threading
import unicodedata
import weakref
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence, TypeVar, Union

import grpc

from .address import bracketed, parse_address
from .calls import ServiceChannel
from .capabilities import CapabilityChannel, Wanted, request_grant
from .errors import Closed, ConfigError, check_name, check_version
from .link import MAX_MESSAGE, NO_COMPRESSION, HostLink, Unreachable, parse_base_url
from .log import Log
from .pace import Pace
from .serving import Control, Refusal, end, new_server
from .session import SILENCE, Session, Settings
from .transcript import MIN_SECRET_SIZE, health_proof
from .trust import Credentials, HostTrust, check_mark, hear_refused
from .watching import Watch
from .wire import broker_pb2 as broker
from .wire import handshake_pb2 as hs
from .wire import lifecycle_pb2 as lc
from .wire import registry_pb2 as reg
from .workers import Workers

HEALTHY, DEGRADED, UNHEALTHY = lc.HEALTH_STATE_HEALTHY, lc.HEALTH_STATE_DEGRADED, lc.HEALTH_STATE_UNHEALTHY

MAX_CHALLENGE = 64
_MOST_COOKIE = 256  # bytes
_LONGEST = 1e9  # seconds, of what a system can wait
_MOST_CAPABILITIES = 256  # that are shared; of others each asker has its own

_Opened = TypeVar("_Opened", Watch, ServiceChannel)

MAGIC_COOKIE = ("CONNECT_PLUGIN", "d3f40b3c2e1a5f8b9c4d7e6a1b2c3d4e")

_MOST_REASON = 1024  # bytes
_STEERING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # marks of the direction of text


def fit_reason(reason: str) -> str:
    """A reason that hosts take: they refuse a report with any other, and the state with it."""
    line = "".join(" " if c in _STEERING or unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in reason)
    text = line.encode("utf-8", "replace")
    if len(text) <= _MOST_REASON:
        return text.decode()
    more = "…".encode()
    return (text[:_MOST_REASON - len(more)]).decode("utf-8", "ignore") + "…"


@dataclass(frozen=True)
class Dependency:
    """A service type that the plugin calls or watches. A string in its place accepts any version."""

    type: str
    min_version: str = ""


@dataclass(frozen=True)
class _Provided:
    type: str
    version: str
    path: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class Plugin:
    """A plugin that serves and calls services through its host.

    host is the host's base URL. self_id names the plugin; the host's policy is written for it. credentials are its
    certificate, key and authorities. secret is the enrolment secret of self_id, where there is one: the plugin proves
    it, and accepts only a host that proves it, too. requires are the types that the plugin calls or watches; the host
    lets it use no others.

    The host is known by host_identity (its SPIFFE id) or host_pins (SHA-256 of its public key, base64 or hex); neither
    is needed where the plugin's own certificate is that of an Authority of connectplugin. Whoever else answers in its
    place or calls the plugin is refused.

    address is what the plugin listens on ("10.0.0.7:8443", ":8443" for every address of the machine); empty means a free
    port, on the address from which it reaches its host. base_url is where the host calls it, if that is another; for a plugin
    that listens on every address it is the one from which it reaches its host.

    grace is for how long calls in flight may finish at the end, in seconds. Beside it a plugin takes some seconds for what it
    says to its host, so leave it 5 less than what ends the process has patience.

    logger hears what happens; empty means the logger "connectplugin". What an operator has to know, that the plugin waits
    for its host and that it lost it, comes at WARNING, once, and so it is printed where nobody has set up logging, too.

    It is safe for use by several threads.
    """

    def __init__(self, *, host: str, self_id: str, credentials: Credentials, self_version: str = "",
                 secret: Optional[bytes] = None, requires: Sequence[Union[str, Dependency]] = (),
                 host_identity: str = "", host_pins: Sequence[str] = (), address: str = "", base_url: str = "",
                 versions: tuple[int, int] = (1, 1), magic_cookie: tuple[str, str] = MAGIC_COOKIE,
                 timeout: float = 10.0, report_every: float = 10.0, workers: int = 64, grace: float = 10.0,
                 server_options: Sequence[tuple[str, Any]] = (("grpc.max_receive_message_length", MAX_MESSAGE), NO_COMPRESSION),
                 logger: Optional[logging.Logger] = None) -> None:
        if not self_id:
            raise ConfigError("self_id: is empty; write the name that the host's policy knows")
        check_name("self_id", self_id, 128)
        check_version("self_version", self_version)
        if isinstance(secret, str):
            raise ConfigError("secret: is text; write bytes, as open(FILE, 'rb').read() returns them")
        if secret is not None and len(secret) < MIN_SECRET_SIZE:
            raise ConfigError(f"secret: has {len(secret)} bytes; write at least {MIN_SECRET_SIZE} random ones")
        check_mark("secret", secret or b"")
        if not hasattr(credentials, "read"):
            raise ConfigError("credentials: are none; write Credentials(DIRECTORY)")
        for name, several in (("requires", requires), ("host_pins", host_pins)):
            if isinstance(several, str):
                raise ConfigError(f"{name}: is one text, of which each letter would count; write a list, [{several[:128]!r}]")
        if not 1 <= versions[0] <= versions[1]:
            raise ConfigError("versions: the range is empty; write the lowest and the highest, from 1 on")
        if workers < 2 or not all(0 < seconds < _LONGEST for seconds in (timeout, report_every, grace)):
            raise ConfigError("workers, timeout, report_every, grace: write at least 2 workers, and positive numbers of seconds")
        if any(len(text.encode()) > _MOST_COOKIE for text in magic_cookie):
            raise ConfigError(f"magic_cookie: a handshake takes {_MOST_COOKIE} bytes at most of key and value each")
        if base_url:
            parse_base_url("base_url", base_url)
        self._log = Log(logger or logging.getLogger("connectplugin"))
        self._credentials, self._trust = credentials, HostTrust(credentials, host_identity, host_pins)
        hear_refused(credentials, self._log.warning)
        self._self_id, self._self_version = self_id, self_version
        self._requires = [r if isinstance(r, Dependency) else Dependency(r) for r in requires]
        for r in self._requires:
            check_name("requires", r.type, 128)
        self._address = parse_address(address) if address else None
        self._base_url, self._workers, self._server_options = base_url, Workers(workers), server_options
        self._timeout = timeout
        self._provided: list[_Provided] = []
        self._adders: list[Callable[[grpc.Server], None]] = []
        self._link = HostLink(host, credentials, self._trust, lambda: self._session.lost(), self._log,
                              lambda: self._session.poke(report=True))
        settings = Settings(self_id, self_version, secret, magic_cookie, versions, timeout, report_every)
        self._session = Session(settings, self._link, self._log, self._registrations, self._declare, self._report)
        self._server: Optional[grpc.Server] = None
        self._mu = threading.Lock()
        # Guarded by _mu.
        self._health: tuple[lc.HealthState, str] = (HEALTHY, "")
        self._open: weakref.WeakSet[Union[Watch, ServiceChannel]] = weakref.WeakSet()  # what nobody has any more has ended
        self._capabilities: dict[Wanted, CapabilityChannel] = {}
        self._stopped = False
        self._grace = grace
        self.stopping = threading.Event()
        """Set when the host or a signal asks the plugin to stop. A stream that could go on for ever ends itself then."""

    def provide(self, service_type: str, version: str, service: str, add: Callable[[grpc.Server], None],
                metadata: Optional[Mapping[str, str]] = None) -> None:
        """Offers a service to others: its type, its semantic version, the name of the gRPC service ("greeter.v1.Greeter")
        and a function that adds its servicer to a server. Before start."""
        if self._server is not None:
            raise ConfigError("provide: the plugin has started")
        check_name("provide: service_type", service_type, 128)
        check_version("provide: version", version)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", service):
            raise ConfigError(f"provide: service: {service[:128]!r} is no gRPC service; write its full name, such as 'greeter.v1.Greeter'")
        if any(p.type == service_type for p in self._provided):
            raise ConfigError(f"provide: service_type: {service_type!r} is provided twice, and a plugin provides a type once")
        self._provided.append(_Provided(service_type, version, f"/{service}/", dict(metadata or {})))
        self._adders.append(add)

    def service(self, service_type: str, constraint: str = "") -> ServiceChannel:
        """A channel for generated stubs that leads to the provider of a type, of a version that satisfies the constraint
        ("1.2.0", ">=1.2, <2"). It may be made before start; calls wait a second for news, and fail as unavailable."""
        return self._keep(ServiceChannel(self._session, self._link, service_type, constraint))

    def watch(self, service_type: str) -> Watch:
        """Iterates over the states of a type: first as it is, then at every change. After start."""
        return self._keep(Watch(self._session, self._link, service_type))

    def capability(self, capability: str, constraint: str = "", reason: str = "") -> CapabilityChannel:
        """A channel for generated stubs that leads to a capability of the host, of a version that satisfies the constraint. It
        may be made before start. The host is asked for a grant by the first call, which fails as not found where the host has
        none or policy allows none. reason is for the host's audit log. Who asks again for the same gets the same channel."""
        wanted = Wanted(capability, constraint, reason)
        with self._mu:
            found = self._capabilities.get(wanted)
            if found is None:
                found = CapabilityChannel(self._session, self._link, wanted, self._timeout)
                if len(self._capabilities) < _MOST_CAPABILITIES:
                    self._capabilities[wanted] = found
        found.confirm()
        return found

    def request_capability(self, capability: str, min_version: str = "", reason: str = "") -> broker.CapabilityGrant:
        """Asks the host for a grant, for who makes calls with it by hand. Its bearer_token goes to its endpoint_url and nowhere
        else. capability does both, and renews it."""
        return request_grant(self._session, self._link, Wanted(capability, min_version, reason), self._timeout, self._timeout)[0]

    def set_health(self, state: lc.HealthState, reason: str = "") -> None:
        """Says how the plugin is: HEALTHY, DEGRADED or UNHEALTHY. The host is told at once. Of reason it gets one line of
        1,024 bytes at most."""
        if state not in (HEALTHY, DEGRADED, UNHEALTHY):  # no host takes a report of another one
            raise ConfigError("set_health: state: write HEALTHY, DEGRADED or UNHEALTHY")
        with self._mu:
            self._health = (state, fit_reason(reason))
        self._session.poke(report=True)

    @property
    def runtime_id(self) -> str:
        """The id of this process at its host. It changes when the host forgot the plugin."""
        return self._session.identity().runtime_id

    def start(self) -> None:
        """Serves, enrols and registers. It waits for the host however long that takes, and returns when the plugin can be
        called. It raises HostNotTrusted or HandshakeRefused, and Closed where the plugin is stopped before that."""
        address = self._address
        if address is None or (address.everywhere and not self._base_url):
            local = bracketed(self._address_towards_host())
        else:
            local = address.host
        control = Control(self._answer_health, self._asked_to_stop, self._declare)
        self._server, port = new_server(self._credentials, self._trust, control, str(address or f"{local}:0"), self._workers,
                                        self._server_options, self._log)
        for add in self._adders:
            add(self._server)
        if not self._base_url:
            self._base_url = f"https://{local}:{port}"
        self._server.start()
        self._session.start()
        self._session.await_ready(self.stopping)

    def run(self) -> None:
        """Starts, unless it has started, and serves until SIGTERM, SIGINT or the host asks to stop. Then it withdraws what
        it offers, finishes the calls in flight, and leaves. It returns then, also where the host was never there."""
        with self._signals():
            try:
                if self._server is None:
                    self.start()
                while not self.stopping.wait(0.2):  # a wait without a limit would keep signals from Python's main thread
                    self._session.raise_error()
            except Closed:
                if not self.stopping.is_set():
                    raise
            finally:
                self.stop()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Has signals stop the plugin meanwhile. Python has a handler run in between whatever the main thread does, which may hold the
        lock of the event: another thread sets it."""
        before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, lambda *_: _thread.start_new_thread(self.stopping.set, ()))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def stop(self) -> None:
        """Withdraws what the plugin offers, finishes the calls in flight, at most for the grace, and gives the identity
        back. Later calls do nothing."""
        self.stopping.set()
        with self._mu:
            if self._stopped:
                return
            self._stopped = True
            opened = list(self._open)
            self._open.clear()
        self._session.end()
        self._session.withdraw()
        if self._server is not None:
            end(self._server, self._workers, self._grace, SILENCE)
        for o in opened:
            o.close()
        self._session.leave()
        self._link.close()
        self._log.close()

    def _address_towards_host(self) -> str:
        """The address from which the plugin reaches its host, however long that takes."""
        pace, log = Pace(), self._log.warning
        while not self._link.local:
            try:
                self._link.reach(self._timeout)
            except Unreachable as e:
                log("waiting for the host: %s", e)
                log = self._log.info  # the first time is enough
                if self.stopping.wait(pace.failed(e)):
                    raise Closed("the plugin was stopped before its host was there") from e
        return self._link.local

    def _keep(self, opened: "_Opened") -> "_Opened":
        with self._mu:
            if self._stopped:
                raise Closed("the plugin has ended")
            self._open.add(opened)
        return opened

    def _declare(self, request: hs.HandshakeRequest) -> None:
        request.self_id, request.self_version = self._self_id, self._self_version
        for p in self._provided:
            request.provides.add(type=p.type, version=p.version, path=p.path)
        for r in self._requires:
            request.requires.add(type=r.type, min_version=r.min_version)

    def _registrations(self) -> list[reg.RegisterServiceRequest]:
        return [reg.RegisterServiceRequest(service_type=p.type, version=p.version, endpoint_path=p.path,
                                           metadata={**p.metadata, "base_url": self._base_url}) for p in self._provided]

    def _report(self) -> lc.ReportHealthRequest:
        with self._mu:
            state, reason = self._health
        return lc.ReportHealthRequest(state=state, reason=reason)

    def _answer_health(self, request: lc.GetHealthRequest) -> lc.GetHealthResponse:
        if len(request.challenge) > MAX_CHALLENGE:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "challenge: is too long")
        identity = self._session.current()
        if request.runtime_id and (identity is None or request.runtime_id != identity.runtime_id):
            raise Refusal(grpc.StatusCode.NOT_FOUND, "this is another plugin")
        with self._mu:
            state, reason = self._health
        answer = lc.GetHealthResponse(state=state, reason=reason)
        if request.challenge and identity is not None:
            answer.proof = health_proof(identity.token, identity.runtime_id, request.challenge)
        return answer

    def _asked_to_stop(self, request: lc.ShutdownRequest) -> None:
        self._log.info("the host asks the plugin to stop: %s", ascii(request.reason[:1024]))
        if 0 < request.grace_period_seconds < self._grace:
            self._grace = float(request.grace_period_seconds)
        self.stopping.set()

    def __enter__(self) -> "Plugin":
        try:
            self.start()
        except BaseException:
            self.stop()  # __exit__ does not come
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()
