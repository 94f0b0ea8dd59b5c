"""Errors that a plugin's author may branch on. Those of calls are grpc.RpcError, as everywhere in grpcio."""
import re
from typing import Any

import grpc

from .glyphs import printable


class PluginError(Exception):
    """The parent of all errors of this package. What a host said stands in a text as people may see it."""

    def __init__(self, text: str = "") -> None:
        super().__init__(printable(text))


class ConfigError(PluginError, ValueError):
    """The configuration is wrong. The text names the argument and what to write instead."""


class HostNotTrusted(PluginError):
    """The host is not the one that the plugin was told of, or did not prove that it holds the secret."""


class HandshakeRefused(PluginError):
    """The host does not take this plugin; the host's log says why. Trying again is of no use."""


class HostError(PluginError, grpc.RpcError):  # type: ignore[misc]
    """What the host itself answered, with its text as people may see it."""

    def __init__(self, answer: Any, meaning: str = "") -> None:
        self._code, self._text = answer.code(), printable(meaning + (answer.details() or ""))
        self._initial, self._trailing = tuple(answer.initial_metadata() or ()), tuple(answer.trailing_metadata() or ())
        super().__init__(f"{self._code.name}: {self._text}")

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._text

    def initial_metadata(self) -> Any:
        return self._initial

    def trailing_metadata(self) -> Any:
        return self._trailing


class Closed(PluginError):
    """The plugin has ended."""


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_VERSION = re.compile(r"v?[0-9]+(\.[0-9]+)?(\.[0-9]+)?(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")


def check_name(field: str, name: str, most: int) -> None:
    """Raises ConfigError for a name that no host takes: of a plugin, or of a service type."""
    if not _NAME.fullmatch(name) or len(name) > most:
        raise ConfigError(f"{field}: {name[:most]!r} is no name; write letters, digits, '.', '_' and '-', the first of them a letter or "
                          f"digit, {most} at most")


def check_version(field: str, version: str) -> None:
    """Raises ConfigError for what is no semantic version. Empty is none, and no host minds that."""
    if version and not _VERSION.fullmatch(version):
        raise ConfigError(f"{field}: {version[:64]!r} is no semantic version; write for example '1.2.3'")
