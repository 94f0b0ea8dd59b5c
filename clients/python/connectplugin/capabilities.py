"""Calls of the host's own capabilities, each with a grant of the host's."""
import re
import threading
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Optional
from urllib.parse import urlsplit

import grpc

from .calls import NEWS_WAIT, Aim, HostChannel, NoProvider, begin, host_forgot
from .errors import Closed, HostError, PluginError, check_name
from .link import HostLink, Unreachable
from .pace import code_of
from .session import RENEW_AFTER, Session
from .wire import broker_pb2 as broker

_CONFIRM_AFTER = 60.0  # a grant is asked for again where its capability is, and it is older than this, and than such a part of its life
_CONFIRM_PART = 8
_UNKNOWN = ("the host has none of this name and version, or its policy (PluginPolicy.Capabilities) does not give it to this plugin: ")


class NoGrant(PluginError, grpc.RpcError):  # type: ignore[misc]
    """The host granted nothing that a call could be made with: its answer did not come in time, or is malformed."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Wanted:
    """What is asked for."""

    capability: str
    constraint: str = ""
    reason: str = ""


@dataclass(frozen=True)
class _Grant:
    path: str
    token: str = field(repr=False)
    owner: str  # the runtime id that it was given to
    at: float  # when, by time.monotonic
    life: float  # infinite: used until the host refuses it

    @property
    def renew_at(self) -> float:
        return self.at + self.life * RENEW_AFTER


def request_grant(session: Session, link: HostLink, wanted: Wanted, wait: Optional[float], timeout: float) -> tuple[broker.CapabilityGrant, str, str]:
    """Asks the host for a grant, and once more where it did not know the plugin's identity any more. Returns to which runtime
    id it was given, and the time by the host's clock as its answer has it (RFC 9110, 6.6.1), too."""
    call = link.call("unary_unary.with_call", "/connectplugin.v1.CapabilityBroker/RequestCapability",
                     broker.RequestCapabilityRequest.SerializeToString, broker.RequestCapabilityResponse.FromString)
    request = broker.RequestCapabilityRequest(
        capability_type=wanted.capability, min_version=wanted.constraint, reason=wanted.reason)
    again = True
    while True:
        identity = session.identity(wait)
        try:
            answer, made = begin(call, request, metadata=identity.metadata(), timeout=timeout)
            date = next((v for k, v in made.initial_metadata() or () if k == "date"), "")
            return answer.grant, identity.runtime_id, str(date)
        except NoProvider:
            raise
        except grpc.RpcError as e:
            if not again or not host_forgot(e):
                unknown = code_of(e) is grpc.StatusCode.NOT_FOUND
                raise HostError(e, _UNKNOWN if unknown else "") from None
        session.refused(identity)
        again = False


class CapabilityChannel(HostChannel):
    """A channel that leads to a capability of the host, for generated stubs. It asks for a grant when a call needs one: the first
    time, when two thirds of the grant's life are over, when the plugin has another identity, and when the host refused it. The
    grant goes to its capability at the host and nowhere else. A call that came with a grant which the host does not take any
    more fails, and the next has another; a unary one is made once more where the host had lost the plugin, and the grant
    with it. Who asks again for the same gets the same channel."""

    def __init__(self, session: Session, link: HostLink, wanted: Wanted, timeout: float) -> None:
        check_name("capability", wanted.capability, 128)
        super().__init__(link)
        self._session, self._wanted, self._timeout = session, wanted, timeout
        self._asking = threading.Lock()
        self._mu = threading.Lock()
        # Guarded by _mu.
        self._grant: Optional[_Grant] = None
        self._stale = False  # the grant is good, and there may be a better one

    def close(self) -> None:
        """Does nothing: others may have the same channel, and it holds nothing but its grant. It ends with the plugin."""

    def confirm(self) -> None:
        """Has the next call ask the host again where the grant is not recent: it may offer another version by now."""
        with self._mu:
            g = self._grant
            if g is not None and time.monotonic() - g.at >= max(_CONFIRM_AFTER, g.life / _CONFIRM_PART):
                self._stale = True

    def aim(self, timeout: Optional[float]) -> Aim:
        begun = time.monotonic()
        g = self._obtain(begun + (self._timeout if timeout is None else timeout))
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - begun))
        return Aim(g.path, (("x-plugin-runtime-id", g.owner), ("authorization", "Bearer " + g.token)), g, left)

    def refused(self, aim: Aim) -> None:
        with self._mu:
            if self._grant is aim.credential:
                self._grant = None

    def mends(self, aim: Aim, timeout: Optional[float]) -> bool:
        """Asks for another grant. That tells whether the host lost the plugin, or took the grant away: then the call stays refused."""
        self.refused(aim)
        another = self._obtain(time.monotonic() + (self._timeout if timeout is None else timeout))
        return bool(another.owner != aim.credential.owner)

    def _obtain(self, until: float) -> _Grant:
        try:
            self._session.identity(max(0.0, min(NEWS_WAIT, until - time.monotonic())))
            found = self._usable()
            if found is not None:
                return found
            if not self._asking.acquire(timeout=max(0.0, until - time.monotonic())):
                raise NoGrant(grpc.StatusCode.DEADLINE_EXCEEDED, f"capability {self._wanted.capability!r}: the host has not answered yet")
            try:
                return self._usable() or self._ask(until)
            finally:
                self._asking.release()
        except (Unreachable, Closed) as e:
            raise NoProvider(str(e)) from e

    def _usable(self) -> Optional[_Grant]:
        with self._mu:
            return self._grant if not self._stale and self._lives(self._grant) else None

    def _lives(self, g: Optional[_Grant]) -> bool:
        mine = self._session.current()
        return g is not None and mine is not None and g.owner == mine.runtime_id and time.monotonic() < g.renew_at

    def _ask(self, until: float) -> _Grant:
        left = max(0.0, until - time.monotonic())
        try:
            granted, owner, date = request_grant(self._session, self._link, self._wanted, min(NEWS_WAIT, left), min(left, self._timeout))
        except HostError as e:
            with self._mu:
                if e.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and self._grant is not None and self._lives(self._grant):
                    self._stale = False
                    return self._grant  # the plugin has as many as it may
            raise
        g = _grant_of(granted, self._wanted.capability, owner, date)
        with self._mu:
            self._grant, self._stale = g, False
        return g


def _grant_of(m: broker.CapabilityGrant, capability: str, owner: str, date: str) -> _Grant:
    """Takes the path alone of a grant's URL: calls go to the host that the plugin knows, wherever the URL says that it points."""
    try:
        path = urlsplit(m.endpoint_url).path.rstrip("/")
    except ValueError:
        path = ""
    below = re.escape(f"/capabilities/{capability}/") + r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
    if not re.fullmatch(below, path) or not re.fullmatch(r"[!-~]{1,512}", m.bearer_token):
        raise NoGrant(grpc.StatusCode.INTERNAL, f"capability {capability!r}: the host's grant is malformed")
    life = _left(m.expires_at.ToNanoseconds() * 1e-9, date, time.time()) if m.HasField("expires_at") else 0.0
    # A life that is over already is that of a clock which differs from that of a host which does not say its time.
    return _Grant(path, m.bearer_token, owner, time.monotonic(), life if life > 0 else float("inf"))


def _left(end: float, date: str, now: float) -> float:
    """How long it is until an end by the clock of the host, which date was read from, to the second. This machine's is the finer one,
    as far as both agree."""
    own = end - now
    try:
        most = end - parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return own
    least = max(most - 1, most / 2)
    return own if most <= 0 or least <= own <= most else least
