"""Errors that a plugin's author may branch on. Those of calls are grpc.RpcError, as everywhere in grpcio."""


class PluginError(Exception):
    """The parent of all errors of this package."""


class ConfigError(PluginError, ValueError):
    """The configuration is wrong. The text names the argument and what to write instead."""


class HostNotTrusted(PluginError):
    """The host is not the one that the plugin was told of, or did not prove that it holds the secret."""


class HandshakeRefused(PluginError):
    """The host does not take this plugin; the host's log says why. Trying again is of no use."""


class Closed(PluginError):
    """The plugin has ended."""
