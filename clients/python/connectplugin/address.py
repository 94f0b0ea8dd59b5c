"""What a plugin listens on."""
import re
from dataclasses import dataclass

from .errors import ConfigError

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[^\[\]:]*):([0-9]{1,5})")
_EVERYWHERE = ("", "0.0.0.0", "[::]")
_MOST_PORT = 65535


@dataclass(frozen=True)
class Address:
    """An address to listen on. Its host is in brackets where it is one of IPv6."""

    host: str
    port: int

    @property
    def everywhere(self) -> bool:
        """Whether it stands for all addresses of the machine, so that nobody can call it by that."""
        return self.host in _EVERYWHERE

    def __str__(self) -> str:
        return f"{self.host or '[::]'}:{self.port}"  # grpcio takes none without a host


def parse_address(text: str) -> Address:
    """Raises ConfigError for what is no address."""
    match = _ADDRESS.fullmatch(text)
    if not match or int(match[2]) > _MOST_PORT:
        raise ConfigError(f'address: {text[:128]!r} is no address to listen on; write for example "10.0.0.7:8443", or ":8443" for every '
                          "address of the machine")
    return Address(match[1], int(match[2]))


def bracketed(address: str) -> str:
    """An address of IP as it stands in a URL."""
    return f"[{address}]" if ":" in address else address
