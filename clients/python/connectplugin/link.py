"""The connection to the host."""
import logging
import socket
import ssl
import threading
from typing import Any, Callable, Optional
from urllib.parse import urlsplit

import grpc

from .errors import ConfigError, HostNotTrusted, PluginError
from .trust import Credentials, HostTrust

MAX_MESSAGE = 4 << 20

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 5000),
    # A silent stream looks like one whose host is gone.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.http2.max_pings_without_data", 0),
)


class Unreachable(PluginError):
    """The host does not answer. It may again."""


# X509_V_ERR_… of OpenSSL for a certificate of an authority that nobody named.
_UNKNOWN_AUTHORITY = frozenset((2, 18, 19, 20, 21))


def _advice(code: int) -> str:
    if code not in _UNKNOWN_AUTHORITY:
        return ""
    return (": the host's certificate is of an authority that is not in ca.crt; compare that with the host's, or have its "
            "WriteCredentials write all three files again")


class HostLink:
    """A gRPC channel that reaches nobody but the host.

    grpcio has no hook for checking whom a channel reached. So the link first opens a connection with Python's own
    TLS, verifies the chain, the name, and that the certificate is the host's, and then makes a channel whose one
    root is exactly that certificate: it can reach nobody else. When the host has a new certificate the channel
    fails, and the link looks again.
    """

    def __init__(self, url: str, credentials: Credentials, trust: HostTrust, lost: Callable[[], None],
                 log: logging.Logger) -> None:
        try:
            parts = urlsplit(url)
            port = 443 if parts.port is None else parts.port
        except ValueError as e:  # a port, or an address in brackets
            raise ConfigError(f'host: {url!r} is no base URL: {e}; write for example "https://127.0.0.1:8443"') from e
        if port == 0:
            raise ConfigError(f"host: {url!r} has port 0; write one from 1 to 65535")
        if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ConfigError(f'host: {url!r} is no base URL; write for example "https://127.0.0.1:8443"')
        self.name, self.port = parts.hostname, port
        self.local = ""  # the address from which the host was reached
        self._credentials, self._trust, self._lost, self._log = credentials, trust, lost, log
        self._mu = threading.Lock()
        self._channel: Optional[grpc.Channel] = None
        self._made_of: Optional[tuple[bytes, Any]] = None
        self._down = True

    def channel(self) -> grpc.Channel:
        """The channel of the moment. Before the host was reached there is none."""
        with self._mu:
            if self._channel is None:
                raise Unreachable("the host was not reached yet")
            return self._channel

    def reach(self, timeout: float) -> None:
        """Makes sure that the channel leads to the host. Raises Unreachable or HostNotTrusted."""
        with self._mu:
            if not self._down:
                return
            self._down = False  # what is lost from here on is lost anew
        try:
            leaf, files = self._look(timeout), self._credentials.read()
        except BaseException:
            with self._mu:
                self._down = True
            raise
        with self._mu:
            if self._made_of == (leaf, files):
                return
            before, self._made_of = self._channel, (leaf, files)
            self._channel = self._open(leaf)
        if before is not None:
            before.close()

    def lose(self) -> None:
        """Has the next reach look again."""
        with self._mu:
            self._down = True

    def close(self) -> None:
        with self._mu:
            channel, self._channel, self._made_of, self._down = self._channel, None, None, True
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

    def _open(self, leaf: bytes) -> grpc.Channel:
        files = self._credentials.read()
        root = ssl.DER_cert_to_PEM_cert(leaf).encode()
        credentials = grpc.ssl_channel_credentials(root, files.key, files.certificate)
        host = f"[{self.name}]" if ":" in self.name else self.name
        channel = grpc.secure_channel(f"{host}:{self.port}", credentials, options=_OPTIONS)
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
