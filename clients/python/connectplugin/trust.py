"""Who the plugin is, and how it knows its host."""
import base64
import hashlib
import os
import re
import ssl
import stat
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Callable, Iterator, Optional, Sequence

from .errors import ConfigError, HostNotTrusted

_SPIFFE = re.compile(r"spiffe://([a-z0-9._-]+)((?:/[A-Za-z0-9._-]+)+)")
_SUBJECT_ALT_NAME = bytes.fromhex("551d11")
_SEQUENCE, _OID, _OCTETS, _EXTENSIONS, _URI = 0x30, 0x06, 0x04, 0xA3, 0x86
_UTC_TIME = 0x17
_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")  # of UTF-8 and UTF-16
_OTHERS_ACCESS = stat.S_IRWXG | stat.S_IRWXO  # by which others than the owner reach a file
_MARKED = "begins with a byte order mark: save the file as UTF-8 without one"


@dataclass(frozen=True)
class Files:
    """The content of a directory of credentials at one moment, PEM."""

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: bytes


class Credentials:
    """A directory with tls.crt (the certificate, then its intermediates), tls.key and ca.crt, as a host's
    WriteCredentials, a launcher or a certificate manager writes it. It is read again when the files change.
    Only its owner may reach tls.key."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._stamp: Optional[tuple[tuple[int, int], ...]] = None
        self._good: Optional[tuple[Files, ssl.SSLContext]] = None
        self._refused = ""  # what was said last
        self._warn: Optional[Callable[[str, str], None]] = None
        self.read()

    def read(self) -> Files:
        """Returns the files as they are now; the last good ones while they are being replaced."""
        return self._read()[0]

    def client_context(self) -> ssl.SSLContext:
        """The client side for Python's own TLS: 1.3, and h2 alone. It shows what read returns: of files that are being replaced there
        may be none that fit together."""
        return self._read()[1]

    def _read(self) -> tuple[Files, ssl.SSLContext]:
        names = [os.path.join(self.directory, n) for n in ("tls.crt", "tls.key", "ca.crt")]
        try:
            stamp = _stamp(names)
            if stamp != self._stamp:
                self._good, self._stamp, self._refused = _load(names), stamp, ""
        except (OSError, ValueError) as e:  # ssl.SSLError is an OSError, ConfigError a ValueError
            if self._good is None:
                raise ConfigError(f"credentials: {self.directory} needs tls.crt, tls.key and ca.crt: {e}") from e
            self._refuse(str(e))
        assert self._good is not None
        return self._good

    def _refuse(self, text: str) -> None:
        """Says once why the files that are there now are not used."""
        if self._warn and text != self._refused:
            self._refused = text
            self._warn("certificate files refused, the previous certificate stays in use: %s", text)


def hear_refused(credentials: Credentials, warn: Callable[[str, str], None]) -> None:
    """Has a plugin's log say why files were not taken over: that of the latest plugin, where several share them."""
    if isinstance(credentials, Credentials):
        credentials._warn = warn


def _load(names: Sequence[str]) -> tuple[Files, ssl.SSLContext]:
    """Reads files that fit together. Python's ssl takes a key from a file alone, and a mounted secret is replaced in one
    step that may come between two of them, so they are looked at again afterwards."""
    files = _files(names)
    while True:
        context = _client_context(names, files.authorities)
        again = _files(names)
        if again == files:
            return files, context
        files = again


def _files(names: Sequence[str]) -> Files:
    return Files(_content(names[0]), _content(names[1], private=True), _content(names[2]))


class HostTrust:
    """What the host's certificate has to be, in both directions: where the plugin calls and where it is called."""

    def __init__(self, credentials: Credentials, identity: str = "", pins: Sequence[str] = ()) -> None:
        if identity and not _SPIFFE.fullmatch(identity):
            raise ConfigError(f"host_identity: {identity!r} is no SPIFFE id; write one, or host_pins")
        self.pins = frozenset(_parse_pin(p) for p in pins)
        self.identity = identity
        if not identity and not self.pins:
            self.identity = _host_of_domain(credentials.read().certificate)

    def check(self, certificate: bytes) -> None:
        """Raises HostNotTrusted unless a certificate that TLS has verified, in DER, is the host's."""
        shown = spiffe_id(certificate)
        if self.identity and shown != self.identity:
            raise HostNotTrusted(f"the certificate is that of {shown or 'nobody with a SPIFFE id'!r} instead of {self.identity!r}")
        if self.pins and spki_digest(certificate) not in self.pins:
            raise HostNotTrusted("the key of the certificate is not among host_pins")


def spiffe_id(certificate: bytes) -> str:
    """The SPIFFE id of a certificate in DER; empty where it has none, or more than one URI."""
    uris = list(_uris(certificate))
    return uris[0] if len(uris) == 1 and _SPIFFE.fullmatch(uris[0]) else ""


def spki_digest(certificate: bytes) -> bytes:
    """The SHA-256 of the public key (SPKI, RFC 7469)."""
    parts = [whole for tag, _, whole in _items(_tbs(certificate)) if tag != 0xA0]  # without the version
    return hashlib.sha256(parts[5]).digest()


OVERTIME = 60.0
"""How long a connection outlives the certificate that was shown on it, in seconds."""


def not_after(certificate: bytes) -> float:
    """When a certificate in DER ends, in seconds since 1970."""
    parts = [content for tag, content, _ in _items(_tbs(certificate)) if tag != 0xA0]  # without the version
    (_, _, _), (kind, text, _) = _items(parts[3])
    at = datetime.strptime(text.decode("ascii"), "%y%m%d%H%M%SZ" if kind == _UTC_TIME else "%Y%m%d%H%M%SZ")
    if kind == _UTC_TIME and at.year >= 2050:  # RFC 5280, section 4.1.2.5.1
        at = at.replace(year=at.year - 100)
    return at.replace(tzinfo=timezone.utc).timestamp()


def ended(certificate: bytes) -> bool:
    """Reports whether a certificate has ended: nothing new is to go over a connection on which it was shown."""
    return time.time() >= not_after(certificate)


def outlived(certificate: bytes) -> bool:
    """Reports whether a connection on which a certificate was shown is to end, with what is open on it."""
    return time.time() >= not_after(certificate) + OVERTIME


def _host_of_domain(pem: bytes) -> str:
    own = spiffe_id(ssl.PEM_cert_to_DER_cert(_first(pem)))
    match = _SPIFFE.fullmatch(own)
    if not match or not re.fullmatch(r"/(plugin|launch)/.+", match[2]):
        raise ConfigError("host_identity: the plugin's certificate does not tell which host is its own; "
                          "write the host's SPIFFE id, or host_pins")
    return f"spiffe://{match[1]}/host"


def _stamp(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    return tuple((s.st_ino, s.st_mtime_ns) for s in map(os.stat, names))  # copies may keep their times


def _client_context(names: Sequence[str], authorities: bytes) -> ssl.SSLContext:
    """Makes it of files that fit together. Raises what is wrong with others."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # As in Go, and in gRPC's own TLS, an intermediate authority in ca.crt is trusted without its root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_cert_chain(names[0], names[1], _no_passphrase)
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii", "ignore"))  # comments may be in any language
    except (ssl.SSLError, ValueError) as e:
        raise ConfigError(f"{names[2]} holds no whole PEM certificates: {e}") from e
    context.set_alpn_protocols(["h2"])
    return context


def _no_passphrase() -> bytes:
    """Keeps OpenSSL from asking whoever sits at the terminal, and from waiting for ever where nobody does."""
    raise ConfigError("tls.key has a passphrase; write the key without one")


def _content(name: str, private: bool = False) -> bytes:
    with open(name, "rb") as f:
        if private:
            _check_private(name, os.fstat(f.fileno()))  # of the opened file, whatever the name leads to by now
        content = f.read()
    if content.startswith(_MARKS):
        raise ConfigError(f"{name} {_MARKED}")
    return content


def _check_private(name: str, info: os.stat_result) -> None:
    """Refuses a file that others reach, in the words of the library in Go. A file of another owner may be readable by a group that this
    process is in: a secret that is mounted into a container. Windows has no such bits."""
    if os.name == "nt":
        return
    mode = stat.S_IMODE(info.st_mode) & 0o777
    others = mode & _OTHERS_ACCESS
    if info.st_uid != os.geteuid() and info.st_gid in (os.getegid(), *os.getgroups()):
        others &= ~stat.S_IRGRP
    if others:
        raise ConfigError(f"permissions are too open: {name} has {mode:04o}, others may reach it: chmod 0600 it, or mount it with mode 0400; 0440 "
                          "is for a file of another owner, as a mounted secret is, whose group this process is in")


def check_mark(name: str, secret: bytes) -> None:
    """Refuses a secret with what an editor put before its text; one of random bytes may begin so."""
    for mark, encoding in zip(_MARKS, ("utf-8", "utf-16-le", "utf-16-be")):
        if not secret.startswith(mark):
            continue
        try:
            text = secret[len(mark):].decode(encoding)
        except UnicodeDecodeError:
            continue
        if all(c.isprintable() or c.isspace() for c in text) and (encoding == "utf-8" or text.isascii()):
            raise ConfigError(f"{name}: {_MARKED}")


def _first(pem: bytes) -> str:
    end = b"-----END CERTIFICATE-----"
    head, found, _ = pem.partition(end)
    return (head[head.find(b"-----BEGIN CERTIFICATE-----"):] + found).decode()


def _parse_pin(text: str) -> bytes:
    try:
        pin = bytes.fromhex(text) if re.fullmatch(r"[0-9a-fA-F]{64}", text) else base64.b64decode(text, validate=True)
    except ValueError:
        pin = b""
    if len(pin) != hashlib.sha256().digest_size:
        raise ConfigError(f"host_pins: {text!r} is no SHA-256 of a public key in base64 or hex")
    return pin


def _items(der: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The items of a DER sequence: tag, content, and the whole."""
    at = 0
    while at < len(der):
        size, head = der[at + 1], 2
        if size & 0x80:
            head += size & 0x7F
            size = int.from_bytes(der[at + 2:at + head], "big")
        yield der[at], der[at + head:at + head + size], der[at:at + head + size]
        at += head + size


def _tbs(certificate: bytes) -> bytes:
    (_, content, _), = _items(certificate)
    return next(_items(content))[1]


def _uris(certificate: bytes) -> Iterator[str]:
    for tag, content, _ in _items(_tbs(certificate)):
        if tag != _EXTENSIONS:
            continue
        for _, extension, _ in _items(next(_items(content))[1]):
            parts = list(_items(extension))
            if parts[0][0] == _OID and parts[0][1] == _SUBJECT_ALT_NAME:
                for kind, name, _ in _items(next(_items(parts[-1][1]))[1]):
                    if kind == _URI:
                        yield name.decode("ascii", "replace")
