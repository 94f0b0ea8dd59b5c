"""The connections to the host."""
import socket
import ssl
import threading
from typing import Any, Callable, Optional, Sequence
from urllib.parse import urlsplit

import grpc

from .errors import ConfigError, HostNotTrusted, PluginError
from .log import Log
from .trust import Credentials, HostTrust, ended, outlived

MAX_MESSAGE = 4 << 20

# grpcio inflates a message whole before it looks how large it is: 4 MiB become 4 GiB. Identity is the one that is left.
NO_COMPRESSION = ("grpc.compression_enabled_algorithms_bitset", 1)

# What a host takes of a provider. grpcio takes 8 KiB, and fails a call with more with RESOURCE_EXHAUSTED, whatever the provider said. From 1.54
# on the first is where it begins to refuse some, and the second what it never takes more of.
METADATA = tuple((name, 256 << 10) for name in ("grpc.max_metadata_size", "grpc.absolute_max_metadata_size"))

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),  # the environment's: the host is reached where its URL says, as by Go and by the look before
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    NO_COMPRESSION,
    *METADATA,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 5000),
    # A silent stream looks like one whose host is gone.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.http2.max_pings_without_data", 0),
)


_MOST_CHANNELS = 16  # for calls, as a client in Go
_CHANNEL_CALLS = 100  # at least what a host should take of a connection; grpcio does not say what it does take


class Unreachable(PluginError):
    """The host does not answer. It may again."""


# X509_V_ERR_… of OpenSSL for a certificate of an authority that nobody named, and for one whose time it is not.
_UNKNOWN_AUTHORITY = frozenset((2, 18, 19, 20, 21))
_NOT_ITS_TIME = frozenset((9, 10))


def _advice(code: int) -> str:
    if code in _NOT_ITS_TIME:
        return ": the host's certificate, or its authority's; renew it, or set the clocks: that of this machine may be the wrong one"
    if code not in _UNKNOWN_AUTHORITY:
        return ""
    return (": the host's certificate is of an authority that is not in ca.crt; compare that with the host's, or have its "
            "WriteCredentials write all three files again")


def parse_base_url(field: str, url: str) -> tuple[str, int]:
    """Returns the name and the port. Raises ConfigError for what is no URL of a server, in which there may be a secret: then without it."""
    if any(c in url for c in "@?#"):
        raise ConfigError(f'{field}: carries credentials, a query or a fragment; write for example "https://127.0.0.1:8443" and nothing else')
    try:
        parts = urlsplit(url)
        port = 443 if parts.port is None else parts.port
    except ValueError as e:  # a port, or an address in brackets
        raise ConfigError(f'{field}: {url!r} is no base URL: {e}; write for example "https://127.0.0.1:8443"') from e
    if port == 0:
        raise ConfigError(f"{field}: {url!r} has port 0; write one from 1 to 65535")
    if parts.scheme == "https" and parts.hostname and parts.path not in ("", "/"):
        raise ConfigError(f"{field}: {url!r} has the path {parts.path!r}, below which plugins in Go reach a host, and this package does not; have "
                          "the host answer at a port, or under a name, of its own")
    if parts.scheme != "https" or not parts.hostname:
        raise ConfigError(f'{field}: {url!r} is no base URL; write for example "https://127.0.0.1:8443"')
    return parts.hostname, port


class _ForCalls:
    """A channel, and the calls that it carries."""

    def __init__(self, channel: grpc.Channel, leaf: bytes) -> None:
        self.channel, self.leaf = channel, leaf
        self.open, self.retired = 0, False


class HostLink:
    """gRPC channels that reach nobody but the host.

    One is the session's alone: what the plugin says of itself does not wait behind its calls, of which a connection
    takes only so many. Calls, and watches, which stay open, have others.

    grpcio has no hook for checking whom a channel reached. So the link first opens a connection with Python's own
    TLS, verifies the chain, the name, and that the certificate is the host's, and then makes a channel whose one
    root is exactly that certificate: it can reach nobody else. When the host has a new certificate the channel
    fails, and the link looks again.
    """

    def __init__(self, url: str, credentials: Credentials, trust: HostTrust, lost: Callable[[], None],
                 log: Log, wake: Callable[[], None] = lambda: None) -> None:
        self.name, self.port = parse_base_url("host", url)
        self.local = ""  # the address from which the host was reached
        self._credentials, self._trust, self._lost, self._log, self._wake = credentials, trust, lost, log, wake
        self._mu = threading.Lock()
        self._channel: Optional[grpc.Channel] = None
        self._for_calls: list[_ForCalls] = []
        self._leaving: list[_ForCalls] = []  # retired, with calls
        self._made_of: Optional[tuple[bytes, Any]] = None
        self._reached: Optional[tuple[bytes, Any]] = None  # the same, and stays when the host is lost
        self._down = True

    def channel(self) -> grpc.Channel:
        """The session's channel of the moment. Before the host was reached there is none."""
        with self._mu:
            if self._channel is None:
                raise Unreachable("the host was not reached yet")
            return self._channel

    def call(self, kind: str, method: str, serializer: Any, deserializer: Any) -> Callable[..., Any]:
        """Returns what begins a call over a channel that has room. kind is that of grpc.Channel, or such a one and how it is
        begun: "unary_unary.future"."""
        kind, _, how = kind.partition(".")

        def begin(*args: Any, **options: Any) -> Any:
            taken = self._take()
            kept = False
            try:
                multi = getattr(taken.channel, kind)(method, request_serializer=serializer, response_deserializer=deserializer)
                begun = (getattr(multi, how) if how else multi)(*args, **options)
                # What is not over yet gives its place back when it is.
                kept = isinstance(begun, grpc.RpcContext) and begun.add_callback(lambda: self._give(taken))
                return begun
            finally:
                if not kept:
                    self._give(taken)

        return begin

    def _take(self) -> _ForCalls:
        with self._mu:
            if self._reached is None:
                raise Unreachable("the host was not reached yet")
            found = next((c for c in self._for_calls if c.open < _CHANNEL_CALLS), None)
            if found is None and len(self._for_calls) < _MOST_CHANNELS:
                found = self._another_locked(*self._reached)
            found = found or min(self._for_calls, key=lambda c: c.open)
            found.open += 1
            return found

    def _another_locked(self, leaf: bytes, files: Any) -> _ForCalls:
        another = _ForCalls(self._new_channel(leaf, files), leaf)

        def changed(state: grpc.ChannelConnectivity) -> None:
            # The channel would wait by a clock of its own, and fail every call until then: the next one is another.
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                with self._mu:
                    self._retire_locked([another])
                    doubtful, self._down = not self._down, True  # the host may have a new certificate, which this channel does not take
                if doubtful:
                    self._wake()

        another.channel.subscribe(changed)
        self._for_calls.append(another)
        return another

    def _give(self, taken: _ForCalls) -> None:
        with self._mu:
            taken.open -= 1
            if taken.retired and taken.open == 0:
                if taken in self._leaving:  # else it was closed
                    self._leaving.remove(taken)
                _close(taken.channel)

    def _retire_locked(self, retired: Sequence[_ForCalls]) -> None:
        """Has no new calls go over channels, each of which ends with the last that it carries."""
        for c in retired:
            if c in self._for_calls:
                self._for_calls.remove(c)
                c.retired = True
                if c.open == 0:
                    _close(c.channel)
                else:
                    self._leaving.append(c)

    def reach(self, timeout: float) -> None:
        """Makes sure that the channel leads to the host, and shows it the certificate of now. Raises Unreachable or HostNotTrusted."""
        self._end_outlived()
        now = self._credentials.read()
        with self._mu:
            stands = not self._down
            if stands and not self._shows_another_locked(now) and not (self._made_of and ended(self._made_of[0])):
                return
            self._down = False  # what is lost from here on is lost anew
        try:
            leaf, files = self._look(timeout), self._credentials.read()
        except BaseException as e:
            if stands and isinstance(e, Unreachable):
                return  # what there is is better than nothing
            with self._mu:
                self._down = True
            raise
        with self._mu:
            if self._made_of == (leaf, files):
                return
            before, self._made_of, self._reached = self._channel, (leaf, files), (leaf, files)
            self._channel = self._open(leaf, files)
            self._retire_locked(list(self._for_calls))
        if before is not None:
            before.close()

    def _shows_another_locked(self, now: Any) -> bool:
        """Reports whether the certificate was renewed that the channels show. The host ends their connections with it, and all that
        is open on them, unless it was shown the new one. One with another key makes another plugin of this process, which it becomes when
        the host ends them."""
        shown = self._made_of[1] if self._made_of is not None else now
        return bool(now.certificate != shown.certificate and now.key == shown.key)

    def _end_outlived(self) -> None:
        """Ends every connection on which the host showed a certificate that has been over for so long."""
        with self._mu:
            over = [c for c in (*self._for_calls, *self._leaving) if outlived(c.leaf)]
            self._retire_locked(over)
            closing = [c.channel for c in over]
            if self._channel is not None and self._reached is not None and outlived(self._reached[0]):
                closing.append(self._channel)
                self._channel, self._made_of, self._reached, self._down = None, None, None, True
        for channel in closing:
            channel.close()

    def lose(self) -> None:
        """Has the next reach look again."""
        with self._mu:
            self._down = True

    def close(self) -> None:
        with self._mu:
            channel, self._channel, self._made_of, self._reached, self._down = self._channel, None, None, None, True
            for_calls, self._for_calls, self._leaving = [*self._for_calls, *self._leaving], [], []
        for c in for_calls:
            c.channel.close()
        if channel is not None:
            channel.close()

    def _look(self, timeout: float) -> bytes:
        context = self._credentials.client_context()
        try:
            with socket.create_connection((self.name, self.port), timeout) as raw:
                self.local = str(raw.getsockname()[0])
                with context.wrap_socket(raw, server_hostname=self.name) as conn:
                    leaf = conn.getpeercert(binary_form=True)
        except ssl.SSLCertVerificationError as e:
            raise HostNotTrusted(f"{self.name}: {e.verify_message}{_advice(e.verify_code)}") from e
        except OSError as e:
            raise Unreachable(f"{self.name}:{self.port}: {e}") from e
        assert leaf is not None
        self._trust.check(leaf)
        return leaf

    def _new_channel(self, leaf: bytes, files: Any) -> grpc.Channel:
        root = ssl.DER_cert_to_PEM_cert(leaf).encode()
        credentials = grpc.ssl_channel_credentials(root, files.key, files.certificate)
        host = f"[{self.name}]" if ":" in self.name else self.name
        return grpc.secure_channel(f"{host}:{self.port}", credentials, options=_OPTIONS)

    def _open(self, leaf: bytes, files: Any) -> grpc.Channel:
        channel = self._new_channel(leaf, files)
        was_ready = [False]

        def changed(state: grpc.ChannelConnectivity) -> None:
            if state is grpc.ChannelConnectivity.READY:
                was_ready[0] = True
            elif state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                # The channel would wait by a clock of its own, and fail every call until then: the next one is another.
                with self._mu:
                    if self._channel is channel:
                        self._made_of = None
            if was_ready[0] and state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                was_ready[0] = False
                self._log.debug("the connection to the host is %s", state.name)
                self.lose()
                self._lost()

        channel.subscribe(changed)
        return channel


def _close(channel: grpc.Channel) -> None:
    """Closes a channel from a thread that may be its own."""
    threading.Thread(target=channel.close, name="connectplugin-close", daemon=True).start()
