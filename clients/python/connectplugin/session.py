"""A plugin's identity: enrolment, renewal, registration and reports, kept up by one thread."""
import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Optional, Sequence

import grpc

from . import transcript
from .errors import Closed, HandshakeRefused, HostError, HostNotTrusted, PluginError
from .link import HostLink, Unreachable
from .log import Log
from .pace import Pace, code_of
from .wire import handshake_pb2 as hs
from .wire import lifecycle_pb2 as lc
from .wire import registry_pb2 as reg

RENEW_AFTER = 2 / 3  # of the lifetime
_RENEW_FLOOR = 0.1
SILENCE = 3.0
"""How long a plugin that ends waits for a host that says nothing, in seconds: as one in Go."""
_ANY_PROVIDER = "connectplugin.any_provider"
_FINAL = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION,
          grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)


@dataclass(frozen=True)
class Identity:
    """What the host gave this process: its runtime id, and the token that proves it."""

    runtime_id: str
    token: str = field(repr=False)
    renew_at: float  # by time.monotonic; infinite where the host does not say when the token ends
    given: float = field(default_factory=time.monotonic)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-plugin-runtime-id", self.runtime_id), ("authorization", "Bearer " + self.token))


@dataclass(frozen=True)
class Settings:
    """What the session needs to know of the plugin. Fixed at creation."""

    self_id: str
    self_version: str
    secret: Optional[bytes] = field(repr=False)
    cookie: tuple[str, str]
    versions: tuple[int, int]
    timeout: float
    report_every: float


class _Forgotten(PluginError):
    """The identity is not valid any more."""

    def __init__(self, identity: Identity) -> None:
        super().__init__("the host does not know this plugin any more; enrolling anew")
        self.identity = identity


class _Lost(PluginError):
    """The connection ended, over which the host had taken the plugin."""


class _Taken(PluginError):
    """Another plugin provides what this one has to."""


class Session:
    """Keeps a plugin enrolled, registered and reported."""

    def __init__(self, settings: Settings, link: HostLink, log: Log,
                 registrations: Callable[[], Sequence[reg.RegisterServiceRequest]],
                 declarations: Callable[[hs.HandshakeRequest], None],
                 health: Callable[[], lc.ReportHealthRequest]) -> None:
        self._settings, self._link, self._log = settings, link, log
        self._registrations, self._declare, self._health = registrations, declarations, health
        self._pace = Pace()
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._due = threading.Event()  # a report is due at once
        self._thread = threading.Thread(target=self._run, name="connectplugin-session", daemon=True)
        self._mu = threading.Condition()
        # Guarded by _mu.
        self._identity: Optional[Identity] = None
        self._suspect = False  # the connection broke: the host may have forgotten the identity
        self._ready = False
        self._error: Optional[Exception] = None
        self._broken: Optional[PluginError] = None  # _Forgotten or _Lost, of which the thread has not heard
        self._closed = False
        self._chooses = False
        self._patience = SILENCE  # of who ends the session
        # Of the thread alone.
        self._registered: list[str] = []
        self._registered_as = ""
        self._report_at = 0.0
        self._trusted = False
        self._away = False  # and it was said

    def start(self) -> None:
        self._thread.start()

    def await_ready(self, stopping: threading.Event) -> None:
        """Waits until the plugin is enrolled and registered. Raises what ends the session before that, and Closed where
        the plugin is to stop."""
        while not stopping.is_set():
            with self._mu:  # a wait without a limit would keep signals from Python's main thread
                if self._mu.wait_for(lambda: self._ready or self._error is not None or self._closed, 0.2):
                    self._raise_locked()
                    return
        raise Closed("the plugin was stopped before its host had taken it")

    def raise_error(self) -> None:
        """Raises what ended the session, if anything did."""
        with self._mu:
            if self._error is not None:
                raise self._error

    def identity(self, timeout: Optional[float] = None) -> Identity:
        """The identity of the moment. Waits while there is none."""
        with self._mu:
            self._mu.wait_for(
                lambda: self._error is not None or self._closed or (self._identity is not None and not self._suspect), timeout)
            self._raise_locked()
            if self._identity is None:  # one that may be forgotten is better than none
                raise Unreachable("the host is away")
            return self._identity

    def current(self) -> Optional[Identity]:
        """The identity of the moment, None while there is none."""
        with self._mu:
            return self._identity

    def host_chooses(self) -> bool:
        """Reports whether the host chooses among the providers of a type, call by call."""
        with self._mu:
            return self._chooses

    def refused(self, identity: Identity) -> None:
        """Takes account of an answer that says that the identity is not valid any more."""
        with self._mu:
            if self._identity is None or self._identity.token != identity.token:
                return
            self._broken, self._identity = _Forgotten(self._identity), None
        self.poke(report=True)

    def lost(self) -> None:
        """Takes account of the loss of the connection to the host."""
        with self._mu:
            self._suspect, self._broken = True, self._broken or _Lost("the connection to the host was lost")
        self.poke(report=True)

    def poke(self, report: bool = False) -> None:
        """Has the session look at once, unless it waits after a failure; with report it tells the host the plugin's health."""
        if report:
            self._due.set()
        self._wake.set()

    def end(self) -> None:
        """Ends the thread and waits for it, or until it is clear that the host is silent. The identity stays good for calls until leave."""
        self._ended.set()
        self._wake.set()
        if self._thread.is_alive():
            with self._patient():
                self._thread.join(self._patience)

    def withdraw(self) -> None:
        """Takes the registrations back, so that no new calls come. After end."""
        for registration_id in self._registered:
            if not self._last_word("ServiceRegistry/UnregisterService",
                                   reg.UnregisterServiceRequest(registration_id=registration_id)):
                break
        self._registered = []

    def leave(self) -> None:
        """Gives the identity back. After end."""
        if self._identity is not None:
            self._last_word("PluginLifecycle/ReportHealth", lc.ReportHealthRequest(
                state=lc.HEALTH_STATE_UNHEALTHY, reason="the plugin ends", leaving=True))
        with self._mu:
            self._identity, self._closed = None, True
            self._mu.notify_all()

    def _last_word(self, procedure: str, message: Any) -> bool:
        """Calls a host that may be gone."""
        if self._identity is None or self._patience <= 0:
            return False
        try:
            with self._patient():
                self._call(procedure, message, None, self._identity, min(2.0, self._settings.timeout, self._patience))
        except (grpc.RpcError, PluginError, ValueError) as e:
            self._log.debug("%s: %s", procedure, e)
            return False
        return True

    @contextlib.contextmanager
    def _patient(self) -> Iterator[None]:
        """Takes the time that something of the end takes from what there is for all of it."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._patience -= time.monotonic() - begun

    def _raise_locked(self) -> None:
        if self._error is not None:
            raise self._error
        if self._closed:
            raise Closed("the plugin has ended")

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._attempt()
            except (HandshakeRefused, HostNotTrusted) as e:
                if not self._trusted or isinstance(e, HandshakeRefused):
                    self._fail(e)
                    return
                self._log.warning("the host is not trusted: %s", e)
                self._hold(self._pace.failed(e))
            except Closed:
                return
            except _Lost:
                self._hold(self._pace.lost())
            except _Forgotten as e:
                self._forgotten(e)
            except _Taken as e:
                self._say_once("%s", e)
                self._hold(self._pace.failed(e))
            except (grpc.RpcError, Unreachable) as e:
                self._link.lose()
                self._say_once("waiting for the host: %s", e.details() if isinstance(e, grpc.Call) else e)
                self._hold(self._pace.failed(e))
            except Exception as e:  # a defect ends the plugin and not its thread alone
                self._fail(e)
                return

    def _say_once(self, text: str, what: object) -> None:
        """Says for what the plugin waits; the first time is enough for who hears of warnings alone."""
        if not self._ended.is_set():
            log = self._log.info if self._away else self._log.warning
            log(text, what)
        self._away = True

    def _attempt(self) -> None:
        """Does what is due and rests until something else is. Raises what broke then, too."""
        broken = self._take_broken()
        if isinstance(broken, _Forgotten):
            raise broken
        delay = self._step()
        self._pace.reached()
        self._away = False
        self._wake.wait(delay)
        self._wake.clear()
        broken = self._take_broken()
        if broken is not None and not self._ended.is_set():
            raise broken

    def _take_broken(self) -> Optional[PluginError]:
        with self._mu:
            broken, self._broken = self._broken, None
            return broken

    def _forgotten(self, e: _Forgotten) -> None:
        hold = self._pace.forgotten(e.identity.given)
        self._log.info("%s", e)
        if hold > 0:
            self._log.warning("the host forgets this plugin as soon as it has enrolled; where several hosts answer under one URL, "
                              "give each its own")
        self._hold(hold)

    def _hold(self, delay: float) -> None:
        """Waits, whatever becomes due. Only the end cuts that short."""
        self._ended.wait(delay)

    def _fail(self, error: Exception) -> None:
        with self._mu:
            self._error = error
            self._mu.notify_all()

    def _step(self) -> float:
        """Does what is due and returns the seconds until something else is."""
        self._link.reach(self._settings.timeout)
        identity = self._identity
        try:
            if identity is None or time.monotonic() >= identity.renew_at:
                identity = self._exchange(identity)
            if self._registered_as != identity.runtime_id:
                self._register(identity)
                self._due.set()
            if self._due.is_set() or time.monotonic() >= self._report_at:
                self._due.clear()
                self._report_at = time.monotonic() + self._settings.report_every
                self._call("PluginLifecycle/ReportHealth", self._health(), lc.ReportHealthResponse, identity)
        except grpc.RpcError as e:
            if code_of(e) is not grpc.StatusCode.UNAUTHENTICATED or identity is None:
                raise
            self.refused(identity)
            broken = self._take_broken()  # each identity is forgotten once
            raise broken if isinstance(broken, _Forgotten) else _Forgotten(identity) from None
        self._tell_ready()
        return max(0.0, min(self._report_at, identity.renew_at) - time.monotonic())

    def _tell_ready(self) -> None:
        with self._mu:
            self._suspect, self._ready = False, True
            self._mu.notify_all()

    def _call(self, procedure: str, message: Any, answer: Any, identity: Optional[Identity],
              timeout: Optional[float] = None) -> Any:
        call = self._link.channel().unary_unary(
            "/connectplugin.v1." + procedure, request_serializer=type(message).SerializeToString,
            response_deserializer=answer.FromString if answer else None)
        return call(message, metadata=identity.metadata() if identity else (), timeout=timeout or self._settings.timeout)

    def _register(self, identity: Identity) -> None:
        done: list[str] = []
        self._registered = done
        for message in self._registrations():
            if self._ended.is_set():  # each may take its timeout
                raise Closed("the plugin ends")
            try:
                answer = self._call("ServiceRegistry/RegisterService", message, reg.RegisterServiceResponse, identity)
            except grpc.RpcError as e:
                if code_of(e) is grpc.StatusCode.ALREADY_EXISTS:
                    raise _Taken(f"service {message.service_type!r}: another plugin provides it; waiting until that has left, or the host's "
                                 "policy lets several (AllowMultiple)") from HostError(e)
                if code_of(e) in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT):
                    raise HandshakeRefused(
                        f"service {message.service_type!r}: the host's policy does not allow this plugin to provide it there, "
                        f"or another plugin does; the host's log says which: {e.details()}") from HostError(e)
                raise
            done.append(answer.registration_id)
            self._log.info("service registered: %s", message.service_type)
        self._registered_as = identity.runtime_id

    def _exchange(self, current: Optional[Identity]) -> Identity:
        """One handshake: a renewal where there is an identity, an enrolment otherwise."""
        request = self._request()
        try:
            answer = self._call("HandshakeService/Handshake", request, hs.HandshakeResponse, current)
        except grpc.RpcError as e:
            if current is None and code_of(e) in _FINAL:
                raise HandshakeRefused(
                    f"the host does not accept self id {self._settings.self_id!r}: it may not be in the host's policy, or be revoked "
                    f"there, or its secret or certificate is wrong; the host's log says which: {e.details()}") from HostError(e)
            raise
        self._check(request, answer, current)
        self._trusted = True
        for warning in answer.warnings[:16]:
            self._log.warning("the host warns: %s", ascii(warning[:1024]))
        identity = Identity(answer.runtime_id, answer.runtime_token, _renew_at(request, answer))
        with self._mu:
            self._identity = identity
            self._chooses = answer.server_metadata.get(_ANY_PROVIDER) == "true"
        self._log.info("%s as %s", "renewed" if current else "enrolled", identity.runtime_id)
        return identity

    def _request(self) -> hs.HandshakeRequest:
        s = self._settings
        request = hs.HandshakeRequest(
            core_protocol_version=1, app_protocol_version=s.versions[1], min_protocol_version=s.versions[0],
            max_protocol_version=s.versions[1], magic_cookie_key=s.cookie[0], magic_cookie_value=s.cookie[1],
            self_id=s.self_id, self_version=s.self_version, client_nonce=os.urandom(transcript.NONCE_SIZE))
        request.issued_at.GetCurrentTime()
        self._declare(request)
        if s.secret is not None:
            transcript.prove_request(request, s.secret)
        return request

    def _check(self, request: hs.HandshakeRequest, answer: hs.HandshakeResponse, current: Optional[Identity]) -> None:
        """Believes an answer only where it is proven, complete and within what was offered."""
        s = self._settings
        if s.secret is not None and not transcript.response_is_proven(request, answer, s.secret):
            raise HostNotTrusted(f"its answer does not prove that it holds the secret of {s.self_id!r}, or was altered on the way")
        if answer.core_protocol_version != 1:
            raise HostNotTrusted(f"it answers with core protocol version {answer.core_protocol_version}")
        if not s.versions[0] <= answer.app_protocol_version <= s.versions[1]:
            raise HostNotTrusted(f"it answers with application version {answer.app_protocol_version}, outside of "
                                 f"{s.versions[0]} to {s.versions[1]}")
        if not _is_word(answer.runtime_id) or not _is_word(answer.runtime_token):
            raise HostNotTrusted("its answer has no runtime id or no token")
        if current is not None and answer.runtime_id != current.runtime_id:
            raise HostNotTrusted("a renewal changed the runtime id")


def _is_word(text: str) -> bool:
    return 0 < len(text) <= 512 and text.isascii() and all(c.isalnum() or c in "-._~" for c in text)


def _renew_at(request: hs.HandshakeRequest, answer: hs.HandshakeResponse) -> float:
    """When to renew, by our own steady clock: clocks of two machines may differ."""
    if not answer.HasField("token_expires_at"):
        return float("inf")
    life: int = answer.token_expires_at.ToNanoseconds() - request.issued_at.ToNanoseconds()
    if life <= 0:
        raise HostNotTrusted("its token ended before it was asked for; compare the clocks")
    return time.monotonic() + max(_RENEW_FLOOR, life * 1e-9 * RENEW_AFTER)
